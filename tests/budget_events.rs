//! What those who observe a tree are told, and what they cannot do to it.

#[path = "common/gives.rs"]
mod gives;

use gives::Gives;
use nebula_memory::{
    Budget, MemoryError, PressureLevel, Reservation,
    core::{Progress, ReclaimTicket, RefusedReason},
    integration::traits::{Event, EventKind, EventQueue},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread,
};

fn observed(limit: usize, capacity: usize) -> (Budget, Arc<EventQueue>) {
    let events = Arc::new(EventQueue::new(capacity));
    let budget = Budget::root("process").limit(limit).workers(8).events(&events).build().unwrap();
    (budget, events)
}

fn all(events: &EventQueue) -> Vec<(EventKind, String, usize)> {
    let told = Mutex::new(Vec::new());
    events.deliver(&|event: &Event| {
        told.lock().unwrap().push((event.kind, event.component.to_string(), event.requested));
    });
    told.into_inner().unwrap()
}

#[test]
fn a_refusal_names_the_node_that_was_asked() {
    let (process, events) = observed(1000, 10);
    let tenant = process.child("tenant").build().unwrap();
    let held = tenant.try_reserve(900).unwrap();
    tenant.try_reserve(200).unwrap_err();
    assert_eq!(all(&events), [(EventKind::Refused, "tenant".to_owned(), 200)]);
    drop(held);
    tenant.try_reserve_spare(2000).unwrap_err();
    assert_eq!(all(&events), [], "who asks for what is spare expects a refusal");
}

#[test]
fn a_wait_is_told_when_it_begins_and_a_deadlock_when_it_ends_it() {
    let events = Arc::new(EventQueue::new(10));
    let process = Budget::root("process").limit(1000).workers(1).events(&events).build().unwrap();
    let held = process.try_reserve(900).unwrap();
    let refused = process.reserve_blocking(200).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    assert_eq!(
        all(&events),
        [
            (EventKind::Waiting, "process".to_owned(), 200),
            (EventKind::Deadlock, "process".to_owned(), 200)
        ]
    );
    drop(held);
}

#[test]
fn what_a_manager_gave_back_is_told_as_the_counters_saw_it() {
    let (process, events) = observed(1000, 10);
    let all_of_it = |_: &ReclaimTicket, held: &Mutex<Reservation>| {
        Progress::freed(held.lock().unwrap().shrink(usize::MAX))
    };
    let _warm = Gives::register(&process, 800, true, all_of_it).unwrap();
    let urgent = process.try_reserve(500).unwrap();
    assert_eq!(all(&events), [(EventKind::Reclaimed, "gives".to_owned(), 800)]);
    drop(urgent);
}

/// An observer that panics, or reserves itself, is on the host's own thread: the ledger is not.
#[test]
fn an_observer_that_panics_or_comes_back_breaks_nothing() {
    let (process, events) = observed(1000, 10);
    process.try_reserve(2000).unwrap_err();
    process.try_reserve(3000).unwrap_err();
    let panics = |_: &Event| panic!("a bug of the observer's");
    catch_unwind(AssertUnwindSafe(|| events.deliver(&panics))).unwrap_err();
    let comes_back = |_: &Event| {
        process.try_reserve(4000).unwrap_err();
    };
    assert_eq!(events.deliver(&comes_back).delivered, 1);
    assert_eq!(all(&events).len(), 1, "what it caused itself waits for the next time");
    drop(process.try_reserve(1000).unwrap());
}

/// A host that never asks costs the events, and nothing else.
#[test]
fn a_queue_that_nobody_empties_keeps_the_newest() {
    let (process, events) = observed(1000, 4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| drop(process.try_reserve(2000))));
        }
    });
    let delivery = events.deliver(&|_: &Event| ());
    assert_eq!((delivery.delivered, delivery.dropped), (4, 396));
    assert_eq!(process.usage().used, 0);
}

#[test]
fn only_a_root_has_events() {
    let (process, events) = observed(1000, 4);
    let error = process.child("tenant").events(&events).build().unwrap_err();
    assert!(matches!(error, MemoryError::Config(_)), "{error}");
    assert!(error.to_string().contains("budget.events"), "{error}");
}

#[test]
fn events_print_as_sentences() {
    let label = nebula_memory::core::Label::new("tenant");
    let text = |kind| Event::new(label, kind, PressureLevel::Critical, 2048).to_string();
    assert_eq!(text(EventKind::Waiting), "tenant waits for 2.0 KiB at critical pressure");
    assert_eq!(text(EventKind::Reclaimed), "tenant gave back 2.0 KiB at critical pressure");
    assert_eq!(
        text(EventKind::Deadlock),
        "tenant waited for 2.0 KiB in a deadlock, and was refused"
    );
}
