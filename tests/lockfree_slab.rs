//! The slab for many threads.
#![cfg(feature = "std")]

#[path = "common/checked.rs"]
mod checked;

use checked::Checked;
use nebula_memory::{
    Budget, ReclaimClass, Reservation,
    core::{MemoryManager, MemoryUsage, Progress, ReclaimTicket, Reclaimable},
    lockfree::{Full, Handle, LocalSlab, OwnedSlabGuard, Slab, SlabGuard},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
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

/// The bound holds at every instant, and no vacant slot is out of reach of a thread that needs one.
#[test]
fn a_bound_is_exact() {
    for most in [0, 1, 3, 20] {
        let (slab, alive) = (Slab::bounded(most), Arc::new(AtomicUsize::new(0)));
        let present = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 0..ROUNDS / 50 {
                        match slab.try_insert(Checked::new(round, &alive)) {
                            Ok(handle) => {
                                assert!(present.fetch_add(1, Ordering::Relaxed) < most);
                                present.fetch_sub(1, Ordering::Relaxed);
                                assert!(slab.remove(handle));
                            }
                            Err(Full(_)) => thread::yield_now(),
                        }
                    }
                });
            }
        });
        let handles: Vec<_> = (0..most).map(|at| slab.insert(Checked::new(at, &alive))).collect();
        assert!(slab.try_insert(Checked::new(0, &alive)).is_err());
        let guard = handles.first().and_then(|handle| slab.get(*handle));
        assert!(handles.iter().all(|handle| slab.remove(*handle)));
        let refilled =
            (0..most).take_while(|at| slab.try_insert(Checked::new(*at, &alive)).is_ok());
        assert_eq!(refilled.count(), most.saturating_sub(1), "one is pinned still");
        drop(guard);
        assert_eq!(slab.try_insert(Checked::new(0, &alive)).is_ok(), most > 0);
        drop(slab);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

/// A look-up or a removal of one handle, with the instants of its call and its return.
#[derive(Clone, Copy, Debug)]
struct Look {
    called: usize,
    returned: usize,
    is_removal: bool,
    found: bool,
}

/// Returns whether there is one instant, within the call of the removal that succeeded, before which each operation that
/// found the value took effect, and after which each that did not. A history of all handles is linearizable exactly if
/// the history of each is (M. Herlihy and J. Wing, *Linearizability*, 1990).
fn is_linearizable(looks: &[Look]) -> bool {
    let mut removals = looks.iter().filter(|look| look.is_removal && look.found);
    let removal = removals.next();
    if removals.next().is_some() {
        return false;
    }
    let Some(removal) = removal else { return looks.iter().all(|look| look.found) };
    let found = looks.iter().filter(|look| look.found && !look.is_removal).map(|look| look.called);
    let missed = looks.iter().filter(|look| !look.found).map(|look| look.returned);
    found.chain([removal.called]).max() < missed.chain([removal.returned]).min()
}

/// Three threads look for the same values and remove them.
fn histories_are_linearizable(
    insert: impl Fn(u32) -> Handle,
    get: impl Fn(Handle, u32) -> bool + Sync,
    remove: impl Fn(Handle) -> bool + Sync,
) {
    let rounds = if cfg!(miri) { 3 } else { 600 };
    for round in 0..rounds {
        let handles = [insert(2 * round), insert(2 * round + 1)];
        let (clock, start) = (AtomicUsize::new(0), Barrier::new(3));
        let tick = || clock.fetch_add(1, Ordering::SeqCst);
        let histories: Vec<(usize, Look)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3_u32)
                .map(|thread| {
                    let (tick, start, get, remove) = (&tick, &start, &get, &remove);
                    scope.spawn(move || {
                        start.wait();
                        let look = |step: u32| {
                            let at = ((round + thread + step) % 2) as usize;
                            let is_removal = (round + thread * 3 + step * 5) % 4 == 3;
                            let number = 2 * round + u32::from(at == 1);
                            let called = tick();
                            let found = if is_removal {
                                remove(handles[at])
                            } else {
                                get(handles[at], number)
                            };
                            (at, Look { called, returned: tick(), is_removal, found })
                        };
                        (0..6).map(look).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for (at, handle) in handles.into_iter().enumerate() {
            let looks = histories.iter().filter(|(of, _)| *of == at).map(|(_, look)| *look);
            let looks: Vec<_> = looks.collect();
            assert!(is_linearizable(&looks), "{looks:#?}");
            remove(handle);
        }
    }
}

#[test]
fn histories_of_a_slab_are_linearizable() {
    for slab in [Slab::new(), Slab::bounded(2)] {
        histories_are_linearizable(
            |number| slab.insert(number),
            |handle, number| slab.get(handle).is_some_and(|value| *value == number),
            |handle| slab.remove(handle),
        );
    }
}

#[test]
fn the_check_tells_linearizable_histories_from_others() {
    let look = |called, returned, is_removal, found| Look { called, returned, is_removal, found };
    let removal = look(2, 5, true, true);
    let is_fine = |others: &[Look]| is_linearizable(&[&[removal], others].concat());
    assert!(is_fine(&[look(0, 1, false, true), look(6, 7, false, false)]));
    assert!(is_fine(&[look(3, 4, false, true)]) && is_fine(&[look(3, 4, false, false)]));
    assert!(!is_fine(&[look(6, 7, false, true)]), "it was removed");
    assert!(!is_fine(&[look(0, 1, false, false)]), "it was there");
    assert!(!is_fine(&[look(3, 3, false, false), look(4, 4, false, true)]), "it came back");
    assert!(!is_fine(&[look(3, 4, true, true)]), "it was removed twice");
    assert!(!is_linearizable(&[look(0, 1, false, false)]), "nobody removed it");
}

/// Releases bytes by removing values of a slab, on the thread that asks.
struct Evicts {
    slab: Arc<Slab<Reservation>>,
    handles: Mutex<Vec<Handle>>,
}

impl MemoryUsage for Evicts {
    fn used_bytes(&self) -> usize {
        self.handles.try_lock().map_or(0, |handles| handles.len() * 40)
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Evicts {
    fn name(&self) -> &str {
        "evicts"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn is_inline_safe(&self) -> bool {
        true
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(self.used_bytes(), 1)
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        let handles = std::mem::take(&mut *self.handles.lock().unwrap());
        let removed = handles.into_iter().filter(|handle| self.slab.remove(*handle));
        Progress::freed(removed.count() * 40)
    }
}

/// A manager that is asked for memory by an insertion removes values of the same slab, on the same thread: more slots are
/// vacant than the thread keeps, and none is lost.
#[test]
fn a_manager_may_remove_values_of_the_slab_that_grows() {
    let block = Slab::<Reservation>::SLOT_BYTES;
    // The third block fits only if the manager releases what the values hold.
    let budget = Budget::root("process").limit(56 * block + 40).build().unwrap();
    let slab = Arc::new(Slab::new_in(&budget));
    let manager = Arc::new(Evicts { slab: Arc::clone(&slab), handles: Mutex::default() });
    budget.register(&manager);
    for _ in 0..24 {
        let handle = slab.insert(budget.try_reserve(40).unwrap());
        manager.handles.lock().unwrap().push(handle);
    }
    slab.insert(budget.try_reserve(0).unwrap());
    assert_eq!(slab.len(), 1, "the manager was asked");
    let slots = budget.usage().used / block;
    let inserted = (1..).take_while(|_| slab.try_insert(budget.reservation()).is_ok()).count();
    assert_eq!(1 + inserted, slots, "no slot is lost");
}
