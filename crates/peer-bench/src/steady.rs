//! A service that is full and steady: caches hold the whole budget, and requests reclaim from them.

use crate::{
    growth::{self, Kind, Unit, nanos, timed},
    harness::Bench,
    threads::both,
};
use nebula_memory::{Budget, cache::Cache};
use quick_cache::{Weighter, sync};
use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

const FULL: Kind = Kind {
    name: "v4",
    about: "a request: 4 KiB reserved, released and cached, where caches hold all 64 MiB; of caches alone: 4 KiB cached",
    of: "caches",
    sizes: &[1, 10, 100, 1_000],
    unit: Unit::Time,
    counted: None,
};
const FULL_2: Kind = Kind { name: "v5", about: "v4 by two threads", ..FULL };

const LIMIT: usize = 64 << 20;
const ENTRY: usize = 4 << 10;
const ENTRIES: usize = LIMIT / ENTRY;

/// Requests of each thread between two readings of the clock.
const MANY: usize = 1_000;

/// Caches that are full.
trait Service: Sync + Sized + 'static {
    fn new(caches: usize) -> Self;
    /// Puts an entry into one of the caches.
    fn cache(&self, key: u64);
    /// Serves a request whose result is cached under `key`.
    fn serve(&self, key: u64) {
        self.cache(key);
    }
}

type Ours = Cache<u64, u64>;

/// The weight of an entry: 4 KiB together with the overhead of the cache.
fn weight(_: &u64, _: &u64) -> usize {
    ENTRY - Ours::ENTRY_OVERHEAD
}

fn at<C>(caches: &[C], key: u64) -> &C {
    &caches[usize::try_from(key % caches.len() as u64).expect("an index")]
}

struct OnBudget {
    root: Budget,
    caches: Vec<Ours>,
}

impl Service for OnBudget {
    fn new(caches: usize) -> Self {
        let root = Budget::root("process").limit(LIMIT).build().expect("the figures are right");
        let cache = |_| Cache::options("cache").budget(&root).weigher(weight).build();
        let caches = (0..caches).map(|at| cache(at).expect("the options are right")).collect();
        Self { root, caches }
    }
    fn serve(&self, key: u64) {
        // Another request may take the bytes that were reclaimed for this one.
        while black_box(self.root.try_reserve(ENTRY)).is_err() {}
        self.cache(key);
    }
    fn cache(&self, key: u64) {
        black_box(at(&self.caches, key).insert(key, key));
    }
}

impl Drop for OnBudget {
    fn drop(&mut self) {
        let used = self.root.usage().used;
        assert!(used > LIMIT / 10 * 9, "the caches hold {used} bytes only");
    }
}

struct Bare(Vec<Ours>);

impl Service for Bare {
    fn new(caches: usize) -> Self {
        let cache = |_| Cache::options("cache").max_bytes(LIMIT / caches).weigher(weight).build();
        Self((0..caches).map(|at| cache(at).expect("the options are right")).collect())
    }
    fn cache(&self, key: u64) {
        black_box(at(&self.0, key).insert(key, key));
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<u64, u64> for Weight {
    fn weight(&self, _: &u64, _: &u64) -> u64 {
        ENTRY as u64
    }
}

struct Quick(Vec<sync::Cache<u64, u64, Weight>>);

impl Service for Quick {
    fn new(caches: usize) -> Self {
        let (entries, bytes) = (ENTRIES / caches, (LIMIT / caches) as u64);
        Self((0..caches).map(|_| sync::Cache::with_weighter(entries, bytes, Weight)).collect())
    }
    fn cache(&self, key: u64) {
        at(&self.0, key).insert(key, key);
    }
}

fn add<S: Service>(bench: &mut Bench, name: &'static str) {
    let full = |caches| {
        let (service, next) = (S::new(caches), AtomicU64::new(0));
        let next = move || next.fetch_add(1, Ordering::Relaxed);
        (0..2 * ENTRIES).for_each(|_| service.cache(next()));
        let serve = move || service.serve(next());
        (0..MANY).for_each(|_| serve());
        serve
    };
    growth::add(&mut bench.growth, &FULL, name, None, move |caches| {
        let serve = full(caches);
        move |times| timed(times, &serve)
    });
    growth::add(&mut bench.growth, &FULL_2, name, None, move |caches| {
        let serve = full(caches);
        let many = move || (0..MANY).for_each(|_| serve());
        move |times| (0..times).map(|_| nanos(both(&many)) / (2 * MANY) as f64).sum()
    });
}

pub fn register(bench: &mut Bench) {
    add::<OnBudget>(bench, "nebula (caches on one budget)");
    add::<Bare>(bench, "nebula (caches alone)");
    add::<Quick>(bench, "quick_cache (caches alone)");
}
