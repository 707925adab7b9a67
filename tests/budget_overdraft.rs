//! Charges that cannot be refused. They are counted at every node of the path, and repaid before any other
//! request is admitted.
#![cfg(feature = "std")]

#[path = "common/waiting.rs"]
mod waiting;

use nebula_memory::{
    Budget, Reservation,
    budget::SharedReservation,
    core::{RefusedReason, Usage},
};
use proptest::prelude::*;
use std::thread;
use waiting::Waiting;

/// Returns the used bytes and the overdraft.
fn figures(budget: &Budget) -> (usize, usize) {
    let Usage { used, overdraft, .. } = budget.usage();
    (used, overdraft)
}

#[test]
fn the_excess_is_counted_at_every_node_that_has_one() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let group = root.child("group").limit(500).build().unwrap();
    let tenant = group.child("tenant").limit(100).build().unwrap();
    let mut held = tenant.try_reserve(90).unwrap();
    held.grow(30);
    assert_eq!(held.size(), 120);
    assert_eq!([&tenant, &group, &root].map(figures), [(120, 20), (120, 0), (120, 0)]);
    held.grow(400);
    assert_eq!([&tenant, &group, &root].map(figures), [(520, 420), (520, 20), (520, 0)]);
    assert!(root.try_reserve(480).is_ok(), "the root has room");
    assert!(group.try_reserve(1).is_err() && tenant.try_reserve(1).is_err());
    held.shrink(21);
    assert_eq!(figures(&group), (499, 0));
    assert!(group.try_reserve(1).is_ok() && tenant.try_reserve(1).is_err());
    drop(held);
    assert_eq!([&tenant, &group, &root].map(figures), [(0, 0); 3]);
}

#[test]
fn it_is_in_the_snapshot_and_the_peak() {
    let root = Budget::root("process").limit(100).build().unwrap();
    let mut held = root.reservation();
    held.grow(130);
    let snapshot = root.snapshot();
    assert_eq!((snapshot.usage.used, snapshot.usage.overdraft), (130, 30));
    drop(held);
    assert_eq!((root.usage().used, root.usage().peak, root.usage().overdraft), (0, 130, 0));
}

#[test]
fn a_shared_reservation_grows_as_well() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let tenant = root.child("tenant").limit(100).build().unwrap();
    let shared = tenant.shared_reservation();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| shared.grow(1)));
        }
    });
    assert_eq!((shared.size(), figures(&tenant), figures(&root)), (400, (400, 300), (400, 0)));
    assert!(shared.try_grow(1).is_err());
    assert_eq!(shared.shrink(301), 301);
    shared.try_grow(1).unwrap();
    drop(shared);
    assert_eq!([&tenant, &root].map(figures), [(0, 0); 2]);
}

#[test]
fn no_request_is_admitted_before_the_overdraft_is_repaid() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let (a, b) = (root.child("a").build().unwrap(), root.child("b").build().unwrap());
    let mut over = a.try_reserve(900).unwrap();
    let mut waits = Waiting::begin(b.reserve(200).no_timeout());
    over.grow(300);
    let mut later = Waiting::begin(b.reserve(1).no_timeout());
    over.shrink(200);
    assert_eq!(figures(&root), (1000, 0));
    assert!(waits.poll().is_none() && later.poll().is_none());
    over.shrink(200);
    let granted = waits.granted();
    assert_eq!((granted.size(), figures(&root)), (200, (1000, 0)));
    assert!(later.poll().is_none());
    drop((over, later, granted));
    assert_eq!(figures(&root), (0, 0));
}

#[test]
fn a_guarantee_is_served_all_the_same() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let safe = root.child("safe").guarantee(100).build().unwrap();
    let mut over = root.try_reserve(900).unwrap();
    over.grow(500);
    assert_eq!(figures(&root), (1500, 500));
    let held = safe.try_reserve(100).unwrap();
    assert!(safe.try_reserve(1).is_err());
    assert_eq!(figures(&root), (1500, 500), "it was paid before");
    // A part of the overdraft itself may be covered by the guarantee.
    drop(held);
    let mut covered = safe.reservation();
    covered.grow(100);
    assert_eq!(figures(&root), (1500, 500));
    covered.grow(1);
    assert_eq!(figures(&root), (1501, 501));
    drop((over, covered));
    assert_eq!(figures(&root), (100, 0));
    drop(safe);
    assert_eq!(figures(&root), (0, 0));
}

/// A limit that is large enough for lines of credit.
const LARGE: usize = 64 << 20;

/// Returns a child that is charged often, so that it has a line of credit.
fn warm(root: &Budget, name: &str) -> Budget {
    let child = root.child(name).build().unwrap();
    (0..64).for_each(|_| drop(child.try_reserve(100).unwrap()));
    child
}

#[test]
fn credit_admits_nothing_meanwhile() {
    let root = Budget::root("process").limit(LARGE).build().unwrap();
    let (a, b) = (warm(&root, "a"), warm(&root, "b"));
    let mut buffered = a.buffered_reservation(4096);
    buffered.try_grow(1).unwrap();
    let mut over = b.reservation();
    over.grow(LARGE + 100);
    assert!(root.usage().overdraft >= 100);
    assert!(a.try_reserve(1).is_err(), "of the line of a");
    assert!(b.try_reserve(1).is_err(), "of the line of b");
    assert!(a.try_reserve_spare(1).is_err());
    assert!(buffered.try_grow(1).is_err(), "of a buffered reservation");
    over.shrink(4 * 4096);
    assert!(a.try_reserve(1).is_ok());
    drop((over, buffered));
    assert_eq!(figures(&root), (0, 0));
}

#[test]
fn unused_credit_is_no_overdraft() {
    let root = Budget::root("process").limit(LARGE).build().unwrap();
    let (_a, b) = (warm(&root, "a"), warm(&root, "b"));
    let mut over = b.reservation();
    over.grow(LARGE);
    assert_eq!(figures(&root), (LARGE, 0), "credit that nobody uses is taken back");
    assert!(root.try_reserve(1).is_err());
}

#[test]
fn the_sum_of_a_tree_saturates() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let (a, b) = (root.child("a").guarantee(10).build().unwrap(), root.child("b").build().unwrap());
    let (mut first, second) = (a.reservation(), b.shared_reservation());
    first.grow(usize::MAX);
    second.grow(usize::MAX);
    first.grow(usize::MAX);
    second.grow(1);
    let total = first.size() as u128 + second.size() as u128;
    assert!(total <= usize::MAX as u128, "{total}");
    assert!(first.size() >= usize::MAX - 10);
    assert_eq!(root.usage().used, usize::MAX);
    assert!(root.try_reserve(1).is_err() && a.try_reserve(usize::MAX).is_err());
    assert!(b.reserve(1).timeout(std::time::Duration::ZERO).wait().is_err());
    let _ = (root.snapshot(), format!("{root:?}"));
    drop(first);
    drop(second);
    assert_eq!([&a, &b, &root].map(figures), [(0, 0), (0, 0), (10, 0)]);
    assert_eq!(root.try_reserve(990).unwrap().size(), 990);
}

#[test]
fn an_unlimited_tree_has_no_overdraft() {
    let root = Budget::root("process").build().unwrap();
    let mut held = root.reservation();
    held.grow(usize::MAX);
    assert_eq!(figures(&root), (usize::MAX, 0));
    held.grow(1);
    assert_eq!(held.size(), usize::MAX);
    drop(held);
    assert_eq!(figures(&root), (0, 0));
}

#[test]
fn nothing_is_added_for_nothing() {
    let root = Budget::root("process").limit(100).build().unwrap();
    let mut held = root.try_reserve(100).unwrap();
    held.grow(0);
    assert_eq!((held.size(), figures(&root)), (100, (100, 0)));
}

#[test]
fn a_transfer_moves_the_excess() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let small = root.child("small").limit(100).build().unwrap();
    let large = root.child("large").limit(500).build().unwrap();
    let mut held = small.reservation();
    held.grow(300);
    held.try_transfer(&large).expect("it fits there");
    assert_eq!([&small, &large, &root].map(figures), [(0, 0), (300, 0), (300, 0)]);
    held.grow(300);
    let refused = held.try_transfer(&small).unwrap_err();
    assert_eq!((refused.node, held.size()), (small.id(), 600));
    assert_eq!([&small, &large, &root].map(figures), [(0, 0), (600, 100), (600, 0)]);
    drop(held);
    assert_eq!([&small, &large, &root].map(figures), [(0, 0); 3]);
}

#[test]
fn a_closed_node_counts_it_too() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let tenant = root.child("tenant").limit(100).build().unwrap();
    let mut held = tenant.try_reserve(100).unwrap();
    tenant.close();
    held.grow(50);
    assert_eq!([&tenant, &root].map(figures), [(150, 50), (150, 0)]);
    drop(held);
    assert_eq!(tenant.try_reserve(1).unwrap_err().reason, RefusedReason::Closed);
    assert_eq!([&tenant, &root].map(figures), [(0, 0); 2]);
}

#[test]
fn it_grows_while_others_come_and_go() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 20_000 };
    let root = Budget::root("process").limit(LARGE).build().unwrap();
    let tenants = [warm(&root, "a"), warm(&root, "b"), warm(&root, "c")];
    let shared = tenants[2].shared_reservation();
    thread::scope(|scope| {
        for tenant in &tenants {
            let shared = &shared;
            scope.spawn(move || {
                let mut held = tenant.reservation();
                for round in 0..ROUNDS {
                    match round % 4 {
                        0 => held.grow(LARGE / 3 + round),
                        1 => drop(tenant.try_reserve(1 + round % 5000)),
                        2 => shared.grow(round),
                        _ => _ = held.shrink(usize::MAX),
                    }
                }
            });
        }
    });
    drop(shared);
    for node in tenants.iter().chain([&root]) {
        assert_eq!(figures(node), (0, 0), "{}", node.name());
    }
}

// Random steps against a model.

#[derive(Clone, Copy, Debug)]
enum Step {
    Open(usize),
    Grow(usize, usize),
    TryGrow(usize, usize),
    Shrink(usize, usize),
    Transfer(usize, usize),
    Drop(usize),
    Limit(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (held, node) = (0..6_usize, 0..NODES);
    let bytes = prop_oneof![8 => 0..60_usize, 1 => Just(usize::MAX), 1 => Just(usize::MAX / 2)];
    prop_oneof![
        2 => node.clone().prop_map(Step::Open),
        4 => (held.clone(), bytes.clone()).prop_map(|(held, bytes)| Step::Grow(held, bytes)),
        4 => (held.clone(), bytes.clone()).prop_map(|(held, bytes)| Step::TryGrow(held, bytes)),
        3 => (held.clone(), bytes).prop_map(|(held, bytes)| Step::Shrink(held, bytes)),
        2 => (held.clone(), node.clone()).prop_map(|(held, to)| Step::Transfer(held, to)),
        2 => held.prop_map(Step::Drop),
        1 => (node, 40..120_usize).prop_map(|(node, limit)| Step::Limit(node, limit)),
    ]
}

const NODES: usize = 4;

/// A model of four nodes: the root, a child with a guarantee, a node below that child, and a second child.
#[derive(Clone, Debug)]
struct Model {
    limits: [usize; NODES],
    direct: [u128; NODES],
}

const PARENTS: [Option<usize>; NODES] = [None, Some(0), Some(1), Some(0)];
const GUARANTEES: [u128; NODES] = [0, 30, 0, 0];

impl Model {
    fn used(&self, node: usize) -> u128 {
        let children = (0..NODES).filter(|child| PARENTS[*child] == Some(node));
        self.direct[node] + children.map(|child| self.draw(child)).sum::<u128>()
    }

    fn draw(&self, node: usize) -> u128 {
        self.used(node).max(GUARANTEES[node])
    }

    fn overdraft(&self, node: usize) -> u128 {
        self.used(node).saturating_sub(self.limits[node] as u128)
    }

    fn with(&self, node: usize, more: u128) -> Self {
        let mut after = self.clone();
        after.direct[node] += more;
        after
    }

    /// Returns whether every node that is charged more stays within its limit.
    fn allows(&self, after: &Self) -> bool {
        (0..NODES).all(|n| after.used(n) <= self.used(n) || after.overdraft(n) == 0)
    }
}

fn build() -> ([Budget; NODES], Model) {
    let root = Budget::root("process").limit(100).build().unwrap();
    let child = root.child("child").limit(80).guarantee(30).build().unwrap();
    let below = child.child("below").limit(60).build().unwrap();
    let other = root.child("other").limit(60).build().unwrap();
    let model = Model { limits: [100, 80, 60, 60], direct: [0; NODES] };
    ([root, child, below, other], model)
}

enum Held {
    Owned(Reservation),
    Shared(SharedReservation),
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 8 * ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn as_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let (nodes, mut model) = build();
        let mut held: Vec<(usize, Held, u128)> = Vec::new();
        for step in steps {
            let count = held.len();
            let at = |at: usize| if count == 0 { None } else { Some(at % count) };
            match step {
                Step::Open(node) if count < 6 => {
                    let one = if count.is_multiple_of(2) {
                        Held::Owned(nodes[node].reservation())
                    } else {
                        Held::Shared(nodes[node].shared_reservation())
                    };
                    held.push((node, one, 0));
                }
                Step::Grow(n, bytes) => if let Some(n) = at(n) {
                    let (node, one, size) = &mut held[n];
                    // As many bytes as the counters can count.
                    let bytes_counted = (bytes as u128).min(usize::MAX as u128 - model.used(0));
                    match one {
                        Held::Owned(held) => held.grow(bytes),
                        Held::Shared(held) => held.grow(bytes),
                    }
                    *size += bytes_counted;
                    model = model.with(*node, bytes_counted);
                },
                Step::TryGrow(n, bytes) => if let Some(n) = at(n) {
                    let (node, one, size) = &mut held[n];
                    let after = model.with(*node, bytes as u128);
                    let expected = bytes == 0 || model.allows(&after);
                    let admitted = match one {
                        Held::Owned(held) => held.try_grow(bytes).is_ok(),
                        Held::Shared(held) => held.try_grow(bytes).is_ok(),
                    };
                    prop_assert_eq!(admitted, expected, "{} more at {} of {:?}", bytes, node, model);
                    if admitted {
                        *size += bytes as u128;
                        model = after;
                    }
                },
                Step::Shrink(n, bytes) => if let Some(n) = at(n) {
                    let (node, one, size) = &mut held[n];
                    let freed = match one {
                        Held::Owned(held) => held.shrink(bytes),
                        Held::Shared(held) => held.shrink(bytes),
                    };
                    prop_assert_eq!(freed as u128, (*size).min(bytes as u128));
                    *size -= freed as u128;
                    model.direct[*node] -= freed as u128;
                },
                Step::Transfer(n, to) => if let Some(n) = at(n) {
                    let (node, one, size) = &mut held[n];
                    let Held::Owned(one) = one else { continue };
                    let mut released = model.clone();
                    released.direct[*node] -= *size;
                    let after = released.with(to, *size);
                    // Nodes above both ends of the transfer do not change.
                    let expected = *size == 0 || (0..NODES).all(|n| {
                        after.used(n) <= model.used(n).max(released.used(n)) || after.overdraft(n) == 0
                    });
                    let moved = one.try_transfer(&nodes[to]).is_ok();
                    // A transfer through a node beyond its limit may be refused even if the model allows it.
                    let is_over = (0..NODES).any(|n| model.overdraft(n) > 0);
                    prop_assert!(moved == expected || is_over, "{} to {} of {:?}", size, to, model);
                    prop_assert!(!moved || expected);
                    if moved {
                        *node = to;
                        model = after;
                    }
                },
                Step::Drop(n) => if let Some(n) = at(n) {
                    let (node, _, size) = held.swap_remove(n);
                    model.direct[node] -= size;
                },
                Step::Limit(node, limit) => {
                    nodes[node].set_limit(limit).unwrap();
                    model.limits[node] = limit;
                }
                Step::Open(_) => {}
            }
            for (n, node) in nodes.iter().enumerate() {
                let (used, overdraft) = figures(node);
                prop_assert_eq!((used as u128, overdraft as u128), (model.used(n), model.overdraft(n)));
            }
            for (_, one, size) in &held {
                let actual = match one {
                    Held::Owned(held) => held.size(),
                    Held::Shared(held) => held.size(),
                };
                prop_assert_eq!(actual as u128, *size);
            }
        }
        drop(held);
        prop_assert_eq!(nodes.each_ref().map(figures), [(30, 0), (0, 0), (0, 0), (0, 0)]);
    }
}
