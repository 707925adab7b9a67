use super::{SHARDS, Slab};
use crate::advanced::lockfree::slab::kept::MOST;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    vec::Vec,
};

#[test]
fn a_slot_without_generations_left_is_retired() {
    let slab = Slab::new();
    let first = slab.insert('a');
    slab.slot(first).unwrap().set_generation(u32::MAX);
    assert!(!slab.contains(first));
    let last = super::Handle::new(u32::try_from(first.index()).unwrap(), u32::MAX);
    assert_eq!(slab.take(last), Some('a'));
    assert!((0..100).all(|_| slab.insert('b').index() != first.index()));
    assert!(!slab.contains(first) && !slab.contains(last));
}

#[test]
fn a_bounded_slab_has_another_slot_for_one_that_is_retired() {
    let slab = Slab::bounded(1);
    for _ in 0..20 {
        let first = slab.insert('a');
        assert!(slab.try_insert('b').is_err());
        slab.slot(first).unwrap().set_generation(u32::MAX);
        let last = super::Handle::new(u32::try_from(first.index()).unwrap(), u32::MAX);
        assert_eq!(slab.take(last), Some('a'));
    }
}

/// Before the slab grows, a thread finds the vacant slots of other threads, except the slots that they keep for
/// themselves.
#[test]
fn vacant_slots_of_all_shards_are_found() {
    let slab = Slab::new();
    // The slots of the first four blocks: 8 + 16 + 32 + 64. Each thread takes eight at once.
    let handles: Vec<_> =
        (0..120).map(|at| slab.insert_as(usize::from(at < 64), at).unwrap()).collect();
    for (at, handle) in handles.iter().enumerate() {
        slab.remove_as(at % 3, *handle, true);
    }
    assert!(slab.is_empty());
    let before: BTreeSet<_> = handles.iter().map(|handle| handle.index()).collect();
    let mut found = BTreeSet::new();
    loop {
        let index = slab.insert_as(SHARDS, 0).unwrap().index();
        if !before.contains(&index) {
            break;
        }
        assert!(found.insert(index), "each slot once");
    }
    assert!(found.len() >= 120 - 2 * MOST, "{} of 120", found.len());
    assert_eq!(slab.len(), found.len() + 1);
}

/// What a value does when it is dropped.
struct Does(Option<std::boxed::Box<dyn FnOnce() + Send>>);

// SAFETY: nobody uses it but the drop.
unsafe impl Sync for Does {}

impl Drop for Does {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

#[test]
fn a_drop_may_use_the_slab_and_panic() {
    let slab = Arc::new(Slab::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let value = |panics: bool| {
        let (slab, seen) = (Arc::downgrade(&slab), Arc::clone(&seen));
        Does(Some(std::boxed::Box::new(move || {
            let slab = slab.upgrade().unwrap();
            let inner = slab.insert(Does(None));
            seen.lock().unwrap().push(inner.index());
            assert!(slab.remove(inner));
            assert!(!panics, "as planned");
        })))
    };
    let handle = slab.insert(value(false));
    assert!(slab.remove(handle));
    assert_eq!(*seen.lock().unwrap(), [handle.index()], "its slot is vacant already");
    for is_pinned in [false, true] {
        let handle = slab.insert(value(true));
        let guard = is_pinned.then(|| slab.get_owned(handle).unwrap());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            assert!(slab.remove(handle));
            drop(guard);
        }));
        assert!(outcome.is_err());
        assert_eq!(slab.len(), 0);
        // The slot was not lost.
        let again = slab.insert(Does(None));
        assert_eq!(again.index(), handle.index());
        assert!(slab.remove(again));
    }
}
