//! The registry of managers: managers that were dropped, and managers that rest.

use crate::{
    advanced::budget::{
        Budget,
        ledger::{Candidate, Cursor, Registered},
    },
    core::{ManualClock, MemoryManager, Progress, ReclaimClass, Reclaimable},
};
use core::{sync::atomic::Ordering, time::Duration};
use std::{sync::Arc, vec::Vec};

const CACHE: ReclaimClass = ReclaimClass::Cache;

const MS: Duration = Duration::from_millis(1);

fn manager(budget: &Budget, class: ReclaimClass) -> Arc<dyn MemoryManager> {
    let reclaimable = || Reclaimable::new(0, 0);
    budget.register_fn("manager", class, reclaimable, |_| Progress::freed(0))
}

/// The managers of a class at and below a node, in the order in which they are asked.
fn candidates(budget: &Budget, class: ReclaimClass, rests: bool) -> Vec<Candidate> {
    let key = budget.node.key();
    let mut ledger = budget.node.ledger();
    let mut cursor = Cursor::new(&ledger, key, class, rests);
    let mut found = Vec::new();
    loop {
        let some = ledger.candidates(None, &mut cursor);
        if some.is_empty() {
            ledger.validate();
            return found;
        }
        found.extend(some);
    }
}

/// Returns the number of managers that are registered at the node, including managers that were dropped.
fn listed(budget: &Budget) -> usize {
    let ledger = budget.node.ledger();
    ledger.validate();
    ledger.managers_of(budget.node.key()).count()
}

#[test]
fn managers_that_are_gone_are_taken_out_once_there_are_eight_and_whenever_the_list_has_doubled() {
    let root = Budget::root("root").build().unwrap();
    let mut kept = Vec::new();
    for count in 1..=8 {
        let gone = manager(&root, CACHE);
        kept.push(gone);
        kept.truncate(1);
        assert_eq!(listed(&root), count, "too few for a look at all");
    }
    for count in 2..=8 {
        kept.push(manager(&root, CACHE));
        assert_eq!((kept.len(), listed(&root)), (count, count));
    }
    kept.pop();
    kept.push(manager(&root, CACHE));
    assert_eq!(listed(&root), 8, "one of eight was gone");
    kept.push(manager(&root, CACHE));
    kept.pop();
    kept.push(manager(&root, CACHE));
    assert_eq!(listed(&root), 10, "there are not twice as many yet");
}

#[test]
fn managers_that_are_gone_are_no_candidates_and_are_taken_out_when_they_are_found() {
    let root = Budget::root("root").build().unwrap();
    let [first, second, third] = [(); 3].map(|()| manager(&root, CACHE));
    drop(second);
    assert_eq!(listed(&root), 3);
    assert_eq!(candidates(&root, CACHE, false).len(), 2);
    assert_eq!(listed(&root), 2);
    drop((first, third));
    assert!(root.node.ledger().has_managers(root.node.key()));
    assert_eq!(candidates(&root, CACHE, false).len(), 0);
    assert!(!root.node.ledger().has_managers(root.node.key()));
}

/// Managers that are gone are removed from the list of their node between two batches, which moves the others.
#[test]
fn managers_are_collected_in_batches_of_32_and_none_is_left_out_after_some_that_are_gone() {
    let root = Budget::root("root").build().unwrap();
    let mut managers: Vec<_> = (0..35).map(|_| manager(&root, CACHE)).collect();
    managers.drain(..2);
    let mut ledger = root.node.ledger();
    let mut cursor = Cursor::new(&ledger, root.node.key(), CACHE, false);
    let batches = [(); 3].map(|()| {
        let batch = ledger.candidates(None, &mut cursor);
        ledger.validate();
        batch.len()
    });
    assert_eq!(batches, [32, 1, 0]);
}

/// The path of the requester comes first. Nothing can be taken from a node that borrows nothing.
#[test]
fn each_node_that_borrows_is_visited_once_and_a_node_that_borrows_nothing_is_not() {
    let root = Budget::root("root").build().unwrap();
    let nodes = [0, 20, 10, 30].map(|bytes| {
        let node = root.child("tenant").build().unwrap();
        (manager(&node, CACHE), node.try_reserve(bytes).unwrap(), node)
    });
    let key = |at: usize| nodes[at].2.node.key();
    let mut ledger = root.node.ledger();
    let mut cursor = Cursor::new(&ledger, root.node.key(), CACHE, false);
    let found = ledger.candidates(Some(key(2)), &mut cursor);
    let found: Vec<_> = found.iter().map(|found| (found.key, found.borrowed)).collect();
    assert_eq!(found, [(key(2), None), (key(3), Some(30)), (key(1), Some(20))]);
}

#[test]
fn a_manager_knows_how_often_it_gave_nothing() {
    let root = Budget::root("root").build().unwrap();
    let manager = manager(&root, CACHE);
    let registered = Registered::new(Arc::downgrade(&manager), CACHE);
    assert_eq!(registered.failures(), 0);
    registered.strikes.store(3, Ordering::Relaxed);
    assert_eq!(registered.failures(), 3);
}

/// The rest takes a millisecond at first, and is doubled each time up to 128 ms.
#[test]
fn a_manager_rests_twice_as_long_each_time() {
    let root = Budget::root("root").build().unwrap();
    let manager = manager(&root, CACHE);
    let (key, at) = (root.node.key(), candidates(&root, CACHE, false)[0].at);
    let rests = || {
        let ledger = root.node.ledger();
        ledger.validate();
        let rests = ledger.registry.rests();
        assert_eq!(ledger.has_managers_in(key, CACHE, true), rests);
        assert_eq!(ledger.has_managers_in(key, CACHE, false), !rests);
        rests
    };
    let mut now = ManualClock::new().now();
    for round in 0..2 {
        for times in [1, 2, 4, 8, 16, 32, 64, 128, 128] {
            assert!(!rests());
            root.node.ledger().set_resting(at, key, true, now);
            assert!(rests());
            let end = now + times * MS;
            root.node.ledger().end_rests(end - Duration::from_nanos(1));
            assert!(rests(), "{times} {round}");
            root.node.ledger().end_rests(end);
            assert!(!rests(), "{times} {round}");
            now = end;
        }
        root.node.ledger().set_resting(at, key, true, now);
        assert_eq!(candidates(&root, CACHE, false).len(), 0);
        assert_eq!(candidates(&root, CACHE, true).len(), 1);
        // It has something to give: the next rest is a short one.
        root.node.ledger().set_resting(at, key, false, now);
    }
    drop(manager);
}

#[test]
fn a_manager_rests_anew_where_it_rests_already() {
    let root = Budget::root("root").build().unwrap();
    let manager = manager(&root, CACHE);
    let (key, at) = (root.node.key(), candidates(&root, CACHE, false)[0].at);
    let now = ManualClock::new().now();
    for _ in 0..2 {
        root.node.ledger().set_resting(at, key, true, now);
        root.node.ledger().validate();
    }
    root.node.ledger().end_rests(now + MS);
    assert!(root.node.ledger().registry.rests(), "the second rest takes longer");
    // An index may be another manager's meanwhile, of another node.
    let child = root.child("child").build().unwrap();
    root.node.ledger().set_resting(at, child.node.key(), false, now);
    assert!(root.node.ledger().registry.rests());
    root.node.ledger().set_resting(at + 1, key, false, now);
    root.node.ledger().validate();
    drop(manager);
    assert_eq!(candidates(&root, CACHE, true).len(), 0);
    assert!(!root.node.ledger().registry.rests(), "a manager that is gone rests no more");
}

/// Bytes are counted in classes, four to each power of two.
#[test]
fn a_charge_of_two_classes_ends_the_rest_of_all_managers_of_the_node() {
    let root = Budget::root("root").build().unwrap();
    let child = root.child("child").build().unwrap();
    let managers: Vec<_> = ReclaimClass::ALL.iter().map(|class| manager(&child, *class)).collect();
    let (key, now) = (child.node.key(), ManualClock::new().now());
    let mut held = child.reservation();
    for bytes in [0, 1 << 10] {
        held.grow(bytes);
        for class in ReclaimClass::ALL {
            let at = candidates(&child, *class, false)[0].at;
            child.node.ledger().set_resting(at, key, true, now);
        }
        // A quarter more is one class.
        held.grow(bytes / 4);
        let rests = |class: &ReclaimClass| child.node.ledger().has_managers_in(key, *class, true);
        assert!(ReclaimClass::ALL.iter().all(rests), "with {bytes}");
        held.grow((bytes / 4).max(1));
        assert!(!ReclaimClass::ALL.iter().any(rests), "with {bytes}");
        held.shrink(usize::MAX);
        child.node.ledger().validate();
    }
    drop((managers, held));
}
