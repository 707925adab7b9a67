//! Every interleaving of insertions, removals and guards. The model checker is told of each change of a value by
//! [`Alone`](crate::utils::sync::Alone), and of each use by the value itself.

use super::{SHARDS, Slab};
use crate::advanced::lockfree::slab::{EpochSlab, Handle, slot::Removed};
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};
use std::sync::Arc;

/// A value whose uses are known to the model checker: its drop may not run beside them.
struct Watched(u32, UnsafeCell<()>);

// SAFETY: the model checker reports a drop beside a use.
unsafe impl Sync for Watched {}

impl Watched {
    fn new(number: u32) -> Self {
        let cell = UnsafeCell::new(());
        cell.with_mut(|_| ());
        Self(number, cell)
    }

    fn number(&self) -> u32 {
        self.1.with(|_| ());
        self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.with_mut(|_| ());
    }
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

/// A value is removed by one thread while two others use it. Its last user drops it.
#[test]
fn a_value_stays_as_long_as_its_guards() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let handle = slab.insert_as(0, Watched::new(7)).ok().unwrap();
        let reader = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.get(handle).is_none_or(|value| value.number() == 7))
        };
        let remover = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || {
                let removed = slab.remove_as(1, handle, true);
                assert!(matches!(removed, Removed::Now(_) | Removed::Later));
            })
        };
        if let Some(value) = slab.get(handle) {
            assert_eq!(value.number(), 7);
        }
        assert!(reader.join().unwrap());
        remover.join().unwrap();
        assert!(!slab.contains(handle));
        assert_eq!(slab.len(), 0);
    });
}

/// A thread that is pinned in an epoch finds a value, or none, while another inserts and removes. What it finds was
/// written before, and stays. `crossbeam-epoch` returns nothing in a model.
#[test]
fn a_reader_finds_the_inserted_value_or_none() {
    model(|| {
        let slab = Arc::new(EpochSlab::new());
        // There is a block already, whose publication would order the value.
        slab.insert(Watched::new(0));
        let passed = Arc::new(AtomicU64::new(0));
        let other = {
            let (slab, passed) = (Arc::clone(&slab), Arc::clone(&passed));
            thread::spawn(move || {
                let handle = slab.insert(Watched::new(7));
                passed.store(handle.to_bits(), Ordering::Relaxed);
                assert!(slab.remove(handle) && !slab.contains(handle));
            })
        };
        if let Some(handle) = Handle::from_bits(passed.load(Ordering::Relaxed)) {
            let reader = slab.reader();
            assert!(reader.get(handle).is_none_or(|value| value.number() == 7));
        }
        other.join().unwrap();
        assert_eq!((slab.len(), slab.waiting()), (1, 1));
    });
}

/// Two threads remove one value: one of them does.
#[test]
fn a_value_is_removed_once() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let handle = slab.insert_as(0, Watched::new(7)).ok().unwrap();
        let remove = |thread, is_patient| {
            let slab = Arc::clone(&slab);
            move || match slab.remove_as(thread, handle, is_patient) {
                Removed::Now(value) => usize::from(value.number() == 7),
                Removed::Later => 1,
                Removed::Pinned | Removed::Before => 0,
            }
        };
        let (other, own) = (thread::spawn(remove(1, true)), remove(0, false));
        assert_eq!(own() + other.join().unwrap(), 1);
        assert_eq!(slab.len(), 0);
    });
}

/// A slot that one thread empties is filled by another one. A handle of the value before finds nothing, whenever it looks.
#[test]
fn a_slot_that_is_used_again_is_not_mistaken() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let first = slab.insert_as(0, Watched::new(1)).ok().unwrap();
        let other = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || {
                assert!(matches!(slab.remove_as(1, first, true), Removed::Now(_) | Removed::Later));
                slab.insert_as(1, Watched::new(2)).ok().unwrap()
            })
        };
        if let Some(value) = slab.get(first) {
            assert_eq!(value.number(), 1);
        }
        // It may take the slot that the other thread has returned.
        let own = slab.insert_as(0, Watched::new(3)).ok().unwrap();
        let theirs = other.join().unwrap();
        assert_ne!(own.index(), theirs.index());
        assert_eq!(slab.get(own).unwrap().number(), 3);
        assert_eq!(slab.get(theirs).unwrap().number(), 2);
        assert!(slab.get(first).is_none());
    });
}

/// A slab with all slots of its first block vacant, in the shard of thread 0: two that it keeps, six in the list.
fn vacant() -> Arc<Slab<Watched>> {
    let slab = Arc::new(Slab::new());
    let handles: [_; 8] = std::array::from_fn(|_| slab.insert_as(0, Watched::new(0)).ok().unwrap());
    for handle in handles {
        slab.remove_as(0, handle, true);
    }
    slab
}

/// The owner takes several slots at once, or returns one, while a thread without a number steals from it.
#[test]
fn no_slot_is_taken_twice() {
    model(|| {
        let slab = vacant();
        let thief = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.insert_as(SHARDS, Watched::new(1)).ok().unwrap())
        };
        let own: [_; 3] = std::array::from_fn(|_| slab.insert_as(0, Watched::new(2)).ok().unwrap());
        let theirs = thief.join().unwrap();
        assert_eq!(slab.get(theirs).unwrap().number(), 1);
        assert!(own.iter().all(|handle| slab.get(*handle).unwrap().number() == 2));
        assert_eq!(slab.len(), 4);
    });
}

/// One thread inserts, another one removes: the slots go home.
#[test]
fn slots_go_home() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let first = slab.insert_as(0, Watched::new(1)).ok().unwrap();
        let second = slab.insert_as(0, Watched::new(2)).ok().unwrap();
        let other = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || {
                slab.remove_as(1, first, true);
                slab.remove_as(1, second, true);
            })
        };
        let third = slab.insert_as(0, Watched::new(3)).ok().unwrap();
        let fourth = slab.insert_as(0, Watched::new(4)).ok().unwrap();
        other.join().unwrap();
        assert_eq!(slab.get(third).unwrap().number(), 3);
        assert_eq!(slab.get(fourth).unwrap().number(), 4);
        assert_eq!(slab.len(), 2);
    });
}

/// A thread that guesses a handle finds the whole value or nothing.
#[test]
fn a_value_is_seen_whole_whatever_way_its_handle_came() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let before = slab.insert_as(0, Watched::new(6)).ok().unwrap();
        drop(slab.remove_as(0, before, true));
        let other = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.insert_as(0, Watched::new(7)).ok().unwrap())
        };
        let guess = Handle::new(1, 3);
        if let Some(value) = slab.get(guess) {
            assert_eq!(value.number(), 7);
        }
        assert_eq!(other.join().unwrap(), guess);
    });
}

/// The drop of a removed value, by the last guard, comes after what the remover did before.
#[test]
fn a_drop_comes_after_the_removers_earlier_writes() {
    struct Told(Arc<AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            assert!(self.0.load(Ordering::Relaxed), "told before it was removed");
        }
    }
    model(|| {
        let (slab, is_told) = (Arc::new(Slab::new()), Arc::new(AtomicBool::new(false)));
        let handle = slab.insert_as(0, Told(Arc::clone(&is_told))).ok().unwrap();
        let reader = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || drop(slab.get(handle)))
        };
        is_told.store(true, Ordering::Relaxed);
        assert!(matches!(slab.remove_as(0, handle, true), Removed::Now(_) | Removed::Later));
        reader.join().unwrap();
    });
}

/// All slots have values. The owner removes more than it keeps, and another thread takes one of the slots.
#[test]
fn a_list_hands_its_slots_over() {
    model(|| {
        let slab = Arc::new(Slab::new());
        let handles: [_; 8] =
            std::array::from_fn(|_| slab.insert_as(0, Watched::new(0)).ok().unwrap());
        let thief = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.insert_as(1, Watched::new(1)).ok().unwrap())
        };
        for handle in &handles[5..] {
            drop(slab.remove_as(0, *handle, true));
        }
        let theirs = thief.join().unwrap();
        assert_eq!((slab.get(theirs).unwrap().number(), slab.len()), (1, 6));
    });
}
