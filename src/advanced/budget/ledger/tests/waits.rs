//! Requests that wait: the ledger's records of them, their refusals, and their order.

use super::{
    super::{Due, Fetched, Node, Request, wait::Enqueued},
    noop,
};
use crate::{
    advanced::budget::{Budget, Reservation},
    core::{
        ManualClock, Priority,
        error::{ReclaimFailure, RefusedReason},
    },
    integration::traits::context::WaitId,
};
use core::time::Duration;
use std::{io, time::Instant, vec::Vec};

/// A budget of ten bytes, all of which are held.
fn full() -> (Budget, Reservation) {
    let root = Budget::root("root").limit(10).build().unwrap();
    let held = root.try_reserve(10).unwrap();
    (root, held)
}

fn enqueue(node: &Node, bytes: usize, priority: Priority) -> WaitId {
    let now = Instant::now();
    let deadline = Some(now + Duration::from_secs(3600));
    let request = Request { key: node.key(), bytes, priority: Some(priority), now, deadline };
    let enqueued = node.ledger().enqueue(request, &mut noop());
    let Ok(Some(Enqueued { id, .. })) = enqueued else { panic!("there is no room") };
    id
}

/// The deadline of a request that ends early may stay for a while. The number of such deadlines is bounded.
#[test]
fn deadlines_of_requests_that_are_gone_are_forgotten() {
    const MANY: usize = if cfg!(miri) { 80 } else { 300 };
    let (root, held) = full();
    for (requests, rest) in [(MANY, MANY / 15), (MANY, 0), (MANY + 1, 0), (10, 10)] {
        let waits: Vec<_> =
            (0..requests).map(|_| enqueue(&root.node, 1, Priority::Normal)).collect();
        for id in &waits[rest..] {
            root.node.ledger().withdraw(*id).wake();
        }
        // It counts the deadlines that are kept.
        root.node.ledger().validate();
        waits[..rest].iter().for_each(|id| root.node.ledger().withdraw(*id).wake());
    }
    drop(held);
}

#[test]
fn a_refusal_names_the_failure_of_the_manager_that_was_asked_for_it_alone() {
    let (root, held) = full();
    let disk = ReclaimFailure::from(&io::Error::from(io::ErrorKind::StorageFull));
    let refused = |failed: bool| {
        let id = enqueue(&root.node, 1, Priority::Normal);
        let number = if failed { id.number } else { id.number - 1 };
        root.node.ledger().waiters.note_failure(id.slot, number, disk);
        root.node.ledger().refuse(id, RefusedReason::TimedOut).wake();
        let answer = root.node.ledger().fetch(id, &mut noop());
        let Fetched::Answer(Err(refused)) = answer else { panic!("it was refused") };
        refused.failure.map(|failure| failure.kind())
    };
    assert_eq!(refused(true), Some(io::ErrorKind::StorageFull));
    // The manager answers too late: another request has the place of the one that it was asked for.
    assert_eq!(refused(false), None);
    drop(held);
}

/// The one that does not fit has the higher priority. The others began to wait before it.
#[test]
fn sixteen_requests_of_a_lower_priority_pass_one_that_does_not_fit() {
    let root = Budget::root("root").limit(100).clock(&ManualClock::new()).build().unwrap();
    let mut held = root.try_reserve(100).unwrap();
    let waits: Vec<_> = (0..20).map(|_| enqueue(&root.node, 1, Priority::Low)).collect();
    let large = enqueue(&root.node, 90, Priority::High);
    let mut served = 0;
    for id in &waits {
        held.shrink(1);
        let answer = root.node.ledger().fetch(*id, &mut noop());
        served += usize::from(matches!(answer, Fetched::Answer(Ok(()))));
    }
    assert_eq!(served, 16);
    drop(held);
    root.node.release(served);
    for (id, bytes) in [(large, 90)].into_iter().chain(waits[served..].iter().map(|id| (*id, 1))) {
        let answer = root.node.ledger().fetch(id, &mut noop());
        assert!(matches!(answer, Fetched::Answer(Ok(()))));
        root.node.release(bytes);
    }
}

/// Whoever comes later with a higher priority goes first, but not for ever.
#[test]
fn a_request_that_waits_for_long_rises_up_to_the_high_ones() {
    let (root, held) = full();
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let low = enqueue(&root.node, 10, Priority::Low);
    let high = enqueue(&root.node, 10, Priority::High);
    let critical = enqueue(&root.node, 10, Priority::Critical);
    let age = |seconds: u32| {
        // The requests began to wait a moment after `start`.
        let now = start + second * seconds + second / 2;
        loop {
            let due = root.node.ledger().take_due(now);
            let Some(due) = due else { break };
            let Due::Answered(woken) = due else { panic!("nothing is reported") };
            woken.wake();
            root.node.ledger().validate();
        }
    };
    let is_granted =
        |id: WaitId| matches!(root.node.ledger().fetch(id, &mut noop()), Fetched::Answer(Ok(())));
    let release = || root.node.release(10);

    age(1);
    drop(held);
    assert!(is_granted(critical), "the highest goes first");
    release();
    assert!(is_granted(high), "the low one is a normal one now");

    let later = enqueue(&root.node, 10, Priority::High);
    let critical = enqueue(&root.node, 10, Priority::Critical);
    age(5);
    release();
    assert!(is_granted(critical), "nothing rises so high");
    release();
    assert!(is_granted(low), "it waits for longer");
    release();
    assert!(is_granted(later));
    release();
    root.node.ledger().validate();
}
