//! Six threads that push, pop, give up and close, on random schedules and on schedules with few preemptions (PCT). A push
//! or a pop that nobody wakes is reported as a deadlock.

use super::WeightedQueue;
use crate::{
    core::error::RefusedReason,
    utils::schedules::{explore, on_threads, schedules},
};
use core::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
};
use shuttle::{
    future::block_on,
    rand::{Rng, thread_rng},
    thread,
};
use std::sync::Arc;

fn check(run: impl Fn() + Clone + Send + Sync + 'static) {
    explore(schedules() / 3, run);
}

fn queue(capacity: usize, max_bytes: usize) -> Arc<WeightedQueue<usize>> {
    let options = WeightedQueue::options("queue").capacity(capacity).max_bytes(max_bytes);
    Arc::new(options.weigher(|weight| *weight).build().unwrap())
}

/// Polls a future once or twice, and drops it. Returns whether it was ready.
fn give_up<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..2 {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let core::task::Poll::Ready(answer) = polled {
            return Some(answer);
        }
        thread::yield_now();
    }
    None
}

#[test]
fn each_value_arrives_while_others_give_up() {
    check(|| {
        let queue = queue(2, 10);
        let threads = Arc::clone(&queue);
        let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let of_threads = Arc::clone(&counts);
        on_threads(move |n| {
            let queue = &threads;
            let [pushed, popped, done] = &*of_threads;
            let add = |count: &AtomicUsize, is_done| {
                count.fetch_add(usize::from(is_done), Ordering::SeqCst)
            };
            match n {
                0 | 1 => {
                    for _ in 0..2 {
                        block_on(queue.push(thread_rng().gen_range(0..=10))).unwrap();
                        add(pushed, true);
                    }
                    if add(done, true) == 1 {
                        queue.close();
                    }
                }
                2 => _ = add(pushed, matches!(give_up(queue.push(7)), Some(Ok(())))),
                3 => _ = add(popped, give_up(queue.pop()).flatten().is_some()),
                _ => {
                    while block_on(queue.pop()).is_some() {
                        add(popped, true);
                    }
                }
            }
        });
        // One whose push ended at the close.
        let left = core::iter::from_fn(|| queue.try_pop()).count();
        let [pushed, popped, _] = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
        assert_eq!(popped + left, pushed);
        assert_eq!((queue.usage().used, queue.waiting()), (0, 0));
    });
}

#[test]
fn a_close_ends_all_waits() {
    check(|| {
        let queue = queue(1, 10);
        let threads = Arc::clone(&queue);
        on_threads(move |n| {
            let queue = &threads;
            match n {
                0 => queue.close(),
                1 | 2 => while block_on(queue.pop()).is_some() {},
                _ => {
                    for _ in 0..2 {
                        match block_on(queue.push(6)) {
                            Ok(()) => {}
                            Err(error) => assert_eq!(error.reason, RefusedReason::Closed),
                        }
                    }
                }
            }
        });
        while queue.try_pop().is_some() {}
        assert_eq!((queue.usage().used, queue.waiting()), (0, 0));
    });
}
