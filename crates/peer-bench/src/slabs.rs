//! Values in numbered slots: l1 and l2 in a slab of one thread, l3 to l6 in one that threads share, l7 in one whose readers
//! are pinned in an epoch, 64 reads at a time.
//!
//! Each slab has 1 024 values. They are replaced and read in an order that is not that of their slots. In l5 one thread
//! inserts and another one removes: the keys go through a ring, the same one for every subject, whose cost is included.

use crate::{
    harness::{Bench, Target},
    queues::{together, wait_until},
};
use nebula_memory::lockfree::{EpochSlab, Handle, LocalSlab, Slab, ring};
use std::{
    hint::black_box,
    sync::{Arc, Mutex},
};

/// The values in a slab.
const VALUES: usize = 1024;

/// The operations of a body of several threads.
const MANY: usize = 100_000;

/// The next index in an order of full period.
#[inline(always)]
const fn next(at: usize) -> usize {
    (at * 5 + 293) % VALUES
}

/// A slab of one thread.
trait Local: 'static {
    const NAME: &'static str;
    type Key: Copy + 'static;
    fn make() -> Self;
    fn insert(&mut self, value: u64) -> Self::Key;
    fn remove(&mut self, key: Self::Key) -> Option<u64>;
    fn get(&self, key: Self::Key) -> Option<&u64>;
}

macro_rules! local {
    ($kind:ty, $name:literal, $key:ty, $make:expr, $remove:expr, $get:expr) => {
        impl Local for $kind {
            const NAME: &'static str = $name;
            type Key = $key;
            fn make() -> Self {
                $make
            }
            #[inline(always)]
            fn insert(&mut self, value: u64) -> $key {
                <$kind>::insert(self, value)
            }
            #[inline(always)]
            fn remove(&mut self, key: $key) -> Option<u64> {
                let remove: fn(&mut Self, $key) -> Option<u64> = $remove;
                remove(self, key)
            }
            #[inline(always)]
            fn get(&self, key: $key) -> Option<&u64> {
                let get: fn(&Self, $key) -> Option<&u64> = $get;
                get(self, key)
            }
        }
    };
}

type SlotMap = slotmap::SlotMap<slotmap::DefaultKey, u64>;
type Arena = thunderdome::Arena<u64>;

local!(LocalSlab<u64>, "nebula", Handle, Self::new(), |slab, key| slab.remove(key), |slab, key| {
    slab.get(key)
});
// It has no generations: a key of a removed value finds a later one.
local!(
    slab::Slab<u64>,
    "slab",
    usize,
    Self::new(),
    |slab, key| slab.try_remove(key),
    |slab, key| { slab.get(key) }
);
local!(
    SlotMap,
    "slotmap",
    slotmap::DefaultKey,
    Self::new(),
    |slab, key| slab.remove(key),
    |slab, key| { slab.get(key) }
);
local!(
    Arena,
    "thunderdome",
    thunderdome::Index,
    Self::new(),
    |slab, key| slab.remove(key),
    |slab, key| { slab.get(key) }
);

fn one_thread<L: Local>(bench: &mut Bench) {
    let full = || {
        let mut slab = L::make();
        let keys: Vec<_> = (0..VALUES as u64).map(|value| slab.insert(value)).collect();
        (slab, keys)
    };
    bench.add(("l1", "slab: a u64 removed, another inserted"), VALUES, L::NAME, move || {
        let ((mut slab, mut keys), mut at) = (full(), 0);
        move || {
            for value in 0..VALUES as u64 {
                at = next(at);
                black_box(slab.remove(keys[at]));
                keys[at] = slab.insert(black_box(value));
            }
        }
    });
    bench.add(("l2", "slab: a u64 read"), VALUES, L::NAME, move || {
        let ((slab, keys), mut at) = (full(), 0);
        move || {
            let mut sum = 0_u64;
            for _ in 0..VALUES {
                at = next(at);
                sum += slab.get(keys[at]).copied().unwrap_or(0);
            }
            black_box(sum);
        }
    });
}

/// A slab that threads share.
trait Shared: Sync + Send + 'static {
    const NAME: &'static str;
    type Key: Copy + Send + Sync + 'static;
    fn make() -> Self;
    fn insert(&self, value: u64) -> Self::Key;
    fn remove(&self, key: Self::Key) -> bool;
    fn get(&self, key: Self::Key) -> u64;
}

impl Shared for Slab<u64> {
    const NAME: &'static str = "nebula";
    type Key = Handle;
    fn make() -> Self {
        Self::new()
    }
    #[inline(always)]
    fn insert(&self, value: u64) -> Handle {
        self.insert(value)
    }
    #[inline(always)]
    fn remove(&self, key: Handle) -> bool {
        self.remove(key)
    }
    #[inline(always)]
    fn get(&self, key: Handle) -> u64 {
        self.get(key).map_or(0, |value| *value)
    }
}

impl Shared for sharded_slab::Slab<u64> {
    const NAME: &'static str = "sharded-slab";
    type Key = usize;
    fn make() -> Self {
        Self::new()
    }
    #[inline(always)]
    fn insert(&self, value: u64) -> usize {
        self.insert(value).expect("there is room")
    }
    #[inline(always)]
    fn remove(&self, key: usize) -> bool {
        self.remove(key)
    }
    #[inline(always)]
    fn get(&self, key: usize) -> u64 {
        self.get(key).map_or(0, |value| *value)
    }
}

impl Shared for Mutex<SlotMap> {
    const NAME: &'static str = "Mutex<SlotMap>";
    type Key = slotmap::DefaultKey;
    fn make() -> Self {
        Self::new(SlotMap::new())
    }
    #[inline(always)]
    fn insert(&self, value: u64) -> Self::Key {
        self.lock().expect("no panic").insert(value)
    }
    #[inline(always)]
    fn remove(&self, key: Self::Key) -> bool {
        self.lock().expect("no panic").remove(key).is_some()
    }
    #[inline(always)]
    fn get(&self, key: Self::Key) -> u64 {
        self.lock().expect("no panic").get(key).copied().unwrap_or(0)
    }
}

/// Replaces `count` values of a thread's own.
#[inline(always)]
fn replace<S: Shared>(slab: &S, keys: &mut [S::Key], at: &mut usize, count: usize) {
    for value in 0..count as u64 {
        *at = next(*at);
        black_box(slab.remove(keys[*at]));
        keys[*at] = slab.insert(black_box(value));
    }
}

fn fill<S: Shared>(slab: &S) -> Vec<S::Key> {
    (0..VALUES as u64).map(|value| slab.insert(value)).collect()
}

fn threads<S: Shared>(bench: &mut Bench) {
    bench.add(("l3", "shared slab: a u64 removed, another inserted"), VALUES, S::NAME, || {
        let (slab, mut at) = (S::make(), 0);
        let mut keys = fill(&slab);
        move || replace(&slab, &mut keys, &mut at, VALUES)
    });
    bench.add_threads(("l4", "the same, each of two threads its own"), MANY, S::NAME, || {
        let slab = S::make();
        move || {
            let worker = || {
                let mut keys = fill(&slab);
                replace(&slab, &mut keys, &mut 0, MANY / 2 - VALUES);
                keys.iter().for_each(|key| _ = slab.remove(*key));
            };
            together(vec![Box::new(worker), Box::new(worker)])
        }
    });
    bench.add_threads(("l5", "shared slab: inserted here, removed there"), MANY, S::NAME, || {
        let slab = S::make();
        move || {
            let (mut to, mut from) = ring(VALUES);
            let inserts = || {
                for value in 0..MANY as u64 {
                    let mut key = Some(slab.insert(black_box(value)));
                    wait_until(|| match to.push(key.take().expect("put back")) {
                        Ok(()) => true,
                        Err(full) => {
                            key = Some(full.0);
                            false
                        }
                    });
                }
            };
            let removes = || {
                for _ in 0..MANY {
                    wait_until(|| from.pop().map(|key| black_box(slab.remove(key))).is_some());
                }
            };
            together(vec![Box::new(inserts), Box::new(removes)])
        }
    });
    bench.add_threads(("l6", "shared slab: a u64 read, by two threads"), MANY, S::NAME, || {
        let slab = Arc::new(S::make());
        let keys = Arc::new(fill(&*slab));
        move || {
            let reader = || {
                let (mut sum, mut at) = (0_u64, 0);
                for _ in 0..MANY / 2 {
                    at = next(at);
                    sum = sum.wrapping_add(slab.get(keys[at]));
                }
                black_box(sum);
            };
            together(vec![Box::new(reader), Box::new(reader)])
        }
    });
}

/// The reads of one pinned reader.
const PINNED: usize = 64;

/// Adds a slab whose readers are pinned. `read` sums up the values of so many keys.
fn epochs<S: Send + Sync + 'static, K: Copy + Send + Sync + 'static>(
    bench: &mut Bench,
    name: &'static str,
    make: fn() -> (S, Vec<K>),
    read: impl Fn(&S, &[K; PINNED]) -> u64 + Copy + Sync + 'static,
) {
    bench.add_threads(
        ("l7", "slab with epochs: a u64 read, by two threads"),
        MANY,
        name,
        move || {
            let (slab, keys) = make();
            let mut orders = Vec::new();
            let mut at = 0;
            for _ in 0..VALUES / PINNED {
                orders.push(std::array::from_fn(|_| {
                    at = next(at);
                    keys[at]
                }));
            }
            move || {
                let reader = || {
                    let mut sum = 0_u64;
                    for turn in 0..MANY / 2 / PINNED {
                        sum = sum.wrapping_add(read(&slab, &orders[turn % orders.len()]));
                    }
                    black_box(sum);
                };
                together(vec![Box::new(reader), Box::new(reader)])
            }
        },
    );
}

pub fn register(bench: &mut Bench) {
    epochs(
        bench,
        "nebula",
        || {
            let slab = EpochSlab::new();
            let keys = (0..VALUES as u64).map(|value| slab.insert(value)).collect();
            (slab, keys)
        },
        |slab, keys| {
            let reader = slab.reader();
            keys.iter().map(|key| reader.get(*key).copied().unwrap_or(0)).sum()
        },
    );
    epochs(
        bench,
        "idr-ebr",
        || {
            let idr = idr_ebr::Idr::<u64>::default();
            let keys = (0..VALUES as u64).map(|value| idr.insert(value).expect("room")).collect();
            (idr, keys)
        },
        |idr, keys| {
            let guard = idr_ebr::EbrGuard::new();
            keys.iter().map(|key| idr.get(*key, &guard).map_or(0, |value| *value)).sum()
        },
    );
    epochs(
        bench,
        "sharded-slab",
        || {
            let slab = sharded_slab::Slab::new();
            let keys = (0..VALUES as u64).map(|value| slab.insert(value).expect("room")).collect();
            (slab, keys)
        },
        |slab, keys| keys.iter().map(|key| slab.get(*key).map_or(0, |value| *value)).sum(),
    );
    bench.target("l7", Target::Most(2.2));
    one_thread::<LocalSlab<u64>>(bench);
    one_thread::<slab::Slab<u64>>(bench);
    one_thread::<SlotMap>(bench);
    one_thread::<Arena>(bench);
    threads::<Slab<u64>>(bench);
    threads::<sharded_slab::Slab<u64>>(bench);
    threads::<Mutex<SlotMap>>(bench);
    bench.target("l1", Target::Most(3.0));
    bench.target("l2", Target::Most(1.3));
    bench.target("l3", Target::Most(12.0));
    bench.target("l4", Target::Most(6.0));
    bench.target("l5", Target::Most(20.0));
    bench.target("l6", Target::Most(6.0));
}
