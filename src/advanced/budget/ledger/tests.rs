//! Random operations on a ledger, with lines open and without, against plain sums. After each one every
//! invariant is checked from scratch.

use super::{
    Fetched, Name, Node, NodeSpec, Registered, Request, Sharing, TaskWaker, TreeOptions, UNLIMITED,
    line::Line, wait::Enqueued,
};
use crate::{
    advanced::budget::{Budget, Reserve},
    core::{
        ManualClock, MemoryManager, MemoryUsage, Priority, Progress, ReclaimClass, ReclaimTicket,
        Reclaimable, error::RefusedReason, traits::Clock,
    },
    integration::traits::{FairAdmission, FairShare, context::WaitId},
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Instant, vec::Vec};

/// The most nodes, requests and managers at once.
const MOST: usize = 10;

/// The root's limit: enough for lines.
const LARGE: usize = 1 << 16;

#[derive(Debug)]
struct Cache;

impl MemoryUsage for Cache {
    fn used_bytes(&self) -> usize {
        0
    }

    fn peak_bytes(&self) -> usize {
        0
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Cache {
    fn name(&self) -> &str {
        "cache"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(0, 0)
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        Progress::freed(0)
    }
}

struct Tenant {
    node: Arc<Node>,
    parent: Option<usize>,
    /// Bytes of its own reservations.
    held: usize,
    is_hidden: bool,
}

struct Waiting {
    at: usize,
    bytes: usize,
    id: WaitId,
}

/// The tree, with what each node holds. A node is dropped once nothing names it.
struct World {
    tenants: Vec<Option<Tenant>>,
    waiting: Vec<Waiting>,
    managers: Vec<Arc<Cache>>,
    stranded: Vec<(usize, usize)>,
    rounds: usize,
    clock: Arc<ManualClock>,
    begun: Instant,
}

impl World {
    fn new(limit: usize, sharing: Sharing) -> Self {
        let spec = NodeSpec { limit, sharing, ..NodeSpec::default() };
        let clock = ManualClock::new();
        let begun = clock.now();
        let options =
            TreeOptions { clock: Clock::Manual(Arc::clone(&clock)), ..TreeOptions::default() };
        let node = Node::root(Name::new("root"), spec, 0, options);
        let root = Tenant { node, parent: None, held: 0, is_hidden: false };
        let (waiting, managers, stranded) = (Vec::new(), Vec::new(), Vec::new());
        let tenants = std::vec![Some(root)];
        Self { tenants, waiting, managers, stranded, rounds: 0, clock, begun }
    }

    fn tenant(&self, at: usize) -> &Tenant {
        self.tenants[at].as_ref().expect("there")
    }

    fn live(&self) -> Vec<usize> {
        (0..self.tenants.len()).filter(|at| self.tenants[*at].is_some()).collect()
    }

    fn children(&self, at: usize) -> Vec<usize> {
        let live = self.live().into_iter();
        live.filter(|child| self.tenant(*child).parent == Some(at)).collect()
    }

    /// Bytes reserved at and below a node.
    fn used(&self, at: usize) -> usize {
        let drawn = |child: &usize| {
            let node = &self.tenant(*child).node;
            let guarantee = node.ledger()[node.key()].guarantee;
            self.used(*child).max(guarantee)
        };
        self.tenant(at).held + self.children(at).iter().map(drawn).sum::<usize>()
    }

    /// By how much each node exceeds its limit.
    fn excess(&self) -> Vec<usize> {
        let excess = |at: usize| {
            self.tenants[at].as_ref().map_or(0, |tenant| {
                let limit = tenant.node.ledger()[tenant.node.key()].limit;
                self.used(at).saturating_sub(limit)
            })
        };
        (0..self.tenants.len()).map(excess).collect()
    }

    fn step(&mut self, [op, who, size, factor]: [u8; 4]) {
        let live = self.live();
        let at = live[usize::from(who) % live.len()];
        let node = Arc::clone(&self.tenant(at).node);
        let bytes = usize::from(size) << (factor % 8);
        let is_hidden = self.tenant(at).is_hidden;
        let limit = node.ledger()[node.key()].limit;
        let before = self.excess();
        let mut may_exceed = false;
        match op % 24 {
            0 | 1 if live.len() < MOST && !is_hidden => self.insert(at, bytes, factor),
            2 => self.remove(at),
            3..6 if node.charge(bytes).is_ok() => self.hold(at, bytes),
            // So often that the line is opened.
            6 | 7 => {
                for _ in 0..8 {
                    if node.charge(bytes % 16).is_ok() {
                        node.release(bytes % 16);
                    }
                }
            }
            8..11 => {
                let bytes = bytes.min(self.tenant(at).held);
                self.release(at, bytes);
            }
            11 if is_hidden => {
                let released = node.release_at_most(bytes);
                assert_eq!(released, bytes.min(self.tenant(at).held));
                self.hold(at, released.wrapping_neg());
            }
            12 if factor.is_multiple_of(4) => {
                let forced = node.force(bytes);
                assert_eq!(forced, bytes);
                self.hold(at, bytes);
                may_exceed = true;
            }
            // Reservations that are transferred have no account of their own.
            13 if !is_hidden => {
                let to = live[usize::from(size) % live.len()];
                let target = self.tenant(to).node.key();
                let bytes = bytes.min(self.tenant(at).held);
                let moved = node.ledger().transfer(node.key(), target, bytes);
                if let Ok(woken) = moved {
                    woken.wake();
                    self.hold(at, bytes.wrapping_neg());
                    self.hold(to, bytes);
                }
                // Its own charge may stay beyond a limit.
                may_exceed = true;
            }
            // No request waits at the account of a shared reservation.
            14..17 if self.waiting.len() < MOST && !is_hidden => self.enqueue(at, bytes, factor),
            17 | 18 if !self.waiting.is_empty() => {
                let which = usize::from(who) % self.waiting.len();
                if factor < 128 {
                    let Waiting { id, .. } = self.waiting.swap_remove(which);
                    let woken = node.ledger().withdraw(id);
                    woken.wake();
                } else {
                    let reason = RefusedReason::TimedOut;
                    let woken = node.ledger().refuse(self.waiting[which].id, reason);
                    woken.wake();
                }
            }
            19 if size < 16 && at > 0 => {
                let woken = node.ledger().close(node.key());
                woken.wake();
            }
            20 => {
                let limit = 8 * bytes;
                if limit > 0 && limit >= node.ledger().guaranteed(node.key()) && !is_hidden {
                    let woken = node.ledger().set_limit(node.key(), limit);
                    woken.wake();
                    may_exceed = true;
                }
            }
            21 if !is_hidden && bytes <= limit => {
                let changed = node.ledger().set_guarantee(node.key(), bytes);
                if let Ok(woken) = changed {
                    woken.wake();
                }
            }
            22 if factor < 64 => self.clock.advance(Duration::from_millis(factor.into())),
            22 => self.manage(&node, factor),
            23 => match factor % 4 {
                0 => node.ledger().set_weight(node.key(), u32::from(size) + 1),
                1 if self.rounds == 0 => {
                    self.rounds = 1;
                    let mut ledger = node.ledger();
                    ledger.rounds = 1;
                    ledger.settle_below(node.key());
                }
                2 => {
                    self.rounds = 0;
                    node.ledger().rounds = 0;
                }
                _ => {
                    let index = self.stranded.iter().position(|(of, _)| *of == at);
                    let known = index.map_or(0, |index| self.stranded.swap_remove(index).1);
                    let most = node.ledger().allow_stranded(node.key(), known, bytes);
                    self.stranded.extend((most > 0).then_some((at, most)));
                }
            },
            _ => {}
        }
        drop(node);
        self.fetch();
        self.check();
        if !may_exceed {
            let after = self.excess();
            assert!(before.iter().zip(&after).all(|(before, after)| after <= before), "{op}");
        }
    }

    fn hold(&mut self, at: usize, bytes: usize) {
        let tenant = self.tenants[at].as_mut().expect("there");
        tenant.held = tenant.held.wrapping_add(bytes);
    }

    fn release(&mut self, at: usize, bytes: usize) {
        let tenant = self.tenant(at);
        if tenant.is_hidden {
            assert_eq!(tenant.node.release_at_most(bytes), bytes);
        } else {
            tenant.node.release(bytes);
        }
        self.hold(at, bytes.wrapping_neg());
    }

    fn insert(&mut self, at: usize, bytes: usize, factor: u8) {
        let parent = Arc::clone(&self.tenant(at).node);
        let is_hidden = factor % 7 == 6;
        let guarantee = if factor.is_multiple_of(3) && !is_hidden { bytes } else { 0 };
        let limit =
            if factor >= 96 || is_hidden { UNLIMITED } else { guarantee.max(16 * bytes + 1) };
        if parent.charge(guarantee).is_err() {
            return;
        }
        let node = if is_hidden {
            Node::hidden(&parent)
        } else {
            let sharing = match factor % 5 {
                0 => Sharing::of(FairAdmission),
                1 => Sharing::of(FairShare),
                _ => Sharing::Strict,
            };
            let spec = NodeSpec {
                limit,
                guarantee,
                sharing,
                weight: u32::from(factor % 4) + 1,
                workers: u32::from(factor % 2),
                is_temporary: factor.is_multiple_of(6),
                ..NodeSpec::default()
            };
            Node::child(Arc::clone(&parent), Name::new("child"), spec, 0)
        };
        let tenant = Tenant { node, parent: Some(at), held: 0, is_hidden };
        match self.tenants.iter().position(Option::is_none) {
            Some(free) => self.tenants[free] = Some(tenant),
            None => self.tenants.push(Some(tenant)),
        }
    }

    /// Drops a node that nothing is below, with all that it holds.
    fn remove(&mut self, at: usize) {
        if at == 0 || !self.children(at).is_empty() {
            return;
        }
        if self.waiting.iter().any(|waiting| waiting.at == at) {
            return;
        }
        if let Some(index) = self.stranded.iter().position(|(of, _)| *of == at) {
            let (_, most) = self.stranded.swap_remove(index);
            let node = &self.tenant(at).node;
            node.ledger().allow_stranded(node.key(), most, 0);
        }
        self.release(at, self.tenant(at).held);
        self.tenants[at] = None;
    }

    fn enqueue(&mut self, at: usize, bytes: usize, factor: u8) {
        let node = Arc::clone(&self.tenant(at).node);
        let priority = Priority::ALL[usize::from(factor) % Priority::ALL.len()];
        let now = self.clock.now();
        let deadline = (factor < 64).then(|| now + Duration::from_secs(3600));
        let request = Request { key: node.key(), bytes, priority, now, deadline };
        let enqueued = node.ledger().enqueue(request, &mut noop());
        match enqueued {
            Ok(None) => self.hold(at, bytes),
            Ok(Some(Enqueued { id, .. })) => self.waiting.push(Waiting { at, bytes, id }),
            Err(_) => assert!(node.ledger().hopeless(node.key(), bytes).is_some()),
        }
    }

    fn manage(&mut self, node: &Arc<Node>, factor: u8) {
        match factor % 4 {
            0 if self.managers.len() < MOST => {
                let cache = Arc::new(Cache);
                let weak = Arc::downgrade(&cache) as std::sync::Weak<dyn MemoryManager>;
                let class = if factor < 128 { ReclaimClass::Cache } else { ReclaimClass::Spill };
                node.ledger().register(node.key(), Registered::new(weak, class));
                self.managers.push(cache);
            }
            1 => _ = self.managers.pop(),
            2 => node.ledger().set_resting(
                u32::from(factor / 4) % 4,
                node.key(),
                factor < 128,
                self.begun,
            ),
            _ => node.ledger().end_rests(self.begun + Duration::from_millis(factor.into())),
        }
    }

    /// Takes the answers that are there.
    fn fetch(&mut self) {
        let root = Arc::clone(&self.tenant(0).node);
        for waiting in std::mem::take(&mut self.waiting) {
            let fetched = root.ledger().fetch(waiting.id, &mut noop());
            match fetched {
                Fetched::Waits => self.waiting.push(waiting),
                Fetched::Answer(Ok(())) => self.hold(waiting.at, waiting.bytes),
                Fetched::Answer(Err(_)) => {}
            }
        }
    }

    fn check(&self) {
        self.tenant(0).node.ledger().validate();
        for at in self.live() {
            let node = &self.tenant(at).node;
            let used = node.ledger().used(node.key());
            assert_eq!(used, self.used(at), "at {at}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nodes that hold bytes would panic again, and hide the first panic.
            std::mem::forget(std::mem::take(&mut self.tenants));
        }
    }
}

fn noop() -> TaskWaker {
    TaskWaker { token: None, waker: Waker::noop().clone() }
}

fn run(codes: &[[u8; 4]], limit: usize, sharing: Sharing) {
    let mut world = World::new(limit, sharing);
    for code in codes {
        world.step(*code);
    }
    // Nothing is lost: all goes, those furthest down first.
    let root = Arc::clone(&world.tenant(0).node);
    root.ledger().rounds = 0;
    for Waiting { id, .. } in std::mem::take(&mut world.waiting) {
        let woken = root.ledger().withdraw(id);
        woken.wake();
    }
    while let Some(at) =
        world.live().into_iter().rev().find(|at| *at > 0 && world.children(*at).is_empty())
    {
        world.remove(at);
        world.check();
    }
    world.release(0, world.tenant(0).held);
    world.check();
    let ledger = root.ledger();
    assert_eq!(ledger.used(root.key()), 0);
    assert_eq!((ledger.records.len(), ledger.undrawn(), ledger.waiters.len()), (1, 0, 0));
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
    assert_eq!(allow(7, 1 << 10, 0), 0);
    assert_eq!(allow(64, 0, 1 << 10), 1 << 10);
    root.node.ledger().validate();
}

/// While a sibling's request waits a child is admitted within its share, and refused beyond it.
#[test]
fn a_child_beyond_its_share_is_refused_while_a_sibling_waits() {
    // By hand: the request is not to become overdue on a slow machine.
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(100).policy(FairAdmission).clock(&clock);
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
    let process = Budget::root("process").limit(1000).policy(FairShare).build().unwrap();
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
fn an_overdraft_lets_those_go_on_that_an_overdue_request_kept_back() {
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
fn a_refused_admission_lets_those_go_on_that_nobody_keeps_back_any_more() {
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
    let root = Budget::root("root").limit(100).policy(FairAdmission).clock(&clock);
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
fn a_child_that_begins_to_wait_lets_those_go_on_that_were_kept_back_for_a_sibling() {
    // By hand: no request is to become overdue on a slow machine.
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(90).policy(FairAdmission).clock(&clock);
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
fn a_refusal_says_what_is_missing() {
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
    run(&codes, 600, Sharing::of(FairAdmission));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_invariant_holds_after_each_operation(
        codes in proptest::collection::vec(any::<[u8; 4]>(), 0..if cfg!(miri) { 30 } else { 300 }),
        limit in prop_oneof![Just(600), Just(LARGE), Just(1024 * LARGE)],
        shares in any::<bool>(),
    ) {
        let sharing = if shares { Sharing::of(FairAdmission) } else { Sharing::Strict };
        run(&codes, limit, sharing);
    }
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
        assert!(ledger.accounts.capacity() <= ledger.records.capacity().max(super::FEW));
        (ledger.records.len(), ledger.records.capacity())
    }
    // 64 is few: of 40 nodes nothing is given back, and of 1000 all but that.
    for count in [40, 1000] {
        let (root, mut nodes) = tree(count);
        let mut expected = lists(&root).1;
        while nodes.pop().is_some() {
            let (len, capacity) = lists(&root);
            assert_eq!(len, nodes.len() + 1);
            if len < expected / 4 && expected > super::FEW {
                expected = 2 * len;
            }
            assert_eq!(capacity, expected, "with {len}");
            assert!(
                root.node.ledger().vacant.is_empty(),
                "the last index is none to be used again"
            );
        }
        assert!(expected <= super::FEW);
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
