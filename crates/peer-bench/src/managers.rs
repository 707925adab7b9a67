//! Reclaiming memory: the cost of one reclaim by the number of children, managers and nodes.

use crate::{
    growth::{self, Kind, Target, Unit, timed},
    harness::Bench,
};
use nebula_memory::{
    Budget, Reservation,
    budget::SharePolicy,
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable},
};
use std::{
    hint::black_box,
    sync::{Arc, Mutex, MutexGuard},
};

const SHARES: Kind = Kind {
    name: "v1",
    about: "a request of 100 bytes, reclaimed from one victim, under SharePolicy::Fair",
    of: "children",
    sizes: &[10, 100, 1_000, 10_000],
    unit: Unit::Time,
    counted: None,
};
const MANAGERS: Kind = Kind {
    name: "v2",
    about: "a request of 100 bytes, reclaimed from managers that hold everything; a manager gets the bytes",
    of: "managers, each of a node of its own",
    sizes: &[1, 10, 100, 1_000, 10_000],
    ..SHARES
};
const NODES: Kind = Kind {
    name: "v3",
    about: "a request of 100 bytes, reclaimed from one victim",
    of: "nodes, each with 100 bytes",
    sizes: &[10, 100, 1_000, 10_000, 100_000],
    ..SHARES
};

const LIMIT: usize = 1 << 40;
const WANTED: usize = 100;
/// The bytes of a request. They exceed all bytes that earlier requests left free.
const LARGE: usize = 1 << 20;

/// A manager that releases as many bytes as requested.
pub struct Holder {
    held: Mutex<Reservation>,
    full: usize,
}

impl Holder {
    /// Makes one that holds `bytes` of a node, and registers it there.
    pub fn new(node: &Budget, bytes: usize) -> Arc<Self> {
        let held = Mutex::new(node.try_reserve(bytes).expect("it fits"));
        let holder = Arc::new(Self { held, full: bytes });
        node.register(&holder);
        holder
    }

    fn held(&self) -> MutexGuard<'_, Reservation> {
        self.held.lock().expect("nobody panics")
    }

    /// Reserves the reclaimed bytes again. If the ledger keeps some of them free, the next request is served
    /// from these.
    fn refill(&self) {
        let mut held = self.held();
        let missing = self.full - held.size();
        let _ = held.try_grow_spare(missing);
    }
}

impl MemoryUsage for Holder {
    fn used_bytes(&self) -> usize {
        self.held().size()
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Holder {
    fn name(&self) -> &str {
        "holder"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(self.used_bytes(), 1)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.held().shrink(ticket.wanted()))
    }
}

/// Makes `many` children of a root, each with `bytes` of its own.
fn children(root: &Budget, many: usize, bytes: usize) -> Vec<(Budget, Reservation)> {
    let child = |_| {
        let child = root.child("tenant").build().expect("a name");
        let held = child.try_reserve(bytes).expect("it fits");
        (child, held)
    };
    (0..many).map(child).collect()
}

/// Reserves all remaining bytes.
fn fill(root: &Budget) -> Reservation {
    root.try_reserve_spare(LIMIT - root.usage().used).expect("it is free")
}

/// Makes a request that has to reclaim from the holder, and restores the state before it.
fn reclaim(requester: &Budget, holder: &Holder) {
    drop(black_box(requester.try_reserve(black_box(WANTED)).expect("the holder gives it")));
    holder.refill();
}

fn shares(size: usize) -> impl FnMut(u32) -> f64 {
    let root = Budget::root("process").limit(LIMIT).policy(SharePolicy::Fair).build();
    let root = root.expect("the figures are right");
    let children = children(&root, size, 1 << 10);
    let holder = Holder::new(&children[0].0, LIMIT / 2);
    let rest = fill(&root);
    move |times| (timed(times, || reclaim(&children[1].0, &holder)), &rest).0
}

/// Measures requests of `bytes` by the nodes of all managers in turn.
fn managers(size: usize, bytes: usize) -> impl FnMut(u32) -> f64 {
    let root = Budget::root("process").limit(LIMIT).build().expect("the figures are right");
    let children = children(&root, size, 0);
    let holders: Vec<_> =
        children.iter().map(|(node, _)| Holder::new(node, LIMIT / size)).collect();
    let rest = fill(&root);
    let mut next = 0;
    move |times| {
        let each = || {
            // The next node is far from the one before, so that a victim is not soon the requester.
            next = (next + size / 2 + 1) % size;
            let got = children[next].0.try_reserve(black_box(bytes)).expect("somebody gives it");
            let merged = holders[next].held().merge(got);
            merged.expect("the holder is of the same node");
        };
        (timed(times, each), &rest).0
    }
}

fn nodes(size: usize) -> impl FnMut(u32) -> f64 {
    let root = Budget::root("process").limit(LIMIT).build().expect("the figures are right");
    let children = children(&root, size, WANTED);
    let holder = Holder::new(&children[size / 2].0, LIMIT / 2);
    let rest = fill(&root);
    move |times| (timed(times, || reclaim(&root, &holder)), &children, &rest).0
}

pub fn register(bench: &mut Bench) {
    let cases = &mut bench.growth;
    growth::add(cases, &SHARES, "nebula", Some(Target::Most(20e3, 10_000)), shares);
    let target = Some(Target::Most(5e3, 10_000));
    growth::add(cases, &MANAGERS, "nebula", target, |size| managers(size, WANTED));
    growth::add(cases, &MANAGERS, "nebula (1 MiB each)", None, |size| managers(size, LARGE));
    growth::add(cases, &NODES, "nebula", Some(Target::Most(5e3, 100_000)), nodes);
}
