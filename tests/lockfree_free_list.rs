//! The list of free indices.
#![cfg(feature = "std")]

use nebula_memory::{Budget, lockfree::FreeList};
use std::{
    cell::UnsafeCell,
    collections::HashSet,
    sync::{Arc, Barrier, mpsc},
    thread,
};

const ROUNDS: usize = if cfg!(miri) { 60 } else { 100_000 };

const fn assert_send_and_sync<T: Send + Sync>() {}
const _: () = assert_send_and_sync::<FreeList>();

/// A list, and a slot for each index. Tools that look for data races see each use of a slot.
struct Slots {
    free: FreeList,
    slots: Vec<UnsafeCell<usize>>,
}

// SAFETY: a slot is used by the thread that has its index.
unsafe impl Sync for Slots {}

impl Slots {
    fn new(capacity: usize) -> Self {
        let free = FreeList::try_with_capacity(capacity).unwrap();
        Self { free, slots: (0..capacity).map(|_| UnsafeCell::new(usize::MAX)).collect() }
    }

    fn take(&self, mark: usize) -> Option<usize> {
        let index = self.free.take()?;
        // SAFETY: this thread has the index.
        let before = unsafe { self.slots[index].get().replace(mark) };
        assert_eq!(before, usize::MAX, "another thread has it too");
        Some(index)
    }

    fn give(&self, index: usize, mark: usize) {
        // SAFETY: this thread has the index.
        let before = unsafe { self.slots[index].get().replace(usize::MAX) };
        assert_eq!(before, mark, "another thread had it too");
        assert!(self.free.give(index));
    }
}

/// Four threads with few and with many indices: each index is one thread's at a time, and none is lost.
#[test]
fn an_index_is_one_threads_at_a_time() {
    for capacity in [1, 3, 16, 40, 1000] {
        let slots = Slots::new(capacity);
        thread::scope(|scope| {
            for mark in 0..4 {
                let slots = &slots;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..ROUNDS / 4 {
                        if (round * (mark + 3) / 7) % 2 == 0 {
                            held.extend(slots.take(mark));
                        } else if let Some(index) = held.pop() {
                            slots.give(index, mark);
                        }
                        if held.len() > capacity / 4 {
                            held.drain(..).for_each(|index| slots.give(index, mark));
                        }
                    }
                    held.drain(..).for_each(|index| slots.give(index, mark));
                });
            }
        });
        assert_eq!(slots.free.available(), capacity);
        let all: HashSet<_> = std::iter::from_fn(|| slots.free.take()).collect();
        assert_eq!((all.len(), slots.free.available()), (capacity, 0));
    }
}

/// As many indices as threads, of which each has one at most: so each call finds one, wherever it is.
#[test]
fn no_free_index_is_out_of_reach() {
    for spare in [0, 14, 60] {
        let slots = Slots::new(3 + spare);
        thread::scope(|scope| {
            let held: Vec<_> = (0..spare).map(|_| slots.take(9).unwrap()).collect();
            for mark in 0..3 {
                let slots = &slots;
                scope.spawn(move || {
                    for _ in 0..ROUNDS / 5 {
                        let index = slots.take(mark).expect("one for each thread");
                        slots.give(index, mark);
                    }
                });
            }
            for _ in 0..ROUNDS / 50 {
                assert!(slots.free.available() <= 3);
            }
            drop(held);
        });
        assert_eq!(slots.free.available(), 3);
    }
}

/// One thread takes, another gives: the indices go home in magazines.
#[test]
fn indices_that_another_thread_gives_come_back() {
    let slots = Slots::new(300);
    let (sender, receiver) = mpsc::sync_channel(100);
    thread::scope(|scope| {
        let slots = &slots;
        scope.spawn(move || receiver.iter().for_each(|index| slots.give(index, 1)));
        for _ in 0..ROUNDS {
            // At most 100 in the channel, and one in each thread's hands.
            sender.send(slots.take(1).expect("most are free")).unwrap();
        }
        drop(sender);
    });
    assert_eq!(slots.free.available(), 300);
}

/// An idle thread has indices in its magazines.
#[test]
fn indices_of_an_idle_thread_are_taken() {
    let slots = Slots::new(64);
    let (cached, all) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let held: Vec<_> = (0..20).map(|_| slots.take(1).unwrap()).collect();
            held.into_iter().for_each(|index| slots.give(index, 1));
            cached.wait();
            all.wait();
            slots.give(slots.take(1).expect("they were given back"), 1);
        });
        cached.wait();
        let held: Vec<_> = (0..64).map(|_| slots.take(2).expect("all are free")).collect();
        assert_eq!(slots.take(2), None);
        held.into_iter().for_each(|index| slots.give(index, 2));
        all.wait();
    });
    assert_eq!(slots.free.available(), 64);
}

/// More threads than have magazines, at once and one after the other, and in destructors of thread-local values.
#[test]
fn any_number_of_threads_and_threads_that_end() {
    struct AtEnd(Arc<Slots>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let index = self.0.take(7).expect("enough for all");
            self.0.give(index, 7);
        }
    }
    thread_local! {
        static AT_END: std::cell::RefCell<Option<AtEnd>> = const { std::cell::RefCell::new(None) };
    }
    let count = if cfg!(miri) { 5 } else { 150 };
    let slots = Arc::new(Slots::new(2 * count));
    for _ in 0..2 {
        let gate = Barrier::new(count);
        let taken: HashSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|_| {
                    let (slots, gate) = (&slots, &gate);
                    scope.spawn(move || {
                        // Registered before the thread has a number, so it is dropped after that went back.
                        AT_END.with(|end| *end.borrow_mut() = Some(AtEnd(Arc::clone(slots))));
                        gate.wait();
                        slots.take(1).expect("enough for all")
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), count, "each index once");
        taken.into_iter().for_each(|index| slots.give(index, 1));
        assert_eq!(slots.free.available(), 2 * count);
    }
}

#[test]
fn an_index_that_is_not_out_is_not_taken_back() {
    for capacity in [0, 1, 5, 100] {
        let free = FreeList::try_with_capacity(capacity).unwrap();
        for index in [0, capacity, capacity + 1, usize::MAX, u32::MAX as usize, 1 << 31] {
            assert!(!free.give(index), "never taken");
        }
        let Some(index) = free.take() else { continue };
        assert!(free.give(index) && !free.give(index));
        thread::scope(|scope| scope.spawn(|| assert!(!free.give(index))).join().unwrap());
        assert_eq!(free.available(), capacity);
    }
}

#[test]
fn a_budget_is_charged_for_the_memory_until_the_list_is_dropped() {
    let budget = Budget::root("process").limit(100_000).build().unwrap();
    let free = FreeList::try_with_capacity_in(10_000, &budget).unwrap();
    let used = budget.usage().used;
    assert!((40_000..70_000).contains(&used), "{used}");
    assert!(FreeList::try_with_capacity_in(100_000, &budget).is_err());
    assert_eq!(budget.usage().used, used);
    drop(free);
    assert_eq!(budget.usage().used, 0);
    // A small one has no magazines.
    let free = FreeList::try_with_capacity_in(1, &budget).unwrap();
    assert!(cfg!(miri) || budget.usage().used < 100);
    assert_eq!((free.take(), free.take(), free.capacity()), (Some(0), None, 1));
    assert!(FreeList::try_with_capacity(usize::MAX).is_err());
    assert!(FreeList::try_with_capacity(FreeList::MAX_CAPACITY + 1).is_err());
}
