//! Every interleaving of takes, gives and the gate. The model checker is told of each use of a slot.

use super::FreeList;
use loom::{cell::UnsafeCell, thread};
use std::{sync::Arc, vec::Vec};

/// A list, and the slots of its indices.
struct Slots(FreeList, Vec<UnsafeCell<u32>>);

// SAFETY: a slot is used by the thread that has its index; the model checker would report it otherwise.
unsafe impl Sync for Slots {}
// SAFETY: as above.
unsafe impl Send for Slots {}

impl Slots {
    fn new(capacity: usize) -> Arc<Self> {
        let list = FreeList::try_with_capacity(capacity).unwrap();
        Arc::new(Self(list, (0..capacity).map(|_| UnsafeCell::new(0)).collect()))
    }

    fn take(&self, thread: usize) -> Option<usize> {
        let index = self.0.take_as(thread)?;
        // SAFETY: the index was taken here.
        self.1[index].with_mut(|slot| unsafe { *slot += 1 });
        Some(index)
    }

    fn give(&self, thread: usize, index: usize) {
        // SAFETY: the index is this thread's until it is given.
        self.1[index].with_mut(|slot| unsafe { *slot += 1 });
        assert!(self.0.give_as(thread, index));
    }

    /// Takes an index and gives it back. There is always one.
    fn pass(&self, thread: usize) {
        let index = self.take(thread).expect("no other thread has more than one");
        self.give(thread, index);
    }

    /// Checks that each index is free, and is taken once.
    fn end(&self, thread: usize) {
        let capacity = self.0.capacity();
        assert_eq!(self.0.available(), capacity);
        let mut all: Vec<_> = std::iter::from_fn(|| self.take(thread)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..capacity));
    }
}

/// Runs both functions at once. All indices are free, and thread 0 keeps most of them.
fn both(
    capacity: usize,
    first: impl Fn(&Slots) + Copy + Send + Sync + 'static,
    second: impl Fn(&Slots) + Copy + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let slots = Slots::new(capacity);
        let all: Vec<_> = (0..capacity).map(|_| slots.take(0).unwrap()).collect();
        all.into_iter().for_each(|index| slots.give(0, index));
        let theirs = Arc::clone(&slots);
        let other = thread::spawn(move || second(&theirs));
        first(&slots);
        other.join().unwrap();
        slots.end(0);
    });
}

/// Each thread has at most one of two indices, so the other one is found: in the depot, or where another thread keeps it.
#[test]
fn an_index_is_found_wherever_it_is() {
    both(2, |slots| (0..2).for_each(|_| slots.pass(0)), |slots| (0..2).for_each(|_| slots.pass(1)));
}

/// A thread that keeps no indices takes those of another one, while that uses them.
#[test]
fn indices_are_found_by_a_thread_that_keeps_none() {
    both(
        2,
        |slots| (0..2).for_each(|_| slots.pass(0)),
        |slots| (0..2).for_each(|_| slots.pass(usize::MAX)),
    );
}

/// The gate is closed for a moment, beside a thread that uses its own indices.
#[test]
fn indices_are_counted_at_one_instant() {
    both(
        3,
        |slots| {
            let first = slots.take(0).unwrap();
            slots.pass(0);
            slots.give(0, first);
        },
        |slots| assert!((1..=3).contains(&slots.0.available())),
    );
}

/// A thread gives its indices in another order, beside one that moves them to the depot.
#[test]
fn indices_are_seen_by_the_thread_that_moves_them() {
    both(
        2,
        |slots| {
            let [first, second] = [0, 0].map(|thread| slots.take(thread));
            [first, second].into_iter().flatten().for_each(|index| slots.give(0, index));
        },
        |slots| _ = slots.0.available(),
    );
}

/// An index that is taken by one thread is given by the other.
#[test]
fn an_index_is_given_by_another_thread() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let slots = Slots::new(2);
        let index = slots.take(0).unwrap();
        let theirs = Arc::clone(&slots);
        let other = thread::spawn(move || {
            theirs.give(1, index);
            theirs.pass(1);
        });
        slots.pass(0);
        other.join().unwrap();
        assert!(!slots.0.give_as(0, index), "it was given back before");
        slots.end(0);
    });
}

#[test]
#[should_panic]
fn the_model_sees_two_threads_with_one_number() {
    both(3, |slots| slots.pass(0), |slots| slots.pass(0));
}
