//! How flights end. The tests look into the list of flights, so they know that all waiters wait.

use super::Cache;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

type Numbers = Cache<u64, usize>;

const KEY: u64 = 1;
const WAITERS: usize = 4;

fn cache() -> Numbers {
    Cache::options("flights").max_bytes(10_000).weigher(|_, &weight| weight).build().unwrap()
}

/// Returns once `WAITERS` callers wait for the loader of [`KEY`].
fn until_all_wait(cache: &Numbers) {
    let hash = cache.inner.hash(&KEY);
    while cache.inner.cell(hash).read().flights.waiters(hash) < WAITERS {
        thread::yield_now();
    }
}

/// Runs a first caller, and then `WAITERS` other callers, which load `other`. The first caller's loader waits until
/// all others wait, and then returns the result of `end`. Returns the values of the others and the number of their
/// own loads.
fn first_of_many(
    cache: &Numbers,
    end: impl FnOnce() -> Result<usize, &'static str> + Send,
    other: usize,
) -> (Vec<usize>, usize) {
    let loads = AtomicUsize::new(0);
    let values = thread::scope(|scope| {
        let loads = &loads;
        let load = || {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>(other)
        };
        let (leads, is_led) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                cache.get_or_insert_with(&KEY, || {
                    leads.send(()).unwrap();
                    until_all_wait(cache);
                    end()
                })
            }));
        });
        is_led.recv().unwrap();
        let others: Vec<_> = (0..WAITERS)
            .map(|_| scope.spawn(move || cache.get_or_insert_with(&KEY, load).unwrap()))
            .collect();
        others.into_iter().map(|other| other.join().unwrap()).collect()
    });
    cache.validate();
    (values, loads.into_inner())
}

#[test]
fn waiters_get_the_value_that_the_leader_loaded() {
    let cache = cache();
    assert_eq!(first_of_many(&cache, || Ok(7), 8), (vec![7; WAITERS], 0));
    assert_eq!(cache.stats().insertions, 1);
    assert_eq!(cache.stats().misses, 1 + WAITERS as u64);
}

#[test]
fn one_waiter_leads_when_the_leader_fails() {
    let cache = cache();
    assert_eq!(first_of_many(&cache, || Err("no"), 8), (vec![8; WAITERS], 1));
}

#[test]
fn one_waiter_leads_when_the_leader_panics() {
    let cache = cache();
    assert_eq!(first_of_many(&cache, || panic!("loader"), 8), (vec![8; WAITERS], 1));
}

/// Otherwise they would load it one after the other, each in vain.
#[test]
fn waiters_share_a_value_that_is_too_heavy() {
    let cache = cache();
    assert_eq!(first_of_many(&cache, || Ok(50_000), 8), (vec![50_000; WAITERS], 0));
    assert_eq!((cache.len(), cache.usage().used, cache.stats().rejections), (0, 0, 1));
}

/// The waiters of an overtaken loader do not get its value. They look up the key again at once.
#[test]
fn waiters_do_not_get_an_overtaken_value() {
    let cache = cache();
    let overtaken = || {
        cache.insert(KEY, 9);
        Ok(7)
    };
    assert_eq!(first_of_many(&cache, overtaken, 8), (vec![9; WAITERS], 0));
    cache.clear();
    let invalidated = || {
        cache.remove(&KEY);
        Ok(7)
    };
    assert_eq!(first_of_many(&cache, invalidated, 8), (vec![8; WAITERS], 1));
    assert_eq!(cache.get(&KEY), Some(8));
}
