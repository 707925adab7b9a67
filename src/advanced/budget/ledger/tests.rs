//! Operations on a ledger, with lines open and without, against plain sums.

mod lines;
mod managers;
mod nodes;
mod requests;
mod waits;
mod world;

use super::{Sharing, TaskWaker};
use crate::{
    advanced::budget::{Budget, Reserve},
    core::{ManualClock, Priority, SharePolicy, error::RefusedReason},
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};
use std::vec::Vec;

/// A waker that wakes nobody.
fn noop() -> TaskWaker {
    TaskWaker { token: None, waker: Waker::noop().clone() }
}

/// While a sibling's request waits a child is admitted within its share, and refused beyond it.
#[test]
fn a_child_beyond_its_share_is_refused_while_a_sibling_waits() {
    // By hand: the request is not to become overdue on a slow machine.
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).policy(SharePolicy::FairAdmission).clock(&clock);
    let root = root.build().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.child(name).build().unwrap());
    let held = [a.try_reserve(60).unwrap(), b.try_reserve(10).unwrap()];
    drop(a.try_reserve(30).expect("nobody waits"));
    let mut request = b.reserve(31).no_timeout();
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let refused = a.try_reserve(1).expect_err("60 of a share of 50 are held");
    assert_eq!((refused.node, refused.reason), (a.id(), RefusedReason::OverShare));
    drop(b.try_reserve(30).expect("within its share"));
    drop(root.try_reserve(1).expect("no child's"));
    drop((request, held));
}

/// A shared reservation has an account of its own, which is none of the children that the limit is divided
/// among.
#[test]
fn a_shared_reservation_takes_no_share() {
    let process = Budget::root("process").limit(1000).policy(SharePolicy::Fair).build().unwrap();
    let [a, b] = ["a", "b"].map(|name| process.child(name).build().unwrap());
    let held = [a.try_reserve(10).unwrap(), b.try_reserve(10).unwrap()];
    assert_eq!(a.share(), Some(500));
    let shared = process.shared_reservation();
    shared.try_grow(10).unwrap();
    assert_eq!(a.share(), Some(500));
    drop((shared, held));
}

/// A request is overdue after 10 ms of the tree's clock, not of another one.
#[test]
fn a_request_is_overdue_by_the_trees_clock() {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).clock(&clock).build().unwrap();
    let mut held = root.try_reserve(100).unwrap();
    let mut first = root.reserve(60).no_timeout();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut first).poll(&mut context).is_pending());
    held.shrink(50);
    drop(root.try_reserve(10).expect("it passes the first one"));
    clock.advance(Duration::from_millis(10));
    let refused = root.try_reserve(10).expect_err("the first one is overdue");
    assert_eq!(refused.reason, RefusedReason::Waiting);
    held.shrink(10);
    assert!(Pin::new(&mut first).poll(&mut context).is_ready());
}

/// A request that is overdue at the root keeps others back there, until bytes that nobody admitted are in its
/// way at its own node.
#[test]
fn an_overdraft_lets_requests_behind_an_overdue_one_go_on() {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).clock(&clock).build().unwrap();
    let child = root.child("child").limit(60).build().unwrap();
    let held = root.try_reserve(50).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut first = child.reserve(60).no_timeout();
    assert!(Pin::new(&mut first).poll(&mut context).is_pending());
    clock.advance(Duration::from_millis(10));
    let mut second = root.reserve(10).no_timeout();
    assert!(Pin::new(&mut second).poll(&mut context).is_pending(), "the first one is overdue");
    let mut grown = child.reservation();
    grown.grow(1);
    assert!(Pin::new(&mut second).poll(&mut context).is_ready(), "it waits at its node");
    drop((first, second, held, grown));
}

/// The same, where the request is kept back at its own node by one that an admission has found to be overdue.
#[test]
fn a_refused_admission_lets_requests_at_the_root_go_on() {
    for waits in [false, true] {
        let clock = ManualClock::new();
        let root = Budget::root("root").limit(100).clock(&clock).build().unwrap();
        let child = root.child("child").limit(60).build().unwrap();
        let held = (root.try_reserve(60).unwrap(), child.try_reserve(30).unwrap());
        let mut context = Context::from_waker(Waker::noop());
        let mut begin = |request: Reserve| {
            let mut request = request.no_timeout();
            let is_ready = Pin::new(&mut request).poll(&mut context).is_ready();
            (request, is_ready)
        };
        let (first, _) = begin(child.reserve(40).priority(Priority::High));
        let (second, _) = begin(child.reserve(20));
        clock.advance(Duration::from_millis(10));
        let (mut third, is_ready) = begin(root.reserve(5).priority(Priority::Low));
        assert!(!is_ready, "the second one is overdue at the root");
        let last = if waits {
            let (last, is_ready) = begin(child.reserve(1));
            assert!(!is_ready);
            Some(last)
        } else {
            let refused = child.try_reserve(1).expect_err("the first one is overdue");
            assert_eq!(refused.reason, RefusedReason::Waiting);
            None
        };
        assert!(Pin::new(&mut third).poll(&mut context).is_ready(), "the second one waits below");
        drop((first, second, third, last, held));
    }
}

/// A request beyond its share that begins to wait has its turn at once, where no sibling within its share waits.
#[test]
fn a_request_beyond_its_share_is_served_where_it_is_next() {
    // By hand: no request is to become overdue on a slow machine.
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).policy(SharePolicy::FairAdmission).clock(&clock);
    let root = root.build().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.child(name).build().unwrap());
    let held = b.try_reserve(30).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut large = b.reserve(80).no_timeout();
    assert!(Pin::new(&mut large).poll(&mut context).is_pending());
    let mut next = a.reserve(60).no_timeout();
    let _ = Pin::new(&mut next).poll(&mut context);
    assert!(Pin::new(&mut next).poll(&mut context).is_ready(), "70 bytes are free");
    drop((large, next, held));
}

/// A child that begins to wait takes part in the division: a sibling that bytes were kept for is beyond its share.
#[test]
fn a_new_waiter_lets_a_request_kept_back_for_a_sibling_go_on() {
    // By hand: no request is to become overdue on a slow machine.
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(90).policy(SharePolicy::FairAdmission).clock(&clock);
    let root = root.build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| root.child(name).build().unwrap());
    let held = (b.try_reserve(45).unwrap(), root.try_reserve(15).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let mut begin = |budget: &Budget, bytes| {
        let mut request = budget.reserve(bytes).no_timeout();
        assert!(Pin::new(&mut request).poll(&mut context).is_pending());
        request
    };
    let first = begin(&a, 45);
    let mut second = begin(&b, 30);
    let third = begin(&c, 31);
    assert!(Pin::new(&mut second).poll(&mut context).is_ready(), "a has a third of 90, not 45");
    drop((first, second, third, held));
}

/// A request that is overdue keeps bytes of the node at which it does not fit, and no others: one behind it
/// whose bytes a guarantee covers is granted.
#[test]
fn an_overdue_request_keeps_no_guaranteed_bytes() {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).clock(&clock).build().unwrap();
    let child = root.child("child").guarantee(20).limit(30).build().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut held = child.try_reserve(28).unwrap();
    let mut first = child.reserve(25).no_timeout();
    assert!(Pin::new(&mut first).poll(&mut context).is_pending());
    let mut second = child.reserve(5).no_timeout();
    assert!(Pin::new(&mut second).poll(&mut context).is_pending());
    clock.advance(Duration::from_millis(10));
    held.shrink(8);
    assert!(Pin::new(&mut second).poll(&mut context).is_pending(), "kept for the first one");
    let other = root.try_reserve(80).unwrap();
    drop(held);
    assert!(
        Pin::new(&mut first).poll(&mut context).is_pending(),
        "five bytes of the root are missing"
    );
    assert!(Pin::new(&mut second).poll(&mut context).is_ready(), "none is");
    drop(other);
    assert!(Pin::new(&mut first).poll(&mut context).is_ready());
}

/// A root of a mebibyte with two children. The first has more than 100 bytes of credit.
fn root_and_line() -> (Budget, Budget, Budget) {
    let root = Budget::root("root").limit(1 << 20).build().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.child(name).build().unwrap());
    for _ in 0..8 {
        drop(a.try_reserve(1).unwrap());
    }
    assert!(a.node.line().free() > 100);
    (root, a, b)
}

/// Nothing is admitted at a node that is overdrawn, also not out of credit that was charged before.
#[test]
fn an_overdraft_takes_all_credit_back() {
    let (root, a, b) = root_and_line();
    let mut held = b.reservation();
    held.grow((1 << 20) + 1);
    let refused = a.try_reserve(1).expect_err("the root is overdrawn");
    assert_eq!((refused.node, refused.reason), (root.id(), RefusedReason::OverLimit));
    held.shrink(2);
    drop(a.try_reserve(1).expect("one byte is free"));
}

/// Unused credit of a line is no overdraft.
#[test]
fn an_overdraft_is_of_reserved_bytes() {
    let (root, _a, b) = root_and_line();
    let mut held = b.reservation();
    held.grow((1 << 20) - 100);
    assert_eq!((root.usage().used, root.usage().overdraft), ((1 << 20) - 100, 0));
    held.grow(101);
    assert_eq!(root.usage().overdraft, 1);
}

/// A tree has 64 lines at most. One that is not used goes to a node that would use it; one that is used stays.
#[test]
fn a_line_goes_to_the_node_that_uses_it() {
    let root = Budget::root("root").limit(1 << 30).build().unwrap();
    let nodes: Vec<_> = (0..65).map(|_| root.child("child").build().unwrap()).collect();
    let is_open = |at: usize| nodes[at].node.line().free() > 0;
    for node in &nodes[..64] {
        for _ in 0..8 {
            drop(node.try_reserve(1).unwrap());
        }
    }
    assert!((0..64).all(is_open));
    let mut busy = nodes[0].reservation();
    let mut late = nodes[64].reservation();
    for n in 0..10_000 {
        assert!(n < 9_999, "no line is free");
        if is_open(64) {
            break;
        }
        busy.try_grow(1).unwrap();
        late.try_grow(1).unwrap();
    }
    assert!(is_open(0), "it is used all the time");
    assert_eq!((0..65).filter(|at| is_open(*at)).count(), 64);
    root.node.ledger().validate();
    assert_eq!(root.usage().used, busy.size() + late.size());
}

/// Buffered reservations have unused credit, within a 64th of the limit, unless requests wait.
#[test]
fn buffered_credit_is_for_when_no_request_waits() {
    let root = Budget::root("root").limit(1 << 20).build().unwrap();
    let (a, b) = (root.child("a").build().unwrap(), root.child("b").build().unwrap());
    let allow = |budget: &Budget, before, wanted| {
        let node = &budget.node;
        let most = node.ledger().allow_stranded(node.key(), before, wanted);
        node.ledger().validate();
        most
    };
    let share = (1 << 20) / 64;
    assert_eq!(allow(&a, 0, 10_000), 10_000);
    assert_eq!(allow(&b, 0, 10_000), share - 10_000, "beside that of the other");
    assert_eq!(allow(&a, 10_000, 1 << 10), 1 << 10, "as little as that is worth it");
    assert_eq!(allow(&a, 1 << 10, (1 << 10) - 1), 0, "less is not");
    let held = root.try_reserve(1 << 20).unwrap();
    let mut request = root.reserve(1).no_timeout();
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    assert_eq!(allow(&b, share - 10_000, 0), 0);
    drop(request);
    let held = root.try_reserve(1 << 20).unwrap();
    let mut request = root.reserve(1).no_timeout();
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(allow(&a, 0, 1 << 10), 0);
    drop((request, held));
}

/// Figures and counters go up the path, and reports are read in steps of any length.
#[test]
fn figures_are_read_in_steps() {
    let root = Budget::root("root").limit(1000).priority(Priority::High).build().unwrap();
    let nodes: Vec<_> = (0..5).map(|_| root.child("child").build().unwrap()).collect();
    let held: Vec<_> = (1..).zip(&nodes).map(|(n, node)| node.try_reserve(n).unwrap()).collect();
    assert_eq!(nodes[0].priority(), Priority::High);
    let mut ledger = root.node.ledger();
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let mut some = Vec::with_capacity(2);
        from = ledger.read_some(root.node.key(), at, &mut some);
        assert!(some.len() <= 2);
        seen.extend(some.iter().map(|reading| (reading.key, reading.usage.used)));
    }
    let keys = core::iter::once(&root).chain(&nodes).map(|budget| budget.node.key());
    assert!(seen.iter().copied().eq(keys.zip([15, 1, 2, 3, 4, 5])));
    let (mut largest, mut from) = (0, Some(0));
    while let Some(at) = from {
        let visit = |_, bytes: usize, _: &_| largest = bytes.max(largest);
        from = ledger.holders_in(root.node.key(), at, 2, visit);
    }
    assert_eq!(largest, 5);
    let at = nodes[0].node.key();
    ledger.count_reclaimed(at, 7);
    assert_eq!(ledger.usage(root.node.key()).reclaimed, 7);
    assert!(!ledger.is_over_limit(at));
    ledger.set_limit(root.node.key(), 14).wake();
    assert!(ledger.is_over_limit(at));
    drop((ledger, held));
}

/// A refusal says whether the bytes are too many in any case, and how many are missing.
#[test]
fn a_refusal_names_its_reason_and_the_missing_bytes() {
    let root = Budget::root("root").limit(100).build().unwrap();
    let held = root.try_reserve(90).unwrap();
    let mut ledger = root.node.ledger();
    for (bytes, reason, missing) in [
        (11, RefusedReason::OverLimit, 1),
        (100, RefusedReason::OverLimit, 90),
        (101, RefusedReason::TooLarge, 91),
    ] {
        let binding = ledger.admit(root.node.key(), bytes, None).expect_err("10 are free");
        assert_eq!((binding.refused.reason, binding.missing()), (reason, missing));
    }
    drop((ledger, held));
}

/// The parent is charged for a larger guarantee, which lets a request of the node itself go on.
#[test]
fn a_larger_guarantee_may_serve_a_request_of_the_node() {
    let codes = [
        [212, 0, 8, 86],
        [168, 0, 0, 0],
        [24, 2, 1, 5],
        [24, 150, 11, 82],
        [0, 91, 0, 76],
        [24, 28, 1, 83],
        [24, 14, 4, 3],
        [0, 8, 1, 21],
        [62, 215, 97, 177],
        [38, 45, 8, 206],
        [24, 105, 102, 0],
        [24, 54, 0, 0],
        [62, 47, 3, 34],
        [14, 240, 251, 121],
        [120, 33, 0, 0],
        [158, 132, 59, 131],
        [3, 0, 0, 0],
        [0, 0, 0, 0],
        [170, 91, 0, 0],
        [2, 45, 0, 0],
        [3, 0, 0, 0],
        [50, 30, 0, 0],
        [158, 93, 86, 107],
        [141, 85, 4, 213],
    ];
    world::run(&codes, 600, Sharing::of(SharePolicy::FairAdmission));
}

/// The lists of nodes are halved once three quarters of a large one are unused, and are left alone before.
#[test]
#[cfg_attr(miri, ignore = "too long, and no code is unsafe")]
fn the_lists_of_nodes_give_their_memory_back() {
    fn tree(nodes: usize) -> (Budget, Vec<Budget>) {
        let root = Budget::root("root").build().unwrap();
        let nodes = (0..nodes).map(|_| root.child("child").build().unwrap()).collect();
        (root, nodes)
    }
    fn lists(root: &Budget) -> (usize, usize) {
        let ledger = root.node.ledger();
        if ledger.records.len().is_multiple_of(64) {
            ledger.validate();
        }
        assert_eq!(ledger.accounts.len(), ledger.records.len());
        assert_eq!(ledger.accounts.capacity(), ledger.records.capacity());
        (ledger.records.len(), ledger.records.capacity())
    }
    // 64 is few: of 40 nodes nothing is given back, and of 1000 all but that.
    for count in [40, 1000] {
        let (root, mut nodes) = tree(count);
        let mut expected = lists(&root).1;
        while nodes.pop().is_some() {
            let (len, capacity) = lists(&root);
            assert_eq!(len, nodes.len() + 1);
            if len < expected / 4 && expected > super::nodes::FEW {
                expected = 2 * len;
            }
            assert_eq!(capacity, expected, "with {len}");
            assert!(
                root.node.ledger().vacant.is_empty(),
                "the last index is none to be used again"
            );
        }
        assert!(expected <= super::nodes::FEW);
    }
    // Indices that are gone with the end of the lists are not used again.
    let (root, nodes) = tree(1000);
    let (odd, mut even): (Vec<_>, Vec<_>) =
        nodes.into_iter().enumerate().partition(|(number, _)| number % 2 == 1);
    drop(odd);
    assert_eq!(root.node.ledger().vacant.len(), 499, "all but the last");
    let before = lists(&root).1;
    while lists(&root).1 == before {
        even.pop();
    }
    let ledger = root.node.ledger();
    let len = ledger.records.len();
    assert!(ledger.vacant.iter().all(|at| (at.0 as usize) < len));
    assert_eq!(
        ledger.vacant.len(),
        ledger.records.iter().filter(|record| record.is_none()).count()
    );
}
