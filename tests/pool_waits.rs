//! Waiting for an object: nobody waits while one is idle, nothing is lost, and there are never too many.
#![cfg(feature = "std")]

#[path = "common/slow.rs"]
mod slow;

use nebula_memory::{
    Budget, MemoryError, Pool, Priority,
    core::{ManualClock, MemoryUsage, RefusedReason, Resettable},
    integration::traits::Cancellation,
    pool::{FnPool, PoolError},
};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use slow::{LONG, SHORT, Slow, poll};

/// Counts how many of it there are.
#[derive(Debug)]
struct Counted(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    live: AtomicUsize,
    most: AtomicUsize,
}

impl Counted {
    fn new(counts: &Arc<Counts>) -> Self {
        let live = counts.live.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(live, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Resettable for Counted {
    fn reset(&mut self) {}
}

impl MemoryUsage for Counted {
    fn used_bytes(&self) -> usize {
        100
    }

    fn peak_bytes(&self) -> usize {
        100
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

fn counted(max: usize) -> Result<(Arc<Counts>, FnPool<Counted>), MemoryError> {
    let counts = Arc::new(Counts::default());
    let made = Arc::clone(&counts);
    let pool = Pool::options("counted").max_objects(max).build_fn(move || Counted::new(&made))?;
    Ok((counts, pool))
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < LONG, "it does not happen");
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_returned_object_goes_to_the_first_waiter() -> Result<(), MemoryError> {
    let (_, pool) = counted(1)?;
    let order = Mutex::new(Vec::new());
    let held = pool.try_get()?;
    thread::scope(|scope| {
        for n in 0..4 {
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let object = pool.get().timeout(LONG).wait().unwrap();
                order.lock().unwrap().push(n);
                drop(object);
            });
            wait_for(|| pool.stats().waiting == n + 1);
        }
        assert!(pool.try_get().is_err(), "nobody is passed");
        drop(held);
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    let stats = pool.stats();
    assert_eq!((stats.taken, stats.waits, stats.made, stats.in_use), (5, 4, 1, 0));
    assert_eq!(stats.wait_times().map(|(_, count)| count).sum::<u64>(), 4);
    Ok(())
}

#[test]
fn a_higher_priority_is_served_first() -> Result<(), MemoryError> {
    let (_, pool) = counted(1)?;
    let held = pool.try_get()?;
    let mut low = pin!(pool.get().priority(Priority::Low));
    let mut high = pin!(pool.get().priority(Priority::High));
    assert!(poll(low.as_mut()).is_pending());
    assert!(poll(high.as_mut()).is_pending());
    drop(held);
    assert!(poll(low.as_mut()).is_pending());
    let Poll::Ready(Ok(first)) = poll(high.as_mut()) else { panic!("it was served first") };
    drop(first);
    assert!(poll(low.as_mut()).is_ready());
    Ok(())
}

#[test]
fn a_wait_ends_at_its_deadline_and_names_the_holders() -> Result<(), MemoryError> {
    let pool = Pool::options("sockets").max_objects(1).record_holders().build(String::new)?;
    let held = pool.try_get()?;
    let error = pool.get().timeout(SHORT).wait().unwrap_err();
    let PoolError::NoObject { error: why, holders } = &error else { panic!("{error}") };
    assert_eq!((why.reason, why.max), (RefusedReason::TimedOut, 1));
    assert!(why.waited >= SHORT, "{:?}", why.waited);
    assert_eq!(holders.len(), 1);
    assert!(holders[0].place.file().ends_with("pool_waits.rs"));
    let text = error.to_string();
    assert!(text.contains("no object became free within"), "{text}");
    assert!(text.contains("pool_waits.rs"), "{text}");
    assert!(error.is_retryable());
    let memory = MemoryError::from(error);
    assert_eq!((memory.code(), memory.http_status()), ("MEM:POOL:TIMED_OUT", 503));
    drop(held);
    assert_eq!((pool.stats().timeouts, pool.holders().len()), (1, 0));
    assert!(pool.get().wait().is_ok());
    Ok(())
}

/// A request that says nothing of time ends by the clock of its budget's tree.
#[test]
fn the_default_deadline_is_not_for_ever() -> Result<(), MemoryError> {
    let clock = ManualClock::new();
    let budget = Budget::root("process").clock(&clock).build()?;
    let pool = Pool::options("one").budget(&budget).max_objects(1).build(String::new)?;
    let held = pool.try_get()?;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.get().wait().map(drop));
        wait_for(|| pool.stats().waiting == 1);
        clock.advance(Duration::from_secs(29));
        thread::sleep(SHORT);
        assert_eq!(pool.stats().waiting, 1);
        clock.advance(Duration::from_secs(2));
        let error = waiter.join().unwrap().unwrap_err();
        assert!(matches!(error, PoolError::NoObject { .. }), "{error}");
    });
    drop(held);
    Ok(())
}

#[test]
fn a_cancelled_or_dropped_wait_loses_nothing() -> Result<(), MemoryError> {
    let (_, pool) = counted(1)?;
    let held = pool.try_get()?;
    let cancellation = Cancellation::new();
    let mut cancelled = pin!(pool.get().cancelled_by(&cancellation));
    assert!(poll(cancelled.as_mut()).is_pending());
    cancellation.cancel();
    let Poll::Ready(Err(error)) = poll(cancelled) else { panic!("it was cancelled") };
    let PoolError::NoObject { error, .. } = error else { panic!("{error}") };
    assert_eq!(error.reason, RefusedReason::Cancelled);

    // Dropped while it waits, and dropped after the permit was handed to it.
    for is_served in [false, true] {
        let mut dropped = Box::pin(pool.get());
        assert!(poll(dropped.as_mut()).is_pending());
        assert_eq!(pool.stats().waiting, 1);
        if is_served {
            drop(held);
            assert_eq!(pool.stats().waiting, 0);
            drop(dropped);
            break;
        }
        drop(dropped);
        assert_eq!(pool.stats().waiting, 0);
    }
    assert!(pool.try_get().is_ok());
    Ok(())
}

#[test]
fn closing_a_pool_ends_all_waits() -> Result<(), MemoryError> {
    let (counts, pool) = counted(2)?;
    let held = [pool.try_get()?, pool.try_get()?];
    thread::scope(|scope| {
        let waiters = [(); 3].map(|()| scope.spawn(|| pool.get().timeout(LONG).wait().map(drop)));
        wait_for(|| pool.stats().waiting == 3);
        pool.close();
        for waiter in waiters {
            let error = waiter.join().unwrap().unwrap_err();
            assert_eq!(error.to_string(), "pool `counted`: closed");
            assert!(!error.is_retryable());
        }
    });
    assert!(pool.get().wait().is_err() && pool.try_get().is_err() && pool.is_closed());
    drop(held);
    assert_eq!((counts.live.load(Ordering::SeqCst), pool.idle(), pool.usage().used), (0, 0, 0));
    Ok(())
}

#[test]
fn several_are_taken_together_or_not_at_all() -> Result<(), MemoryError> {
    let (counts, pool) = counted(3)?;
    let one = pool.try_get()?;
    let mut three = Box::pin(pool.get().many(3));
    assert!(poll(three.as_mut()).is_pending());
    assert_eq!(pool.stats().in_use, 1, "it holds none of them while it waits");
    drop(one);
    let Poll::Ready(Ok(objects)) = poll(three.as_mut()) else { panic!("three are free") };
    assert_eq!((objects.len(), counts.live.load(Ordering::SeqCst)), (3, 3));
    drop(objects);
    let error = pool.get().wait_many(4).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(pool.get().wait_many(0)?.len(), 0);
    assert_eq!(pool.get().wait_many(3)?.len(), 3);
    Ok(())
}

/// Where two take one after the other of two objects each, they would wait for each other.
#[test]
fn callers_that_take_several_do_not_wait_for_each_other() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 2_000 };
    let (counts, pool) = counted(4)?;
    thread::scope(|scope| {
        for count in [2, 3, 4, 3] {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let objects = pool.get().timeout(LONG).wait_many(count).unwrap();
                    assert_eq!(objects.len(), count);
                }
            });
        }
    });
    assert!(counts.most.load(Ordering::SeqCst) <= 4);
    assert_eq!(pool.stats().in_use, 0);
    Ok(())
}

/// More threads than objects, at each maximum from one on: there are never too many, and all are served.
#[test]
fn there_are_never_more_than_the_maximum() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 4 } else { 1_000 };
    for max in [1, 2, 7] {
        let (counts, pool) = counted(max)?;
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 0..12_usize {
                let (pool, done) = (&pool, &done);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        match (seed + round) % 6 {
                            0 => drop(pool.try_get()),
                            1 => drop(pool.trim(max / 2)),
                            2 => {
                                let object = pool.get().timeout(LONG).wait().unwrap();
                                drop(object.into_owned());
                            }
                            _ => drop(pool.get().timeout(LONG).wait().unwrap()),
                        }
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            while done.load(Ordering::SeqCst) < 12 {
                assert!(counts.live.load(Ordering::SeqCst) <= max);
                thread::yield_now();
            }
        });
        assert!(counts.most.load(Ordering::SeqCst) <= max);
        let stats = pool.stats();
        assert_eq!((stats.in_use, stats.waiting), (0, 0));
        assert_eq!(stats.made - stats.destroyed, counts.live.load(Ordering::SeqCst) as u64);
        assert_eq!(pool.get().wait_many(max)?.len(), max);
    }
    Ok(())
}

/// A thread that keeps idle objects to itself would leave the others waiting.
#[test]
fn no_request_waits_while_another_thread_has_idle_objects() -> Result<(), MemoryError> {
    let (counts, pool) = counted(3)?;
    thread::scope(|scope| {
        scope.spawn(|| drop(pool.get().wait_many(3).unwrap())).join().unwrap();
    });
    assert_eq!(pool.idle(), 3);
    let held = [pool.try_get()?, pool.try_get()?, pool.try_get()?];
    assert_eq!(counts.most.load(Ordering::SeqCst), 3);
    drop(held);
    Ok(())
}

#[test]
fn a_lower_maximum_takes_effect_as_objects_return() -> Result<(), MemoryError> {
    let (counts, pool) = counted(4)?;
    let mut held: Vec<_> = pool.get().wait_many(4)?;
    pool.set_max_objects(2)?;
    assert_eq!(pool.stats().max, Some(2));
    assert!(pool.try_get().is_err());
    held.truncate(2);
    assert_eq!(counts.live.load(Ordering::SeqCst), 2);
    assert!(pool.try_get().is_err());
    held.truncate(1);
    drop(pool.try_get()?);
    pool.set_max_objects(3)?;
    let more = pool.get().wait_many(2)?;
    assert_eq!(counts.live.load(Ordering::SeqCst), 3);
    drop((held, more));

    assert!(pool.set_max_objects(0).is_err());
    let unbounded = Pool::options("unbounded").build(String::new)?;
    assert!(unbounded.set_max_objects(1).is_err());
    Ok(())
}

#[test]
fn children_share_the_maximum_of_their_parent() -> Result<(), MemoryError> {
    let counts = Arc::new(Counts::default());
    let make = |counts: &Arc<Counts>| {
        let counts = Arc::clone(counts);
        move || Counted::new(&counts)
    };
    let parent = Pool::options("all").max_objects(2).build_fn(make(&counts))?;
    let [a, b] = ["a", "b"].map(|name| parent.child(name).build_fn(make(&counts)).unwrap());

    // Idle ones of a sibling give way: there are never three.
    drop((a.try_get()?, a.try_get()?));
    assert_eq!(a.idle(), 2);
    let held = (b.try_get()?, b.try_get()?);
    assert_eq!((a.idle(), counts.most.load(Ordering::SeqCst)), (0, 2));

    // A return to one child serves a waiter of another child.
    let mut waits = pin!(a.get());
    assert!(poll(waits.as_mut()).is_pending());
    drop(held.0);
    let Poll::Ready(Ok(object)) = poll(waits) else { panic!("there is room") };
    assert_eq!(counts.most.load(Ordering::SeqCst), 2);
    assert!(parent.try_get().is_err());

    parent.close();
    assert!(a.is_closed() && b.is_closed() && a.try_get().is_err());
    drop((object, held.1));
    assert_eq!(counts.live.load(Ordering::SeqCst), 0);
    Ok(())
}

/// A child has a maximum of its own, and its parent has none.
#[test]
fn closing_a_parent_ends_the_waits_of_its_children() -> Result<(), MemoryError> {
    let parent = Pool::options("all").build(String::new)?;
    let child = parent.child("some").max_objects(1).build(String::new)?;
    let held = child.try_get()?;
    let mut waits = pin!(child.get());
    assert!(poll(waits.as_mut()).is_pending());
    parent.close();
    assert!(matches!(poll(waits), Poll::Ready(Err(_))));
    drop(held);
    Ok(())
}

#[test]
fn an_object_that_returns_goes_to_one_that_waits_for_a_new_one() -> Result<(), MemoryError> {
    let slow = Slow::new();
    let pool = Pool::options("slow").max_objects(2).build(slow.clone())?;
    slow.is_ready.store(true, Ordering::SeqCst);
    let first = pool.get().wait().unwrap();
    slow.is_ready.store(false, Ordering::SeqCst);

    let mut second = pin!(pool.get());
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(slow.begun.load(Ordering::SeqCst), 2);
    drop(first);
    let Poll::Ready(Ok(object)) = poll(second) else { panic!("one is idle") };
    assert_eq!(slow.dropped.load(Ordering::SeqCst), 2, "the half-made one is gone");
    drop(object);
    let stats = pool.stats();
    assert_eq!((stats.made, stats.idle, stats.in_use), (1, 1, 0));
    Ok(())
}

#[test]
fn a_factory_that_takes_too_long_is_given_up() -> Result<(), MemoryError> {
    let slow = Slow::new();
    let pool = Pool::options("slow").max_objects(1).create_timeout(SHORT).build(slow.clone())?;
    let error = pool.get().wait().unwrap_err();
    assert!(matches!(error, PoolError::CreateTimedOut { limit, .. } if limit == SHORT), "{error}");
    assert_eq!(slow.dropped.load(Ordering::SeqCst), 1);
    slow.is_ready.store(true, Ordering::SeqCst);
    assert_eq!(&*pool.get().wait().unwrap(), "made");
    Ok(())
}

/// A request gives its permit and its place back wherever its future is dropped.
#[test]
fn a_request_that_is_dropped_while_an_object_is_made_costs_nothing() -> Result<(), MemoryError> {
    let slow = Slow::new();
    let budget = Budget::root("process").limit(1000).build()?;
    let pool = Pool::options("slow").budget(&budget).max_objects(1).build(slow.clone())?;
    let mut request = Box::pin(pool.get());
    assert!(poll(request.as_mut()).is_pending());
    assert!(budget.usage().used > 0);
    drop(request);
    assert_eq!(budget.usage().used, 0);
    slow.is_ready.store(true, Ordering::SeqCst);
    assert!(pool.get().wait().is_ok());
    Ok(())
}

/// Where the ledger has no room for a new object, a request waits for the bytes, or for an object.
#[test]
fn a_request_waits_for_bytes_too() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1000).build()?;
    let pool = Pool::options("buffers").budget(&budget).build_fn(|| vec![0_u8; 300])?;
    let (held, other) = (pool.try_get()?, budget.try_reserve(500)?);
    let mut waits = pin!(pool.get());
    assert!(poll(waits.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(Ok(held)) = poll(waits) else { panic!("one has returned") };
    assert_eq!(pool.stats().made, 1);

    let mut waits = pin!(pool.get());
    assert!(poll(waits.as_mut()).is_pending());
    drop(other);
    assert!(poll(waits).is_ready(), "there is room for a second one");
    assert_eq!(pool.stats().made, 2);
    drop(held);
    Ok(())
}

/// There is always a request of a higher priority, which came later.
#[test]
fn a_request_of_low_priority_is_served_in_the_end() -> Result<(), MemoryError> {
    let clock = Arc::new(ManualClock::new());
    let budget = Budget::root("process").clock(&clock).build()?;
    let pool = Pool::options("one").budget(&budget).max_objects(1).build(String::new)?;
    let get = |priority| Box::pin(pool.get().priority(priority).no_timeout());
    let (mut held, mut low) = (pool.try_get()?, get(Priority::Low));
    assert!(poll(low.as_mut()).is_pending());
    let mut high = get(Priority::High);
    assert!(poll(high.as_mut()).is_pending());
    let begun = Instant::now();
    for served in 0.. {
        let mut next = get(Priority::High);
        assert!(poll(next.as_mut()).is_pending());
        drop(held);
        if let Poll::Ready(low) = poll(low.as_mut()) {
            assert!(low.is_ok());
            assert!(served > 10, "the higher priority goes first for two seconds");
            return Ok(());
        }
        let Poll::Ready(object) = poll(high.as_mut()) else { panic!("one of the two") };
        (held, high) = (object.unwrap(), next);
        clock.advance(Duration::from_millis(100));
        assert!(begun.elapsed() < LONG, "it starves");
        thread::yield_now();
    }
    unreachable!()
}
