//! The queues for many threads.
#![cfg(feature = "std")]

#[path = "common/dropped.rs"]
mod dropped;
#[path = "common/linear.rs"]
mod linear;

use dropped::Dropped;
use linear::{Did, Event, Sequential, history, is_linearizable};
use nebula_memory::{
    Budget,
    core::AllocationError,
    lockfree::{Full, IndexQueue, Queue},
};
use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

const VALUES: u64 = if cfg!(miri) { 40 } else { 50_000 };
const HISTORIES: u64 = if cfg!(miri) { 4 } else { 600 };

const fn assert_send_and_sync<T: Send + Sync>() {}
/// Values that are `Send` and not `Sync` are enough.
const _: () = assert_send_and_sync::<Queue<std::cell::Cell<u8>>>();
const _: () = assert_send_and_sync::<IndexQueue>();

/// Two producers push numbered values and two consumers pop them: each arrives once, and those of one producer in order.
fn each_value_arrives_once(
    capacity: usize,
    push: impl Fn(&Queue<(u64, u64)>, u64) + Sync,
    pop: impl Fn(&Queue<(u64, u64)>, &mut Vec<(u64, u64)>) + Sync,
) {
    let queue = Queue::try_with_capacity(capacity).unwrap();
    let left = AtomicU64::new(2);
    let popped: Vec<Vec<_>> = thread::scope(|scope| {
        let (queue, left, push, pop) = (&queue, &left, &push, &pop);
        for producer in 0..2 {
            scope.spawn(move || {
                push(queue, producer);
                left.fetch_sub(1, Ordering::Release);
            });
        }
        let consumer = || {
            let mut values = Vec::new();
            loop {
                let is_last = left.load(Ordering::Acquire) == 0;
                let before = values.len();
                pop(queue, &mut values);
                if values.len() == before {
                    if is_last {
                        return values;
                    }
                    thread::yield_now();
                }
            }
        };
        let consumers = [scope.spawn(consumer), scope.spawn(consumer)];
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    });
    for values in &popped {
        for producer in 0..2 {
            let of_one = values.iter().filter(|value| value.0 == producer).map(|value| value.1);
            assert!(of_one.is_sorted(), "the values of one producer are in order");
        }
    }
    let all: HashSet<_> = popped.iter().flatten().collect();
    assert_eq!(all.len(), 2 * usize::try_from(VALUES).unwrap(), "each value arrived");
    assert_eq!(popped.iter().flatten().count(), all.len(), "and none twice");
    assert!(queue.is_empty());
}

fn push_one_by_one(queue: &Queue<(u64, u64)>, producer: u64) {
    for number in 0..VALUES {
        while queue.push((producer, number)).is_err() {
            thread::yield_now();
        }
    }
}

fn push_in_batches(queue: &Queue<(u64, u64)>, producer: u64) {
    let mut number = 0;
    let mut batch = Vec::new();
    while number < VALUES || !batch.is_empty() {
        while batch.len() < 7 && number < VALUES {
            batch.push((producer, number));
            number += 1;
        }
        if queue.push_many(&mut batch) == 0 {
            thread::yield_now();
        }
    }
}

fn pop_one(queue: &Queue<(u64, u64)>, values: &mut Vec<(u64, u64)>) {
    values.extend(queue.pop());
}

fn pop_a_batch(queue: &Queue<(u64, u64)>, values: &mut Vec<(u64, u64)>) {
    queue.pop_many(values, 5);
}

#[test]
fn values_arrive_once_and_in_order() {
    for capacity in [1, 2, 64] {
        each_value_arrives_once(capacity, push_one_by_one, pop_one);
    }
}

#[test]
fn batches_arrive_once_and_in_order() {
    for capacity in [1, 4, 64] {
        each_value_arrives_once(capacity, push_in_batches, pop_a_batch);
    }
    each_value_arrives_once(16, push_one_by_one, pop_a_batch);
    each_value_arrives_once(16, push_in_batches, pop_one);
}

/// Indices go round: no index is with two threads at once, and none is lost.
#[test]
fn an_index_is_one_threads_at_a_time() {
    for capacity in [1, 3, 8] {
        let free = IndexQueue::try_with_capacity(capacity).unwrap();
        for index in 0..capacity {
            free.push(index).unwrap();
        }
        let taken: Vec<_> = (0..capacity).map(|_| AtomicBool::new(false)).collect();
        let uses = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while uses.fetch_add(1, Ordering::Relaxed) < VALUES {
                        let Some(index) = free.pop() else {
                            thread::yield_now();
                            continue;
                        };
                        // Relaxed: the queue orders the threads.
                        assert!(!taken[index].load(Ordering::Relaxed), "it is with two threads");
                        taken[index].store(true, Ordering::Relaxed);
                        taken[index].store(false, Ordering::Relaxed);
                        free.push(index).unwrap();
                    }
                });
            }
        });
        assert_eq!(free.len(), capacity);
        let mut all: Vec<_> = std::iter::from_fn(|| free.pop()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..capacity));
    }
}

/// A sequential queue.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bounded {
    capacity: usize,
    values: VecDeque<u64>,
}

impl Bounded {
    fn new(capacity: usize) -> Self {
        Self { capacity, values: VecDeque::new() }
    }
}

impl Sequential for Bounded {
    /// A batch may be shorter than wanted, but not empty, while there is something to do.
    fn apply(&mut self, did: &Did, _: usize) -> bool {
        let queue = &mut self.values;
        match did {
            Did::Pushed { values, of } => {
                let is_possible = match values.len() {
                    0 => *of == 0 || queue.len() == self.capacity,
                    count => count <= *of && queue.len() + count <= self.capacity,
                };
                queue.extend(values);
                is_possible
            }
            Did::Popped { values, most } => {
                let is_possible = match values.len() {
                    0 => *most == 0 || queue.is_empty(),
                    count => count <= *most && queue.len() >= count,
                };
                is_possible && values.iter().all(|value| queue.pop_front() == Some(*value))
            }
        }
    }
}

#[test]
fn histories_of_a_queue_are_linearizable() {
    for round in 0..HISTORIES {
        let capacity = [1, 2, 4][usize::try_from(round % 3).unwrap()];
        let queue = Queue::try_with_capacity(capacity).unwrap();
        let next = AtomicU64::new(0);
        let history = history(round, |choice| {
            let value = next.fetch_add(3, Ordering::Relaxed);
            match choice % 4 {
                0 => {
                    let is_pushed = queue.push(value).is_ok();
                    Did::Pushed { values: is_pushed.then_some(value).into_iter().collect(), of: 1 }
                }
                1 => Did::Popped { values: queue.pop().into_iter().collect(), most: 1 },
                2 => {
                    let mut values = vec![value, value + 1, value + 2];
                    let all = values.clone();
                    let count = queue.push_many(&mut values);
                    assert_eq!(values, all[count..], "the others stay");
                    Did::Pushed { values: all[..count].to_vec(), of: 3 }
                }
                _ => {
                    let mut values = Vec::new();
                    queue.pop_many(&mut values, 2);
                    Did::Popped { values, most: 2 }
                }
            }
        });
        assert!(is_linearizable(&history, Bounded::new(capacity)), "{history:#?}");
    }
}

#[test]
fn histories_of_an_index_queue_are_linearizable() {
    for round in 0..HISTORIES {
        let capacity = 1 + usize::try_from(round % 4).unwrap();
        let queue = IndexQueue::try_with_capacity(capacity).unwrap();
        let history = history(round, |choice| {
            if choice % 2 == 0 {
                let index = usize::try_from(choice).unwrap() % capacity;
                let is_pushed = queue.push(index).is_ok();
                let values = is_pushed.then_some(index as u64).into_iter().collect();
                Did::Pushed { values, of: 1 }
            } else {
                let popped = queue.pop().map(|index| index as u64);
                Did::Popped { values: popped.into_iter().collect(), most: 1 }
            }
        });
        assert!(is_linearizable(&history, Bounded::new(capacity)), "{history:#?}");
    }
}

#[test]
fn the_check_tells_linearizable_histories_from_others() {
    let push = |called, returned, value, is_pushed: bool| Event {
        called,
        returned,
        did: Did::Pushed { values: is_pushed.then_some(value).into_iter().collect(), of: 1 },
    };
    let pop = |called, returned, value: Option<u64>| Event {
        called,
        returned,
        did: Did::Popped { values: value.into_iter().collect(), most: 1 },
    };
    let is_fine = |history: &[Event]| is_linearizable(history, Bounded::new(1));
    assert!(is_fine(&[]));
    assert!(is_fine(&[push(0, 1, 7, true), pop(2, 3, Some(7)), pop(4, 5, None)]));
    // The pop overlaps the push, and may come before or after it.
    assert!(is_fine(&[push(0, 3, 7, true), pop(1, 2, None)]));
    assert!(is_fine(&[push(0, 3, 7, true), pop(1, 2, Some(7))]));
    assert!(!is_fine(&[push(0, 1, 7, true), pop(2, 3, None)]), "it was there");
    assert!(!is_fine(&[push(2, 3, 7, true), pop(0, 1, Some(7))]), "it was not there yet");
    assert!(!is_fine(&[push(0, 1, 7, true), push(2, 3, 8, true)]), "there is room for one");
    assert!(!is_fine(&[push(0, 1, 7, false)]), "it was not full");
    assert!(!is_fine(&[push(0, 1, 7, true), pop(2, 3, Some(7)), pop(4, 5, Some(7))]), "twice");
    let two = [push(0, 1, 7, true), push(2, 3, 8, true), pop(4, 5, Some(8)), pop(6, 7, Some(7))];
    assert!(!is_linearizable(&two, Bounded::new(2)), "out of order");
}

#[test]
fn remaining_values_are_dropped_once_also_if_one_panics() {
    for panicking in [None, Some(0), Some(2), Some(4)] {
        let drops = AtomicUsize::new(0);
        let queue = Queue::try_with_capacity(8).unwrap();
        // The values go beyond the last slot.
        for _ in 0..6 {
            assert!(queue.push(Dropped { drops: &drops, panics: false }).is_ok());
            drop(queue.pop());
        }
        for at in 0..5 {
            assert!(queue.push(Dropped { drops: &drops, panics: panicking == Some(at) }).is_ok());
        }
        assert_eq!(drops.swap(0, Ordering::Relaxed), 6);
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(queue)));
        assert_eq!(outcome.is_err(), panicking.is_some());
        assert_eq!(drops.into_inner(), 5);
    }
}

/// A value whose drop panics outside the queue leaves the queue as it was.
#[test]
fn a_panicking_drop_leaves_no_slot_stuck() {
    let drops = AtomicUsize::new(0);
    let queue = Queue::try_with_capacity(1).unwrap();
    for _ in 0..3 {
        assert!(queue.push(Dropped { drops: &drops, panics: true }).is_ok());
        let refused = queue.push(Dropped { drops: &drops, panics: true });
        assert!(catch_unwind(AssertUnwindSafe(|| drop(refused))).is_err());
        let popped = queue.pop();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(popped))).is_err());
        assert!(queue.is_empty());
    }
    assert_eq!(drops.load(Ordering::Relaxed), 6);
}

#[test]
fn batches_own_each_value_once() {
    let value = Arc::new(());
    let queue = Queue::try_with_capacity(4).unwrap();
    let mut batch = vec![Arc::clone(&value); 6];
    assert_eq!((queue.push_many(&mut batch), batch.len()), (4, 2));
    assert_eq!((queue.push_many(&mut batch), batch.len()), (0, 2));
    let mut popped = vec![Arc::clone(&value)];
    assert_eq!((queue.pop_many(&mut popped, 3), popped.len()), (3, 4));
    assert_eq!((queue.pop_many(&mut popped, 0), queue.pop_many(&mut popped, 9)), (0, 1));
    assert_eq!(queue.push_many(&mut Vec::new()), 0);
    assert_eq!(queue.push_many(&mut batch), 2);
    assert_eq!(Arc::strong_count(&value), 1 + 5 + 2);
    drop((queue, popped, batch));
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn values_without_a_size_are_counted() {
    let queue = Queue::try_with_capacity(2).unwrap();
    assert_eq!(queue.push_many(&mut vec![(); 5]), 2);
    let mut popped = Vec::new();
    assert_eq!(queue.pop_many(&mut popped, usize::MAX), 2);
    assert_eq!(queue.pop(), None);
}

#[test]
fn a_budget_is_charged_until_the_queue_is_dropped() {
    let budget = Budget::root("process").limit(10_000).build().unwrap();
    let queue = Queue::<u64>::try_with_capacity_in(100, &budget).unwrap();
    assert_eq!(budget.usage().used, 128 * Queue::<u64>::SLOT_BYTES);
    let indices = IndexQueue::try_with_capacity_in(100, &budget).unwrap();
    assert_eq!(budget.usage().used, 128 * (Queue::<u64>::SLOT_BYTES + IndexQueue::CELL_BYTES));
    let error = Queue::<u64>::try_with_capacity_in(1000, &budget).unwrap_err();
    assert!(matches!(error, AllocationError::Refused(_)));
    assert!(IndexQueue::try_with_capacity_in(10_000, &budget).is_err());
    drop((queue, indices));
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn a_size_beyond_the_address_space_is_an_error() {
    for capacity in [usize::MAX, usize::MAX / 2 + 2, 1 << (usize::BITS - 2)] {
        let error = Queue::<u64>::try_with_capacity(capacity).unwrap_err();
        assert!(matches!(error, AllocationError::CapacityOverflow { .. }), "{error}");
        assert!(IndexQueue::try_with_capacity(capacity).is_err());
    }
    // Within the address space, and more than any machine has.
    #[cfg(all(target_pointer_width = "64", not(miri)))]
    {
        let budget = Budget::root("process").build().unwrap();
        let error = Queue::<u64>::try_with_capacity_in(1 << 55, &budget).unwrap_err();
        assert!(matches!(error, AllocationError::Exhausted { .. }), "{error}");
        assert_eq!(budget.usage().used, 0);
    }
}

#[test]
fn a_full_queue_returns_the_value() {
    let queue = Queue::try_with_capacity(1).unwrap();
    queue.push(String::from("first")).unwrap();
    let error = queue.push(String::from("second")).unwrap_err();
    assert_eq!(error.to_string(), "no room for another value");
    let Full(value) = error;
    assert_eq!(value, "second");
    assert_eq!(format!("{queue:?}"), "Queue { len: 1, capacity: 1, .. }");
}
