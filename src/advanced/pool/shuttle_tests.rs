//! Six threads that take, wait, cancel, take several, resize and close, on random schedules and on schedules with few
//! preemptions (PCT). A request that nobody wakes is reported as a deadlock.
//!
//! The model checker's threads share one thread of the system. So the pool's threads have no number and share a
//! stack, and the ledger's own threads do not run.

use super::{FnPool, Get, Pool, PoolError, Pooled};
use crate::{
    advanced::budget::Budget,
    core::{MemoryUsage, Priority, Resettable, error::RefusedReason},
    integration::traits::Cancellation,
    utils::schedules::{explore, on_threads, schedules},
};
use core::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use shuttle::{
    future::block_on,
    rand::{Rng, thread_rng},
    thread,
};
use std::{
    boxed::Box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Fewer schedules than for the ledger, whose queue has tests of its own.
fn check(run: impl Fn() + Clone + Send + Sync + 'static) {
    explore(schedules() / 3, run);
}

/// Counts how many of it there are, and fails where there are more than allowed.
#[derive(Debug)]
struct Counted(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    live: AtomicUsize,
    most: AtomicUsize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        // The end of an object takes its time.
        thread::yield_now();
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Resettable for Counted {
    fn reset(&mut self) {}
}

impl MemoryUsage for Counted {
    fn used_bytes(&self) -> usize {
        10
    }

    fn peak_bytes(&self) -> usize {
        10
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

fn maker(limits: &Arc<Limits>) -> impl Fn() -> Counted + Send + Sync + 'static {
    let limits = Arc::clone(limits);
    move || {
        let live = limits.live.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(live <= limits.most.load(Ordering::SeqCst), "too many: {live}");
        thread::yield_now();
        Counted(Arc::clone(&limits))
    }
}

fn limits(most: usize) -> Arc<Limits> {
    Arc::new(Limits { live: AtomicUsize::new(0), most: AtomicUsize::new(most) })
}

fn pool(most: usize) -> FnPool<Counted> {
    Pool::options("counted").max_objects(most).build_fn(maker(&limits(most))).unwrap()
}

type Request<'p> = Get<'p, Box<dyn Fn() -> Counted + Send + Sync>>;

fn request(pool: &FnPool<Counted>) -> Request<'_> {
    let priority = Priority::ALL[thread_rng().gen_range(0..Priority::ALL.len())];
    pool.get().no_timeout().priority(priority)
}

fn poll_once(request: &mut Request<'_>) -> bool {
    Pin::new(request).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn is_whole(pool: &FnPool<Counted>, most: usize) {
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0));
    let all = block_on(pool.get().many(most)).unwrap();
    assert_eq!(all.len(), most);
}

#[test]
fn every_request_is_served() {
    check(|| {
        let pool = pool(2);
        let threads = pool.clone();
        on_threads(move |n| {
            let pool = &threads;
            for _ in 0..2 {
                match (n + thread_rng().gen_range(0..2)) % 6 {
                    0 => drop(block_on(pool.get().no_timeout().many(2)).unwrap()),
                    1 => drop(pool.try_get()),
                    2 => drop(pool.trim(0)),
                    3 => drop(pool.retain(|_| thread_rng().gen_range(0..2) > 0)),
                    _ => drop(block_on(request(pool)).unwrap()),
                }
            }
        });
        is_whole(&pool, 2);
    });
}

#[test]
fn requests_that_go_away_lose_nothing() {
    check(|| {
        let pool = pool(1);
        let cancellation = Cancellation::new();
        let threads = (pool.clone(), cancellation.clone());
        on_threads(move |n| {
            let (pool, cancellation) = &threads;
            match n {
                0 => cancellation.cancel(),
                1 | 2 => {
                    let mut dropped = request(pool);
                    if !poll_once(&mut dropped) {
                        thread::yield_now();
                        poll_once(&mut dropped);
                    }
                }
                3 => match block_on(request(pool).cancelled_by(cancellation)) {
                    Ok(object) => drop(object),
                    Err(PoolError::NoObject { error, .. }) => {
                        assert_eq!(error.reason, RefusedReason::Cancelled);
                    }
                    Err(error) => panic!("{error}"),
                },
                4 => {
                    // A batch that is given up.
                    let mut batch = pin!(pool.get().many(1));
                    let _: Poll<_> = batch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    thread::yield_now();
                }
                _ => drop(block_on(request(pool)).unwrap()),
            }
        });
        is_whole(&pool, 1);
    });
}

#[test]
fn a_maximum_that_changes_is_kept_and_leaves_nobody_waiting() {
    check(|| {
        let limits = limits(3);
        let pool = Pool::options("resized").max_objects(3).build_fn(maker(&limits)).unwrap();
        let threads = pool.clone();
        on_threads(move |n| {
            let pool = &threads;
            match n {
                0 => {
                    pool.set_max_objects(1).unwrap();
                    thread::yield_now();
                    pool.set_max_objects(2).unwrap();
                }
                1 => drop(pool.retain(|_| false)),
                _ => drop(block_on(request(pool)).unwrap()),
            }
        });
        assert!(pool.idle() <= 2, "{}", pool.idle());
        is_whole(&pool, 2);
    });
}

#[test]
fn a_family_shares_its_maximum() {
    check(|| {
        let limits = limits(2);
        let parent = Pool::options("all").max_objects(2).build_fn(maker(&limits)).unwrap();
        let children = ["a", "b"].map(|name| parent.child(name).build_fn(maker(&limits)).unwrap());
        let threads = (parent.clone(), children.clone());
        on_threads(move |n| {
            let (parent, children) = &threads;
            for _ in 0..2 {
                match n {
                    0 => drop(parent.try_get()),
                    1 => drop(block_on(children[0].get().no_timeout().many(2)).unwrap()),
                    n => drop(block_on(request(&children[n % 2])).unwrap()),
                }
            }
        });
        is_whole(&children[0], 2);
        is_whole(&children[1], 2);
        is_whole(&parent, 2);
    });
}

/// The budget has the bytes of one object, and the pool no maximum: requests wait for bytes, and take returned objects.
#[test]
fn no_request_waits_for_bytes_beside_an_idle_object() {
    check(|| {
        let one = pool(1);
        drop(one.try_get().unwrap());
        let budget = Budget::root("process").limit(one.usage().used).build().unwrap();
        let options = Pool::options("counted").budget(&budget);
        let pool = options.build_fn(maker(&limits(1))).unwrap();
        let held = Arc::new(Mutex::new(Some(Pooled::into_owned(pool.try_get().unwrap()))));
        let threads = pool.clone();
        on_threads(move |n| {
            let pool = &threads;
            match n {
                0 => drop(held.lock().unwrap().take()),
                1 | 2 => assert_eq!(pool.trim(1), 0),
                _ => drop(block_on(request(pool)).unwrap()),
            }
        });
        assert_eq!((pool.stats().in_use, pool.stats().waiting, pool.idle()), (0, 0, 1));
    });
}

#[test]
fn a_pool_that_is_closed_keeps_nothing_and_nobody() {
    check(|| {
        let pool = pool(2);
        let threads = pool.clone();
        on_threads(move |n| {
            let pool = &threads;
            match n {
                0 => pool.close(),
                1 => drop(pool.try_get()),
                2 => drop(block_on(pool.get().no_timeout().many(2))),
                _ => match block_on(request(pool)) {
                    Ok(object) => drop(object),
                    Err(PoolError::NoObject { error, .. }) => {
                        assert_eq!(error.reason, RefusedReason::Closed);
                    }
                    Err(error) => panic!("{error}"),
                },
            }
        });
        assert_eq!((pool.stats().in_use, pool.idle(), pool.usage().used), (0, 0, 0));
    });
}
