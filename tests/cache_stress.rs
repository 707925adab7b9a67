//! The cache with many threads. No test sleeps, and none asserts a time.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget,
    cache::{Cache, Inserted},
};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

type Numbers = Cache<u64, u64>;

const ENTRY: usize = size_of::<(u64, u64)>() + Numbers::ENTRY_OVERHEAD;
const THREADS: u32 = 8;

/// The generator xorshift64 (Marsaglia 2003): random enough, and the same on every run.
struct Random(u64);

impl Random {
    fn new(seed: u32) -> Self {
        Self(u64::from(seed) + 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// "16 of 8": eight threads use a cache for eight entries, while another thread reads its usage all the time.
#[test]
fn capacity_is_not_exceeded_under_concurrency() {
    for shards in [1, 8] {
        let cache: Numbers =
            Cache::options("eight").max_bytes(8 * ENTRY).shards(shards).build().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(cache.usage().used);
                }
                most
            });
            let workers: Vec<_> = (0..THREADS)
                .map(|seed| {
                    let cache = &cache;
                    scope.spawn(move || {
                        let mut random = Random::new(seed);
                        for _ in 0..3000 {
                            let key = random.next() % 64;
                            match random.next() % 4 {
                                0 => assert!(cache.get(&key).is_none_or(|value| value == key * 2)),
                                1 => drop(cache.remove(&key)),
                                2 => drop(cache.insert(key, key * 2)),
                                _ => {
                                    let value =
                                        cache.get_or_insert_with::<_, ()>(&key, || Ok(key * 2));
                                    assert_eq!(value, Ok(key * 2));
                                }
                            }
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() <= 8 * ENTRY);
        });
        assert!(cache.usage().peak <= 8 * ENTRY, "not even between two looks");
        assert!(cache.len() <= 8);
        cache.validate();
        let used = cache.usage().used;
        assert_eq!(used, cache.len() * ENTRY);
    }
}

#[test]
fn caches_that_share_a_budget_and_a_greedy_neighbour_stay_exact() {
    let budget = Budget::root("process").limit(64 * ENTRY).build().unwrap();
    let make =
        |name| -> Numbers { Cache::options(name).budget(&budget).shards(4).build().unwrap() };
    let caches = [make("first"), make("second")];
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (cache, budget) = (&caches[usize::from(seed % 2 == 1)], &budget);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..1000 {
                    let key = random.next() % 256;
                    match random.next() % 16 {
                        0 => drop(budget.try_reserve(random.below(64 * ENTRY))),
                        1 => cache.clear(),
                        2..6 => drop(cache.get(&key)),
                        _ => drop(cache.get_or_insert_with::<_, ()>(&key, || Ok(key))),
                    }
                    assert!(budget.usage().used <= 64 * ENTRY);
                }
            });
        }
    });
    for cache in &caches {
        cache.validate();
        assert_eq!(cache.usage().used, cache.len() * ENTRY);
        let stats = cache.stats();
        assert!(stats.insertions + stats.rejections <= stats.misses);
    }
    drop(caches);
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn one_loader_runs_for_many_callers() {
    for round in 0..50 {
        let cache: Numbers = Cache::options("single").max_bytes(1 << 16).build().unwrap();
        let (barrier, loads) = (Barrier::new(THREADS as usize), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let value = cache.get_or_insert_with::<_, ()>(&round, || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                        Ok(42)
                    });
                    assert_eq!(value, Ok(42));
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
        assert_eq!(cache.stats().lookups(), u64::from(THREADS));
        assert_eq!(cache.stats().insertions, 1);
        cache.validate();
    }
}

/// An error is returned to the caller whose loader made it.
#[test]
fn every_error_goes_to_its_own_caller() {
    let cache: Numbers = Cache::options("errors").max_bytes(1 << 16).build().unwrap();
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for caller in 0..THREADS {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                barrier.wait();
                assert_eq!(cache.get_or_insert_with(&1, || Err(caller)), Err(caller));
            });
        }
    });
    assert!(cache.is_empty());
    cache.validate();
}

/// Two threads load one key each and request the other's key: neither waits for ever.
#[test]
fn loaders_that_wait_for_one_another_come_to_an_end() {
    for _ in 0..20 {
        let cache: Numbers = Cache::options("circle").max_bytes(1 << 16).build().unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            for (mine, other) in [(1, 2), (2, 1)] {
                let (cache, barrier) = (&cache, &barrier);
                scope.spawn(move || {
                    let value = cache.get_or_insert_with::<_, ()>(&mine, || {
                        barrier.wait();
                        cache.get_or_insert_with(&other, || Ok(5))
                    });
                    assert_eq!(value, Ok(5));
                });
            }
        });
        cache.validate();
    }
}

/// Any two entries exceed the bound. The last insertion into an otherwise idle cache succeeds.
#[test]
fn entries_as_heavy_as_the_cache_do_not_lock_one_another_out() {
    let cache: Numbers = Cache::options("giants")
        .max_bytes(100_000)
        .weigher(|_, _| 99_000)
        .shards(8)
        .build()
        .unwrap();
    let admitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (cache, admitted) = (&cache, &admitted);
            scope.spawn(move || {
                for round in 0..200 {
                    match cache.insert(u64::from(seed) * 1000 + round, round) {
                        Inserted::Rejected(_) => {}
                        _ => drop(admitted.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    assert!(admitted.into_inner() > 0);
    assert!(cache.usage().peak <= 100_000);
    assert!(cache.insert(1, 1).is_admitted());
    assert_eq!(cache.len(), 1);
    cache.validate();
}

/// The last handle is dropped while the ledger reclaims. The cache is not called after it is gone, and every
/// byte is released.
#[test]
fn a_cache_may_be_dropped_while_it_is_asked_for_memory() {
    let budget = Budget::root("process").limit(64 * ENTRY).build().unwrap();
    for _ in 0..50 {
        let cache: Numbers = Cache::options("short").budget(&budget).build().unwrap();
        for key in 0..64 {
            cache.insert(key, key);
        }
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                drop(cache);
            });
            barrier.wait();
            drop(budget.try_reserve(32 * ENTRY));
        });
        assert_eq!(budget.usage().used, 0);
    }
}
