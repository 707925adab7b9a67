//! Changes of nodes, transfers, and figures of single nodes.

use crate::{
    advanced::budget::Budget,
    core::{ManualClock, Progress, ReclaimClass, Reclaimable, error::RefusedReason},
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

fn is_pending(request: &mut (impl Future + Unpin)) -> bool {
    Pin::new(request).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// A node in a context is counted as long as it is there.
#[test]
fn a_node_that_goes_is_no_node_of_a_context_any_more() {
    let root = Budget::root("root").build().unwrap();
    let child = root.child("child").build().unwrap();
    drop(child.node.tasks());
    assert!(root.node.ledger().knows_tasks());
    root.node.ledger().validate();
    drop(child);
    assert!(!root.node.ledger().knows_tasks());
    root.node.ledger().validate();
}

/// Bytes may still be held by a task that was there before the first context.
#[test]
fn a_node_that_was_charged_before_its_first_context_has_unknown_holders() {
    let root = Budget::root("root").build().unwrap();
    for bytes in [0, 1] {
        let child = root.child("child").build().unwrap();
        child.node.charge(bytes).unwrap();
        drop(child.node.tasks());
        let has_strangers = root.node.ledger().record(child.node.key()).shared.has_strangers();
        child.node.release(bytes);
        assert_eq!(has_strangers, bytes > 0);
    }
}

#[test]
fn a_node_has_an_overdraft_if_it_was_built_with_one() {
    let root = Budget::root("root").limit(10).overdraft(7).build().unwrap();
    let overdraft = root.overdraft().unwrap();
    drop(overdraft.try_reserve(7).unwrap());
    let refused = overdraft.try_reserve(8).expect_err("its limit is 7");
    assert_eq!((refused.reason, refused.limit), (RefusedReason::TooLarge, 7));
    assert!(overdraft.overdraft().is_none());
}

/// A request that managers gave nothing for is refused for good, and counted at every node of the path.
#[test]
fn a_refusal_after_a_reclaim_in_vain_is_counted() {
    let root = Budget::root("root").limit(10).build().unwrap();
    let child = root.child("child").build().unwrap();
    let held = root.try_reserve(10).unwrap();
    let manager = root.register_fn(
        "cache",
        ReclaimClass::Cache,
        || Reclaimable::new(0, 0),
        |_| Progress::freed(0),
    );
    assert!(child.try_reserve(1).is_err());
    assert_eq!((child.usage().refused, root.usage().refused), (1, 1));
    drop((manager, held));
}

#[test]
fn unused_guarantees_are_summed() {
    let root = Budget::root("root").limit(100).build().unwrap();
    let child = root.child("child").guarantee(20).build().unwrap();
    let grandchild = child.child("grandchild").guarantee(10).build().unwrap();
    let held = grandchild.try_reserve(3).unwrap();
    // The grandchild's guarantee is bytes that the child uses.
    assert_eq!((root.figures().undrawn, child.figures().undrawn), (10 + 7, 7));
    drop(held);
}

#[test]
fn a_node_at_its_limit_is_not_over_it() {
    let root = Budget::root("root").limit(100).build().unwrap();
    let child = root.child("child").build().unwrap();
    let held = child.try_reserve(100).unwrap();
    let is_over_limit = || root.node.ledger().is_over_limit(child.node.key());
    assert!(!is_over_limit());
    root.set_limit(99).unwrap();
    assert!(is_over_limit());
    drop(held);
}

/// In place of all that the node holds: beside the bytes of its siblings, and within its guarantee without more
/// bytes of its parent.
#[test]
fn a_node_could_hold_the_bytes_left_by_its_siblings() {
    let root = Budget::root("root").limit(100).build().unwrap();
    let a = root.child("a").guarantee(20).limit(50).build().unwrap();
    let b = root.child("b").build().unwrap();
    let mut held = b.try_reserve(40).unwrap();
    let own = a.try_reserve(10).unwrap();
    assert!(a.could_hold(50));
    assert!(!a.could_hold(51), "its limit");
    held.try_grow(20).unwrap();
    assert!(a.could_hold(40));
    assert!(!a.could_hold(41), "the root's limit");
    held.try_grow(20).unwrap();
    assert!(a.could_hold(20) && !a.could_hold(21), "its guarantee");
    drop((own, held));
}

/// A guarantee that is no larger than the bytes in use needs none of the parent, which may be closed.
#[test]
fn a_guarantee_can_be_lowered_below_a_closed_node() {
    let root = Budget::root("root").limit(100).build().unwrap();
    let child = root.child("child").guarantee(20).build().unwrap();
    root.close();
    child.set_guarantee(10).unwrap();
    assert_eq!(root.usage().used, 10);
    child.set_guarantee(11).expect_err("one byte of the root");
    root.node.ledger().validate();
}

/// Where no more bytes of a node are needed than the transfer releases there, no overdue request is passed.
#[test]
fn a_transfer_passes_an_overdue_request_only_with_bytes_that_it_releases() {
    for (guarantee, held, is_admitted) in [(0, 20, true), (19, 20, false), (5, 20, true)] {
        let clock = ManualClock::new();
        let root = Budget::root("root").limit(100).clock(&clock).build().unwrap();
        let from = root.child("from").guarantee(guarantee).build().unwrap();
        let to = root.child("to").guarantee(5).build().unwrap();
        let mut moved = from.try_reserve(held).unwrap();
        let mut request = root.reserve(100 - 5).no_timeout();
        assert!(is_pending(&mut request));
        clock.advance(Duration::from_millis(10));
        let answer = moved.try_transfer(&to);
        assert_eq!(answer.is_ok(), is_admitted, "{guarantee}");
        if let Err(refused) = answer {
            assert_eq!((refused.node, refused.reason), (root.id(), RefusedReason::Waiting));
        }
        root.node.ledger().validate();
        drop((request, moved));
    }
}

/// The same at a node below the root, whose guarantee covers all bytes.
#[test]
fn a_transfer_within_a_guarantee_passes_no_request_of_the_node_that_has_it() {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(200).clock(&clock).build().unwrap();
    let middle = root.child("middle").guarantee(100).limit(100).build().unwrap();
    let [a, b] = ["a", "b"].map(|name| middle.child(name).build().unwrap());
    let mut held = a.try_reserve(50).unwrap();
    let rest = middle.try_reserve(30).unwrap();
    let mut request = middle.reserve(80).no_timeout();
    assert!(is_pending(&mut request));
    clock.advance(Duration::from_millis(10));
    held.try_transfer(&b).expect("the node is charged no more than before");
    let refused = b.try_reserve(1).expect_err("the request is overdue");
    assert_eq!((refused.node, refused.reason), (middle.id(), RefusedReason::Waiting));
    root.node.ledger().validate();
    drop((request, held, rest));
}
