//! Every interleaving of the queue's and the ring's operations. The model checker is told of each use of a slot by
//! [`Alone`](crate::utils::sync::Alone).

use super::{IndexQueue, Queue, try_ring};
use loom::thread;
use std::{sync::Arc, vec, vec::Vec};

fn queue(capacity: usize) -> Arc<Queue<u32>> {
    Arc::new(Queue::try_with_capacity(capacity).unwrap())
}

#[test]
fn two_producers_fill_a_queue_of_two() {
    loom::model(|| {
        let queue = queue(2);
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || theirs.push(1).is_ok());
        let own = queue.push(2).is_ok();
        let third = queue.push(3).is_ok();
        let other = other.join().unwrap();
        assert!(own && (other != third), "two find room");
        let mut popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        popped.sort_unstable();
        assert_eq!(popped, if third { [2, 3] } else { [1, 2] });
    });
}

#[test]
fn one_slot_is_never_overwritten() {
    loom::model(|| {
        let queue = queue(1);
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || {
            let mut pushed = Vec::new();
            for value in 1..=2 {
                if theirs.push(value).is_ok() {
                    pushed.push(value);
                }
            }
            pushed
        });
        let mut popped: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        let pushed = other.join().unwrap();
        popped.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(popped, pushed);
    });
}

#[test]
fn two_consumers_get_each_value_once() {
    loom::model(|| {
        let queue = queue(2);
        queue.push(1).unwrap();
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || {
            theirs.push(2).unwrap();
            theirs.pop()
        });
        let mut popped: Vec<_> = queue.pop().into_iter().collect();
        popped.extend(other.join().unwrap());
        popped.extend(std::iter::from_fn(|| queue.pop()));
        popped.sort_unstable();
        assert_eq!(popped, [1, 2]);
    });
}

#[test]
fn batches_are_contiguous() {
    loom::model(|| {
        let queue = queue(4);
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || theirs.push_many(&mut vec![1, 2]));
        assert_eq!(queue.push_many(&mut vec![3, 4]), 2);
        let mut popped = Vec::with_capacity(4);
        assert!(queue.pop_many(&mut popped, 4) >= 1, "it is not empty");
        assert_eq!(other.join().unwrap(), 2);
        while queue.pop_many(&mut popped, 4) > 0 {}
        assert!(popped == [1, 2, 3, 4] || popped == [3, 4, 1, 2], "{popped:?}");
    });
}

#[test]
fn a_batch_is_popped_by_two() {
    loom::model(|| {
        let queue = queue(2);
        queue.push_many(&mut vec![1, 2]);
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || {
            let mut popped = Vec::with_capacity(2);
            theirs.pop_many(&mut popped, 2);
            theirs.push_many(&mut vec![3]);
            popped
        });
        let mut popped: Vec<_> = queue.pop().into_iter().collect();
        popped.extend(other.join().unwrap());
        popped.extend(std::iter::from_fn(|| queue.pop()));
        popped.sort_unstable();
        assert_eq!(popped, [1, 2, 3]);
    });
}

#[test]
fn values_pass_through_a_ring_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = try_ring(2).unwrap();
        let other = thread::spawn(move || {
            (1..=3).filter(|value| producer.push(*value).is_ok()).collect::<Vec<u32>>()
        });
        let mut popped = Vec::new();
        for _ in 0..3 {
            popped.extend(consumer.pop());
        }
        let pushed = other.join().unwrap();
        assert!(consumer.is_closed());
        popped.extend(std::iter::from_fn(|| consumer.pop()));
        assert_eq!(popped, pushed);
    });
}

#[test]
fn slices_pass_through_a_ring_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = try_ring(2).unwrap();
        let other = thread::spawn(move || {
            let first = producer.push_slice(&[1, 2]);
            first + producer.push_slice(&[3, 4][..])
        });
        let mut popped = Vec::new();
        for _ in 0..2 {
            let (first, second) = consumer.peek();
            popped.extend([first, second].concat());
            let seen = first.len() + second.len();
            consumer.consume(seen);
        }
        let pushed = other.join().unwrap();
        popped.extend(std::iter::from_fn(|| consumer.pop()));
        assert_eq!(popped, (1..).take(pushed).collect::<Vec<u32>>());
    });
}

/// Both ends are dropped at once: one of them drops the value.
#[test]
fn the_last_end_drops_the_values_left_in_the_ring() {
    loom::model(|| {
        let value = Arc::new(());
        let (mut producer, mut consumer) = try_ring(2).unwrap();
        let sent = Arc::clone(&value);
        let other = thread::spawn(move || {
            producer.push(Arc::clone(&sent)).unwrap();
            producer.push(sent).unwrap();
        });
        let is_closed = consumer.is_closed();
        let popped = consumer.pop();
        assert!(popped.is_some() || !is_closed, "a closed ring shows its last values");
        drop((popped, consumer));
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

/// A queue for one index, and the slot of that index.
struct Handed(IndexQueue, loom::cell::UnsafeCell<u32>);

// SAFETY: the cell is used by the thread that has the index; the model checker would report it otherwise.
unsafe impl Sync for Handed {}
// SAFETY: as above.
unsafe impl Send for Handed {}

/// What is written before a push is seen after the pop.
#[test]
fn an_index_hands_its_slot_over() {
    loom::model(|| {
        let shared = Arc::new(Handed(
            IndexQueue::try_with_capacity(1).unwrap(),
            loom::cell::UnsafeCell::new(0),
        ));
        let theirs = Arc::clone(&shared);
        let other = thread::spawn(move || {
            // SAFETY: the index is not in the queue: the slot is this thread's.
            theirs.1.with_mut(|slot| unsafe { *slot = 7 });
            theirs.0.push(0).unwrap();
        });
        if shared.0.pop().is_some() {
            // SAFETY: the index was popped here: the slot is this thread's.
            assert_eq!(shared.1.with(|slot| unsafe { *slot }), 7);
        }
        other.join().unwrap();
    });
}
