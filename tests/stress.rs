//! All components on one tree, from many threads, with closures that panic half-way.
#![cfg(all(feature = "std", not(miri)))]

use nebula_memory::{
    Budget, MemoryError, arena::Arena, budget::NodeSnapshot, cache::Cache, pool::Pool,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

const THREADS: u32 = 4;
const TENANTS: usize = 3;
const ROUNDS: u64 = 1500;
const LIMIT: usize = 150 << 10;
const TENANT_LIMIT: usize = 90 << 10;
const GUARANTEE: usize = 10 << 10;

/// The payload of a planned panic. No hook prints it.
struct Planned;

struct Tenant {
    budget: Budget,
    arenas: Budget,
    buffers: Pool<fn() -> Vec<u8>>,
    lists: Cache<u64, Vec<u8>>,
}

impl Tenant {
    fn new(process: &Budget, name: &str) -> Result<Self, MemoryError> {
        let budget = process.child(name).limit(TENANT_LIMIT).guarantee(GUARANTEE).build()?;
        let weigh = |_: &u64, list: &Vec<u8>| size_of::<(u64, Vec<u8>)>() + list.capacity();
        Ok(Self {
            arenas: budget.child("arenas").build()?,
            buffers: Pool::options("buffers").budget(&budget).build(Vec::new as fn() -> Vec<u8>)?,
            lists: Cache::options("lists").budget(&budget).weigher(weigh).build()?,
            budget,
        })
    }

    /// One run with a buffer, an arena and a memoised result. It may be refused or panic at any point.
    fn run(&self, mut random: Random) -> Result<(), MemoryError> {
        let mut buffer = self.buffers.try_get()?;
        let bytes = random.below(12 << 10).max(buffer.capacity());
        buffer.try_charge(bytes)?;
        buffer.reserve_exact(bytes);
        random.may_panic();

        let mut arena = Arena::options().budget(&self.arenas).build()?;
        let total = arena.scope(|scope| {
            let words = scope.try_alloc_slice_fill_with(random.below(10_000), |i| {
                if i == 700 {
                    random.may_panic();
                }
                i as u64
            })?;
            Ok::<_, MemoryError>(words.iter().sum::<u64>())
        })?;
        random.may_panic();

        let key = random.next() % 200;
        let list = self.lists.get_or_insert_with(&key, || {
            let held = self.budget.try_reserve(random.below(8 << 10))?;
            random.may_panic();
            Ok::<_, MemoryError>(vec![u8::try_from(key).expect("below 200"); held.size()])
        })?;
        assert!(list.iter().all(|&byte| u64::from(byte) == key), "{total}");
        Ok(())
    }
}

/// A xorshift generator (Marsaglia, 2003).
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn may_panic(&mut self) {
        if self.next().is_multiple_of(16) {
            panic_any(Planned);
        }
    }
}

fn check(node: &NodeSnapshot) -> usize {
    let (usage, name) = (node.usage, &node.name);
    assert!(usage.capacity.is_none_or(|limit| usage.used <= limit), "{name}: {usage:?}");
    assert!(usage.capacity.is_none_or(|limit| usage.peak <= limit), "{name}: {usage:?}");
    1 + node.children.iter().map(check).sum::<usize>()
}

fn all_zero(node: &NodeSnapshot) {
    assert_eq!(node.usage.used, node.children.iter().map(|child| child.guarantee).sum::<usize>());
    node.children.iter().for_each(all_zero);
}

#[test]
fn nothing_is_above_its_limit_and_nothing_is_left_whatever_panics() -> Result<(), MemoryError> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<Planned>() {
            hook(panic);
        }
    }));
    let process = Budget::root("process").limit(LIMIT).build()?;
    let names = (0..TENANTS).map(|tenant| format!("tenant-{tenant}"));
    let tenants: Vec<_> =
        names.map(|name| Tenant::new(&process, &name)).collect::<Result<_, _>>()?;

    let (start, done) = (Barrier::new(THREADS as usize + 1), AtomicBool::new(false));
    let [finished, refused, panicked, samples] = [(); 4].map(|()| AtomicU64::new(0));
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            start.wait();
            while !done.load(Ordering::Relaxed) {
                assert_eq!(check(&process.snapshot()), 1 + TENANTS * 4);
                samples.fetch_add(1, Ordering::Relaxed);
            }
        });
        let workers: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let (start, tenants) = (&start, &tenants);
                let counters = [&finished, &refused, &panicked];
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let mut random = Random(u64::from(seed) << 32 | (round + 1));
                        (0..8).for_each(|_| _ = random.next());
                        let tenant = &tenants[random.below(TENANTS)];
                        let outcome = catch_unwind(AssertUnwindSafe(|| tenant.run(random)));
                        let outcome = match outcome {
                            Ok(Ok(())) => 0,
                            Ok(Err(error)) => {
                                assert!(error.is_retryable(), "{error}");
                                1
                            }
                            Err(payload) => {
                                assert!(payload.is::<Planned>(), "a real panic");
                                2
                            }
                        };
                        counters[outcome].fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        sampler.join().expect("no sample was above a limit");
        assert!(results.iter().all(Result::is_ok), "a worker failed");
    });
    let counts = [finished, refused, panicked, samples].map(AtomicU64::into_inner);
    assert!(counts.iter().all(|&count| count > 0), "every outcome was met: {counts:?}");

    check(&process.snapshot());
    for tenant in &tenants {
        tenant.lists.clear();
        tenant.buffers.trim(0);
        tenant.lists.validate();
    }
    all_zero(&process.snapshot());
    drop(tenants);
    assert_eq!(process.usage().used, 0);
    assert!(process.snapshot().children.is_empty());
    Ok(())
}
