//! Lines of credit: when they are opened, refilled, drained and closed.

use crate::{
    advanced::budget::{
        Budget, Reservation,
        ledger::{UNLIMITED, credit::CREDIT_MOST, line::Line},
    },
    core::error::RefusedReason,
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
};

/// The most bytes of one request that a line is refilled or drained for.
const SMALL: usize = 16 << 10;

fn tree(limit: usize) -> (Budget, Budget, Budget) {
    let root = Budget::root("root").limit(limit).build().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.child(name).build().unwrap());
    (root, a, b)
}

fn free(budget: &Budget) -> usize {
    budget.node.line().free()
}

fn is_open(budget: &Budget) -> bool {
    budget.node.ledger()[budget.node.key()].is_open
}

/// Charges the node five times: the last charge opens the line.
fn open(budget: &Budget) -> Reservation {
    let mut held = budget.reservation();
    for _ in 0..5 {
        assert!(!is_open(budget), "it is opened after four charges");
        held.try_grow(1).unwrap();
    }
    held
}

fn check(root: &Budget, held: &[&Reservation]) {
    root.node.ledger().validate();
    let held: usize = held.iter().map(|held| held.size()).sum();
    assert_eq!(root.usage().used, held);
}

/// A child with a large reservation, whose line is open and has the most credit that any line is opened with.
fn full_line(child: &Budget) -> Reservation {
    let mut held = child.try_reserve(1 << 20).unwrap();
    let few = open(child);
    held.merge(few).unwrap();
    assert_eq!(free(child), CREDIT_MOST);
    held
}

#[test]
fn a_line_has_a_64th_of_the_limit_and_at_least_256_bytes() {
    for (limit, credit) in [((256 * 64) - 1, 0), (256 * 64, 256), (1 << 20, SMALL)] {
        let (root, a, _) = tree(limit);
        let held = open(&a);
        assert_eq!((free(&a), is_open(&a)), (credit, credit > 0));
        check(&root, &[&held]);
    }
}

#[test]
fn a_line_has_a_16th_of_the_room() {
    let (root, a, b) = tree(1 << 20);
    let most = b.try_reserve((1 << 20) - 1 - 16 * 300).unwrap();
    let held = open(&a);
    assert_eq!(free(&a), 299);
    check(&root, &[&most, &held]);
}

#[test]
fn a_small_request_refills_the_line_and_a_large_one_leaves_it_alone() {
    let (root, a, _) = tree(1 << 30);
    let mut held = full_line(&a);
    held.try_grow(CREDIT_MOST).unwrap();
    assert_eq!(free(&a), 0);
    held.try_grow(SMALL).unwrap();
    assert_eq!(free(&a), CREDIT_MOST);
    held.try_grow(CREDIT_MOST - 1).unwrap();
    held.try_grow(SMALL + 1).unwrap();
    assert_eq!(free(&a), 1);
    held.try_grow(2).unwrap();
    assert_eq!(free(&a), CREDIT_MOST);
    check(&root, &[&held]);
}

#[test]
fn a_small_release_drains_a_full_line_and_a_large_one_leaves_it_alone() {
    let (root, a, _) = tree(1 << 30);
    let mut held = full_line(&a);
    held.shrink(CREDIT_MOST);
    assert_eq!(free(&a), 2 * CREDIT_MOST, "it is full");
    held.shrink(SMALL + 1);
    assert_eq!(free(&a), 2 * CREDIT_MOST);
    held.shrink(SMALL);
    assert_eq!(free(&a), CREDIT_MOST);
    check(&root, &[&held]);
}

#[test]
fn a_full_line_with_the_least_credit_stays_open() {
    let (root, a, _) = tree(256 * 64);
    let mut held = open(&a);
    held.try_grow(400).unwrap();
    assert_eq!(free(&a), 256);
    held.shrink(300);
    assert_eq!(free(&a), 256, "only 256 more fitted in");
    check(&root, &[&held]);
}

#[test]
fn a_full_line_is_closed_where_there_is_no_room_for_credit() {
    let (root, a, b) = tree(1 << 30);
    let mut held = full_line(&a);
    held.shrink(CREDIT_MOST);
    let room = (1 << 30) - root.node.ledger()[root.node.key()].charged;
    let most = b.try_reserve(room - 1000).unwrap();
    assert_eq!(free(&a), 2 * CREDIT_MOST);
    held.shrink(1);
    assert_eq!((free(&a), is_open(&a)), (0, false));
    check(&root, &[&held, &most]);
}

/// A line that was opened while there was little room has no more credit than was returned to it.
#[test]
fn a_line_that_is_drained_has_only_credit_that_was_returned() {
    let (root, a, b) = tree(1 << 20);
    let most = b.try_reserve((1 << 20) - 1 - 16 * 300).unwrap();
    let mut held = open(&a);
    drop(most);
    held.merge(a.try_reserve(SMALL + 1).unwrap()).unwrap();
    assert_eq!(free(&a), 299);
    held.shrink(100);
    assert_eq!(free(&a), 399);
    check(&root, &[&held]);
}

#[test]
fn during_a_reclaim_no_bytes_become_credit() {
    let (root, a, b) = tree(1 << 30);
    let set_rounds = |rounds| root.node.ledger().rounds = rounds;
    let allow = |before, wanted| a.node.ledger().allow_stranded(a.node.key(), before, wanted);
    let mut held = full_line(&a);
    set_rounds(1);
    let mut other = b.reservation();
    for _ in 0..8 {
        other.try_grow(1).unwrap();
    }
    assert!(!is_open(&b), "no line is opened");
    held.try_grow(CREDIT_MOST).unwrap();
    held.try_grow(1).unwrap();
    assert_eq!(free(&a), 0, "none is refilled");
    held.shrink(2 * CREDIT_MOST);
    held.shrink(1);
    assert_eq!(free(&a), 2 * CREDIT_MOST, "none is drained");
    assert_eq!(allow(0, 1 << 10), 0, "buffers get none");
    set_rounds(0);
    assert_eq!(allow(0, 1 << 10), 1 << 10);
    assert_eq!(allow(1 << 10, 0), 0);
    other.try_grow(1).unwrap();
    assert!(is_open(&b));
    check(&root, &[&held, &other]);
}

#[test]
fn buffers_get_no_credit_while_a_request_waits() {
    let (root, a, _) = tree(1 << 20);
    let held = root.try_reserve(1 << 19).unwrap();
    let mut request = root.reserve(1 << 20).no_timeout();
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let allow = || a.node.ledger().allow_stranded(a.node.key(), 0, 1 << 10);
    assert_eq!(allow(), 0);
    drop(request);
    assert_eq!(allow(), 1 << 10);
    drop(held);
}

/// No line is a way around a lower limit, and none has credit out of proportion to it.
#[test]
fn a_limit_below_the_charged_bytes_or_below_half_of_the_last_one_closes_lines() {
    let (root, a, b) = tree(1 << 20);
    let held = open(&a);
    assert_eq!(free(&a), SMALL);
    root.set_limit(1 << 19).unwrap();
    assert_eq!(free(&a), SMALL, "half");
    root.set_limit((1 << 18) - 1).unwrap();
    assert!(!is_open(&a), "less than half");
    check(&root, &[&held]);
    root.set_limit(1 << 20).unwrap();
    let most = b.try_reserve(900_000).unwrap();
    let more = open(&a);
    let charged = root.node.ledger()[root.node.key()].charged;
    assert!(free(&a) > 0 && charged == 900_010 + free(&a));
    root.set_limit(charged).unwrap();
    assert!(is_open(&a), "it holds all that is charged");
    root.set_limit(charged - 1).unwrap();
    assert!(!is_open(&a));
    check(&root, &[&held, &most, &more]);
    root.set_limit(900_010).unwrap();
    let refused = a.try_reserve(1).expect_err("no credit is left");
    assert_eq!((refused.node, refused.reason), (root.id(), RefusedReason::OverLimit));
}

/// Bytes that are charged without a check take credit back where they exceed a limit, and only there.
#[test]
fn an_overdraft_of_nothing_leaves_credit_alone() {
    let (root, a, b) = tree(1 << 20);
    let held = open(&a);
    let charged = root.node.ledger()[root.node.key()].charged;
    let mut more = b.reservation();
    more.grow((1 << 20) - charged);
    assert!(is_open(&a), "the root has no byte too many");
    more.grow(1);
    assert!(!is_open(&a));
    check(&root, &[&held, &more]);
}

/// A limit recalls the credit of buffers from the node on down, where it is more than a 64th of the limit.
#[test]
fn a_limit_recalls_the_credit_of_buffers_that_is_beyond_its_share() {
    let (root, a, b) = tree(1 << 20);
    for budget in [&a, &b] {
        let node = &budget.node;
        assert_eq!(node.ledger().allow_stranded(node.key(), 0, 1 << 13), 1 << 13);
    }
    let recalls = || (a.node.recalls(), b.node.recalls());
    root.set_limit(1 << 20).unwrap();
    assert_eq!(recalls(), (0, 0), "a 64th of the limit");
    root.set_limit((1 << 20) - 1).unwrap();
    assert_eq!(recalls(), (1, 1));
    assert_eq!(a.node.ledger()[a.node.key()].limit, UNLIMITED);
    a.set_limit(1 << 20).unwrap();
    assert_eq!(recalls(), (2, 1), "less than half of no limit");
}

#[test]
fn a_line_has_between_nothing_and_its_most() {
    let line = Line::new();
    assert!(!line.take(0) && !line.give(0), "it is held");
    line.open(10, 15);
    assert!(line.take(10) && !line.take(1));
    assert!(!line.give(16) && line.give(14) && !line.give(2) && line.give(1));
    assert_eq!((line.free(), line.withdraw(), line.free()), (15, 15, 0));
}

/// Nodes whose buffered reservations have no credit any more make room for others.
#[test]
fn a_full_list_of_buffered_credit_is_cleaned() {
    let root = Budget::root("root").limit(1 << 30).build().unwrap();
    let nodes: Vec<_> = (0..65).map(|_| root.child("child").build().unwrap()).collect();
    let allow = |at: usize, before, wanted| {
        let node = &nodes[at].node;
        node.ledger().allow_stranded(node.key(), before, wanted)
    };
    assert!((0..64).all(|at| allow(at, 0, 1 << 10) == 1 << 10));
    assert_eq!(allow(64, 0, 1 << 10), 0, "64 nodes have some");
    assert_eq!(allow(3, 0, 1 << 10), 1 << 10, "one of them may have more");
    assert_eq!(allow(3, 1 << 10, 0), 0);
    assert_eq!(allow(7, 1 << 10, 0), 0);
    assert_eq!(allow(64, 0, 1 << 10), 1 << 10);
    root.node.ledger().validate();
}
