//! The slab for many threads.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget,
    lockfree::{Full, Handle, LocalSlab, OwnedSlabGuard, Slab, SlabGuard},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

const ROUNDS: usize = if cfg!(miri) { 40 } else { 50_000 };

const fn assert_send<T: Send>() {}
const fn assert_send_and_sync<T: Send + Sync>() {}
const _: () = assert_send_and_sync::<Slab<u8>>();
const _: () = assert_send_and_sync::<SlabGuard<'_, u8>>();
const _: () = assert_send_and_sync::<OwnedSlabGuard<u8>>();
const _: () = assert_send_and_sync::<LocalSlab<u8>>();
/// Values that are not `Sync` make a slab that one thread at a time may use.
const _: () = assert_send::<Slab<std::cell::Cell<u8>>>();
const _: () = assert_send_and_sync::<Handle>();

/// A value that is dropped once, and never while it is used.
struct Checked {
    number: usize,
    is_alive: AtomicBool,
    alive: Arc<AtomicUsize>,
}

impl Checked {
    fn new(number: usize, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { number, is_alive: AtomicBool::new(true), alive: Arc::clone(alive) }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        assert!(self.is_alive.swap(false, Ordering::Relaxed), "dropped once");
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each value is removed by one of two threads, also while guards use it, and dropped once.
#[test]
fn values_are_removed_once_under_guards() {
    let (slab, alive) = (Slab::new(), Arc::new(AtomicUsize::new(0)));
    let current = Mutex::new(Vec::new());
    let removed: usize = thread::scope(|scope| {
        let work = |seed: usize| {
            let (slab, alive, current) = (&slab, &alive, &current);
            move || {
                let mut removed = 0;
                for number in 0..ROUNDS {
                    let handle = slab.insert(Checked::new(number, alive));
                    current.lock().unwrap().push((handle, number));
                    let (other, expected) = {
                        let mut current = current.lock().unwrap();
                        let at = number.wrapping_mul(7 + seed) % current.len();
                        if current.len() > 16 { current.swap_remove(at) } else { current[at] }
                    };
                    let guard = slab.get(other);
                    if let Some(value) = &guard {
                        assert_eq!(value.number, expected);
                    }
                    if number % 3 == 0 {
                        removed += usize::from(slab.remove(other));
                    } else if number % 3 == 1 {
                        drop(guard);
                        removed += usize::from(slab.take(other).is_some());
                        continue;
                    }
                    if let Some(value) = &guard {
                        assert!(value.is_alive.load(Ordering::Relaxed), "pinned");
                    }
                }
                removed
            }
        };
        let threads = [scope.spawn(work(0)), scope.spawn(work(1))];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let len = 2 * ROUNDS - removed;
    assert_eq!((slab.len(), alive.load(Ordering::Relaxed)), (len, len));
    drop(slab);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Values that one thread inserts and another removes: the slots go back, so the slab does not grow.
#[test]
fn slots_go_back_to_the_thread_that_inserts() {
    let budget = Budget::root("process").build().unwrap();
    let slab = Slab::new_in(&budget);
    let (sender, receiver) = mpsc::sync_channel::<Handle>(16);
    thread::scope(|scope| {
        scope.spawn(|| {
            for (number, handle) in (0..).zip(receiver) {
                assert_eq!(slab.take(handle), Some(number));
            }
        });
        for number in 0..ROUNDS {
            sender.send(slab.insert(number)).unwrap();
        }
        drop(sender);
    });
    assert!(slab.is_empty());
    assert!(budget.usage().used <= (8 + 16 + 32) * Slab::<usize>::SLOT_BYTES);
    drop(slab);
    assert_eq!(budget.usage().used, 0);
}

/// More threads than shards, one after the other and at once, and in destructors of thread-local values.
#[test]
fn any_number_of_threads_and_threads_that_end() {
    struct AtEnd(Arc<Slab<usize>>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let handle = self.0.insert(1);
            assert_eq!(self.0.get(handle).as_deref(), Some(&1));
            assert!(self.0.remove(handle));
        }
    }
    thread_local! {
        static AT_END: std::cell::RefCell<Option<AtEnd>> = const { std::cell::RefCell::new(None) };
    }
    let slab = Arc::new(Slab::new());
    let count = if cfg!(miri) { 5 } else { 150 };
    let gate = std::sync::Barrier::new(count);
    let handles: HashSet<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (slab, gate) = (&slab, &gate);
                scope.spawn(move || {
                    AT_END.with(|end| *end.borrow_mut() = Some(AtEnd(Arc::clone(slab))));
                    gate.wait();
                    let handle = slab.insert(number);
                    assert_eq!(slab.get_owned(handle).as_deref(), Some(&number));
                    handle
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(handles.len(), count, "each handle once");
    assert_eq!(slab.len(), count);
}

#[test]
fn a_budget_that_refuses_a_block_refuses_the_value() {
    let bytes = (8 + 16) * Slab::<u64>::SLOT_BYTES;
    let budget = Budget::root("process").limit(bytes).build().unwrap();
    let slab = Slab::new_in(&budget);
    let handles: Vec<_> = (0..24).map(|number| slab.insert(number)).collect();
    assert_eq!(slab.try_insert(7), Err(Full(7)));
    // Another thread's vacant slots are used, wherever they are.
    thread::scope(|scope| {
        scope.spawn(|| handles.iter().for_each(|handle| assert!(slab.remove(*handle))));
    });
    thread::scope(|scope| {
        scope.spawn(|| (0..24).for_each(|number| assert!(slab.contains(slab.insert(number)))));
    });
    assert_eq!((slab.len(), slab.try_insert(7)), (24, Err(Full(7))));
    assert_eq!(budget.usage().used, bytes);
}
