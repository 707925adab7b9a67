//! Random operations on a tree, and all invariants after each of them.

use super::super::{
    Fetched, Name, Node, NodeSpec, Registered, Request, Sharing, TreeOptions, UNLIMITED,
    wait::Enqueued,
};
use super::noop;
use crate::{
    core::{
        ManualClock, MemoryManager, MemoryUsage, Priority, Progress, ReclaimClass, ReclaimTicket,
        Reclaimable, SharePolicy, error::RefusedReason, traits::Clock,
    },
    integration::traits::context::WaitId,
};
use core::time::Duration;
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
                0 => Sharing::of(SharePolicy::FairAdmission),
                1 => Sharing::of(SharePolicy::Fair),
                _ => Sharing::STRICT,
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
        let request = Request { key: node.key(), bytes, priority: Some(priority), now, deadline };
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

pub(super) fn run(codes: &[[u8; 4]], limit: usize, sharing: Sharing) {
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
        let sharing = if shares { Sharing::of(SharePolicy::FairAdmission) } else { Sharing::STRICT };
        run(&codes, limit, sharing);
    }
}
