//! The queue that is bounded by the weight of its values.
#![cfg(feature = "std")]

#[path = "common/slow.rs"]
mod slow;

use nebula_memory::{
    Budget, Context, MemoryError,
    budget::RefusedReason,
    core::ManualClock,
    lockfree::{PushError, WeightedQueue},
};
use slow::{LONG, SHORT, poll};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Poll, Wake, Waker},
    thread,
    time::Duration,
};

const fn assert_send_and_sync<T: Send + Sync>() {}
/// Values that are `Send` and not `Sync` are enough.
const _: () = assert_send_and_sync::<WeightedQueue<std::cell::Cell<u8>>>();

/// A value that weighs as much as it says.
type Heavy = (u64, usize);

fn queue(capacity: usize, max_bytes: usize) -> WeightedQueue<Heavy> {
    let options = WeightedQueue::options("jobs").capacity(capacity).max_bytes(max_bytes);
    options.weigher(|(_, weight)| *weight).build().unwrap()
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn reason<T>(pushed: Result<(), PushError<T>>) -> RefusedReason {
    pushed.unwrap_err().reason
}

#[test]
fn a_value_that_does_not_fit_comes_back() {
    let queue = queue(2, 100);
    queue.try_push((1, 60)).unwrap();
    let error = queue.try_push((2, 60)).unwrap_err();
    assert_eq!(
        (error.value, error.reason, error.is_retryable()),
        ((2, 60), RefusedReason::OverLimit, true)
    );
    assert_eq!(error.refused.unwrap().available, 40);
    let error = queue.try_push((3, 101)).unwrap_err();
    assert_eq!(
        (error.value, error.reason, error.is_retryable()),
        ((3, 101), RefusedReason::TooLarge, false)
    );
    queue.try_push((4, 0)).unwrap();
    let error = queue.try_push((5, 0)).unwrap_err();
    assert_eq!((error.value, error.reason), ((5, 0), RefusedReason::OverLimit));
    assert!(error.refused.is_none(), "no slot: {error}");
    assert_eq!((queue.len(), queue.usage().used), (2, 60));
    assert_eq!(
        (queue.try_pop(), queue.try_pop(), queue.try_pop()),
        (Some((1, 60)), Some((4, 0)), None)
    );
    assert_eq!(queue.usage().used, 0);
}

#[test]
fn both_bounds_hold_and_each_value_arrives_once() {
    const VALUES: u64 = if cfg!(miri) { 20 } else { 3000 };
    for (capacity, max_bytes) in [(1, 100), (64, 30), (3, 200)] {
        let queue = queue(capacity, max_bytes);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let queue = &queue;
            let producers = [0, 1, 2].map(|producer| {
                scope.spawn(move || {
                    for value in 0..VALUES {
                        let weight = usize::try_from((value * 7 + producer) % 31).unwrap();
                        queue.push_blocking((producer * VALUES + value, weight)).unwrap();
                    }
                })
            });
            let consumers = [(), (), ()].map(|()| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while let Some((value, _)) = queue.pop_blocking() {
                        seen.push(value);
                    }
                    seen
                })
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(queue.usage().used <= max_bytes && queue.len() <= capacity);
                    thread::yield_now();
                }
            });
            for producer in producers {
                producer.join().unwrap();
            }
            queue.close();
            let mut all: Vec<_> =
                consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect();
            is_over.store(true, Ordering::Relaxed);
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..3 * VALUES), "{} values", all.len());
        });
        assert_eq!((queue.len(), queue.usage().used, queue.waiting()), (0, 0, 0));
    }
}

#[test]
fn tasks_and_threads_wait_in_one_line() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let queue = Arc::new(queue(2, 10));
    let total: u64 = 2000;
    let producers: Vec<_> = (0..4)
        .map(|_| {
            let queue = Arc::clone(&queue);
            runtime.spawn(async move {
                for value in 0..total / 4 {
                    queue.push((value, 4)).await.unwrap();
                }
            })
        })
        .collect();
    let thread = thread::spawn({
        let queue = Arc::clone(&queue);
        move || std::iter::from_fn(|| queue.pop_blocking()).count()
    });
    let task = runtime.spawn({
        let queue = Arc::clone(&queue);
        async move {
            let mut count = 0;
            while queue.pop().await.is_some() {
                count += 1;
            }
            count
        }
    });
    runtime.block_on(async {
        for producer in producers {
            producer.await.unwrap();
        }
    });
    queue.close();
    let count = runtime.block_on(task).unwrap() + thread.join().unwrap();
    assert_eq!(count, usize::try_from(total).unwrap());
}

/// Wherever its future is dropped, a push keeps neither a slot nor bytes.
#[test]
fn a_push_that_is_given_up_leaves_its_room() {
    let queue = queue(2, 100);
    queue.try_push((1, 60)).unwrap();
    let mut for_bytes = Box::pin(queue.push((2, 60)));
    assert!(poll(for_bytes.as_mut()).is_pending());
    let mut for_slot = Box::pin(queue.push((3, 1)));
    assert!(poll(for_slot.as_mut()).is_pending());
    assert_eq!(queue.waiting(), 2);
    drop(for_bytes);
    assert!(poll(for_slot.as_mut()).is_ready(), "the slot is handed over");
    // Granted, and never polled again.
    let mut granted = Box::pin(queue.push((4, 60)));
    assert!(poll(granted.as_mut()).is_pending());
    assert_eq!(queue.try_pop(), Some((1, 60)));
    drop(granted);
    assert_eq!((queue.len(), queue.usage().used, queue.waiting()), (1, 1, 0));
    queue.try_push((5, 99)).unwrap();
}

#[test]
fn a_pop_that_is_given_up_passes_its_wake_up_on() {
    let queue = queue(4, 100);
    let woken = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    let mut pops = woken.each_ref().map(|woken| {
        let waker = Waker::from(Arc::clone(woken));
        let mut pop = Box::pin(queue.pop());
        assert!(pop.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
        Some(pop)
    });
    let count = |at: usize| woken[at].0.load(Ordering::SeqCst);
    queue.try_push((1, 1)).unwrap();
    assert_eq!((count(0), count(1)), (1, 0), "the first is woken");
    pops[0] = None;
    assert_eq!((count(0), count(1)), (1, 1));
    let second = pops[1].as_mut().unwrap();
    assert_eq!(poll(second.as_mut()), Poll::Ready(Some((1, 1))));
    drop(pops);
    queue.try_push((2, 1)).unwrap();
    assert_eq!((count(0), count(1)), (1, 1), "nobody waits");
}

#[test]
fn a_wait_ends_at_the_default_timeout() -> Result<(), MemoryError> {
    let clock = Arc::new(ManualClock::new());
    let budget = Budget::root("process").limit(1000).clock(&clock).build()?;
    let queue: WeightedQueue<Heavy> = WeightedQueue::options("jobs")
        .budget(&budget)
        .capacity(1)
        .weigher(|(_, weight)| *weight)
        .build()?;
    let all = 1000 - budget.usage().used;
    let held = budget.try_reserve(10)?;
    let mut bytes = Box::pin(queue.push((1, all)));
    assert!(poll(bytes.as_mut()).is_pending());
    clock.advance(Duration::from_secs(29));
    let mut slot = Box::pin(queue.push((2, 0)));
    assert!(poll(slot.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    let Poll::Ready(ended) = poll(bytes.as_mut()) else { panic!("30 s are over") };
    assert_eq!(reason(ended), RefusedReason::TimedOut);
    drop(held);
    assert!(poll(slot.as_mut()).is_ready(), "it has the slot of the other");
    Ok(())
}

#[test]
fn a_cancelled_context_ends_its_pushes() -> Result<(), MemoryError> {
    let queue = queue(1, 100);
    queue.try_push((1, 1)).unwrap();
    let context = Context::root("request").build();
    thread::scope(|scope| {
        let pushed = scope.spawn(|| context.run(|| queue.push_blocking((2, 1))));
        while queue.waiting() == 0 {
            thread::yield_now();
        }
        context.cancel();
        let error = pushed.join().unwrap().unwrap_err();
        assert_eq!((error.value, error.reason), ((2, 1), RefusedReason::Cancelled));
    });
    assert_eq!(queue.len(), 1);
    Ok(())
}

#[test]
fn a_pop_ends_at_its_timeout_and_at_the_end() {
    let queue = queue(1, 100);
    assert_eq!(queue.pop_timeout(SHORT), None);
    assert_eq!(queue.pop_timeout(Duration::ZERO), None);
    queue.try_push((1, 1)).unwrap();
    assert_eq!(queue.pop_timeout(Duration::ZERO), Some((1, 1)));
    thread::scope(|scope| {
        let popped =
            [scope.spawn(|| queue.pop_timeout(LONG)), scope.spawn(|| queue.pop_blocking())];
        queue.close();
        assert_eq!(popped.map(|popped| popped.join().unwrap()), [None, None]);
    });
}

#[test]
fn a_closed_queue_gives_out_its_values() {
    let queue = queue(2, 100);
    queue.try_push((1, 60)).unwrap();
    let mut for_bytes = pin!(queue.push((2, 60)));
    assert!(poll(for_bytes.as_mut()).is_pending());
    let mut for_slot = pin!(queue.push((3, 1)));
    assert!(poll(for_slot.as_mut()).is_pending());
    queue.close();
    assert!(queue.is_closed());
    for push in [for_bytes, for_slot] {
        let Poll::Ready(ended) = poll(push) else { panic!("it ends") };
        assert_eq!(reason(ended), RefusedReason::Closed);
    }
    let error = queue.try_push((4, 1)).unwrap_err();
    assert_eq!((error.value, error.reason), ((4, 1), RefusedReason::Closed));
    assert_eq!((queue.pop_blocking(), queue.pop_blocking()), (Some((1, 60)), None));
    assert_eq!(queue.usage().used, 0);
}

#[test]
fn a_weigher_that_panics_or_lies_loses_nothing() {
    let weigh = |value: &i32| {
        assert!(*value >= 0, "below zero");
        if *value == 7 { usize::MAX } else { 1 }
    };
    let queue =
        WeightedQueue::options("jobs").capacity(2).max_bytes(10).weigher(weigh).build().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| queue.try_push(-1))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| queue.push_blocking(-1))).is_err());
    assert_eq!(reason(queue.try_push(7)), RefusedReason::TooLarge);
    for value in [1, 2] {
        queue.push_blocking(value).unwrap();
    }
    assert_eq!((queue.len(), queue.usage().used), (2, 2));
}

/// Values that are dropped use the queue, and one of them panics.
#[test]
fn remaining_values_are_dropped_with_the_queue() -> Result<(), MemoryError> {
    struct Dropped(Arc<AtomicUsize>, bool);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert!(!self.1, "the end");
        }
    }
    let budget = Budget::root("process").limit(1000).build()?;
    let count = Arc::new(AtomicUsize::new(0));
    let options = WeightedQueue::options("jobs").budget(&budget).capacity(4).weigher(|_| 100);
    let queue = options.build()?;
    let slots = budget.usage().used;
    assert!(slots > 0, "the slots are charged");
    for panics in [false, true, false] {
        queue.try_push(Dropped(Arc::clone(&count), panics)).unwrap();
    }
    assert_eq!(budget.usage().used, slots + 300);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(queue))).is_err());
    assert_eq!((count.load(Ordering::SeqCst), budget.usage().used), (3, 0));
    Ok(())
}

/// The tasks that have pushed wait, and a thread that the ledger does not know pops late.
#[test]
fn a_consumer_that_takes_its_time_is_no_deadlock() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1000).build()?;
    let context = Context::root("producer").budget(&budget).build();
    let options = WeightedQueue::<Heavy>::options("jobs").budget(&budget).capacity(1);
    let queue = context.run(|| options.weigher(|(_, weight)| *weight).build())?;
    let free = 1000 - budget.usage().used;
    context.run(|| queue.try_push((1, free - 100))).unwrap();
    thread::scope(|scope| {
        let answer = scope.spawn(|| context.run(|| budget.reserve(200).wait().map(drop)));
        thread::sleep(Duration::from_millis(500));
        assert_eq!(queue.try_pop(), Some((1, free - 100)));
        assert_eq!(answer.join().unwrap(), Ok(()));
    });
    Ok(())
}

#[test]
fn wrong_options_are_refused_by_build() {
    let named = |options: nebula_memory::lockfree::WeightedQueueOptions<u8>| {
        options.build().unwrap_err().to_string()
    };
    assert!(named(WeightedQueue::options("")).contains("queue.name"));
    assert!(named(WeightedQueue::options("a").capacity(0)).contains("queue.capacity"));
    assert!(named(WeightedQueue::options("a").max_bytes(0)).contains("queue.max_bytes"));
    assert!(named(WeightedQueue::options("a").capacity(usize::MAX)).contains("queue"));
    let budget = Budget::root("process").limit(100).build().unwrap();
    let refused = WeightedQueue::<u64>::options("a").budget(&budget).build().unwrap_err();
    assert_eq!(refused.code(), "MEM:BUDGET:TOO_LARGE");
    let unweighed = WeightedQueue::<Mutex<String>>::options("a").build().unwrap_err();
    assert!(unweighed.to_string().contains("queue.weigher"), "{unweighed}");
}
