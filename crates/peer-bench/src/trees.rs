//! The tree itself: what its nodes cost, by how many there are and how deep.

use crate::{
    growth::{self, Kind, Target, Unit, batches, timed},
    harness::Bench,
};
use memory_budget::{BudgetConfig, MemoryBudget};
use nebula_memory::{Budget, Reservation};
use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const USAGE: Kind = Kind {
    name: "u1",
    about: "the figures of the root",
    of: "nodes, each with 100 bytes",
    sizes: &[10, 100, 1_000, 10_000, 100_000],
    unit: Unit::Time,
    counted: None,
};
const SET_LIMIT: Kind = Kind { name: "u2", about: "a new limit of the root", ..USAGE };
const SNAPSHOT: Kind = Kind { name: "u3", about: "a snapshot of the tree", ..USAGE };
const BESIDE: Kind = Kind {
    name: "u4",
    about: "the longest that a charge beside a snapshot takes, of a node without credit",
    ..USAGE
};
const CHILD: Kind = Kind {
    name: "u5",
    about: "a child made, charged and dropped",
    of: "siblings, each with 100 bytes",
    counted: Some(10),
    ..USAGE
};
const REFUSED: Kind = Kind {
    name: "u6",
    about: "a refusal",
    of: "holders",
    sizes: &[1, 10, 100, 1_000, 10_000],
    counted: Some(100),
    ..USAGE
};
const DEPTH: Kind = Kind {
    name: "u7",
    about: "at a leaf",
    of: "levels",
    sizes: &[1, 4, 16, 60],
    counted: Some(4),
    ..USAGE
};
const HEAP: Kind = Kind {
    name: "u8",
    about: "bytes of heap for each node",
    of: "nodes",
    sizes: &[1_000, 10_000, 100_000],
    unit: Unit::Bytes,
    ..USAGE
};

const LIMIT: usize = 1 << 40;
const BYTES: usize = 100;

/// Of a node that has no credit.
const SMALL: usize = 10_000;

/// The longest batch between two looks at the clock.
const BATCH: usize = 64;

fn root() -> Budget {
    Budget::root("process").limit(LIMIT).build().expect("the figures are right")
}

fn child(of: &Budget) -> Budget {
    of.child("tenant").build().expect("a name")
}

/// A tree of so many children of the root; the reservations keep the children.
fn flat(size: usize) -> (Budget, Vec<Reservation>) {
    let root = root();
    let held = (0..size).map(|_| child(&root).try_reserve(BYTES).expect("it fits")).collect();
    (root, held)
}

/// What is done with the root of such a tree.
fn of_root<R: 'static>(
    operation: fn(&Budget) -> R,
) -> impl Fn(usize) -> Box<dyn FnMut(u32) -> f64> {
    move |size| {
        let (root, held) = flat(size);
        Box::new(move |times| (timed(times, || operation(&root)), &held).0)
    }
}

/// The longest of the charges that another thread makes meanwhile.
fn beside(size: usize) -> impl FnMut(u32) -> f64 {
    let (root, held) = flat(size);
    let node = root.child("exact").limit(SMALL).build().expect("the figures are right");
    let longest = move || {
        let (is_ready, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let charge = || {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                drop(black_box(node.try_reserve(BYTES).expect("it fits")));
                longest = longest.max(start.elapsed());
                is_ready.store(true, Ordering::Relaxed);
            }
            growth::nanos(longest)
        };
        thread::scope(|scope| {
            let charges = scope.spawn(charge);
            while !is_ready.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            drop(black_box((root.snapshot(), &held)));
            is_over.store(true, Ordering::Relaxed);
            charges.join().expect("nobody panics")
        })
    };
    move |times| (0..times).map(|_| longest()).sum()
}

/// Nodes that are made and charged; then they are dropped.
fn made(size: usize) -> impl FnMut(u32) -> f64 {
    let (root, held) = flat(size);
    move |times| {
        let each = || child(&root).try_reserve(black_box(BYTES)).expect("it fits");
        (timed(times, each), &held).0
    }
}

fn leased(size: usize) -> impl FnMut(u32) -> f64 {
    let budget = MemoryBudget::new(BudgetConfig::new(LIMIT as u64));
    let lease = move || budget.try_lease(black_box(BYTES as u64)).ok();
    let held: Vec<_> = (0..size).map(|_| lease().expect("it fits")).collect();
    move |times| (timed(times, &lease), &held).0
}

/// A refusal at a node whose children hold everything.
fn refused(size: usize) -> impl FnMut(u32) -> f64 {
    let root = root();
    let hold = |bytes| child(&root).try_reserve(bytes).expect("it fits");
    let mut held: Vec<_> = (0..size).map(|_| hold(LIMIT / size)).collect();
    held.push(hold(LIMIT % size));
    let refuse = move || root.try_reserve(black_box(BYTES)).is_err();
    move |times| (timed(times, &refuse), &held).0
}

fn refused_by_peer(size: usize) -> impl FnMut(u32) -> f64 {
    let budget = MemoryBudget::new(BudgetConfig::new((size << 20) as u64));
    let held: Vec<_> = (0..size).map(|_| budget.try_lease(1 << 20).expect("it fits")).collect();
    let refuse = move || budget.try_lease(black_box(BYTES as u64)).is_err();
    move |times| (timed(times, &refuse), &held).0
}

/// The last of so many nodes, each below the one before.
fn chain(depth: usize, limit: usize) -> Budget {
    let build = |builder: nebula_memory::budget::BudgetBuilder| {
        builder.limit(limit).build().expect("the figures are right")
    };
    let root = build(Budget::root("process"));
    (1..depth).fold(root, |above, _| build(above.child("node")))
}

/// A reservation that is made and dropped at a leaf.
fn reserved(limit: usize) -> impl Fn(usize) -> Box<dyn FnMut(u32) -> f64> {
    move |depth| {
        let leaf = chain(depth, limit);
        let reserve = move || leaf.try_reserve(black_box(BYTES)).expect("it fits");
        Box::new(move |times| timed(times, &reserve))
    }
}

fn refused_deep(depth: usize) -> impl FnMut(u32) -> f64 {
    let leaf = chain(depth, LIMIT);
    let held = leaf.try_reserve(LIMIT).expect("it fits");
    move |times| {
        let refuse = || leaf.try_reserve(black_box(BYTES)).is_err();
        (timed(times, refuse), &held).0
    }
}

fn made_deep(depth: usize) -> impl FnMut(u32) -> f64 {
    let leaf = chain(depth, LIMIT);
    move |times| timed(times, || child(&leaf))
}

/// A chain that is built and dropped; for each of its nodes.
fn chains(depth: usize) -> impl FnMut(u32) -> f64 {
    move |times| {
        let build = |many| (0..many).map(|_| chain(depth, LIMIT)).collect::<Vec<_>>();
        let took = batches(times, BATCH, |batch| batch, |batch| drop(build(batch)));
        took / depth as f64
    }
}

/// Bytes of heap in use, as glibc counts them; 0 elsewhere.
fn heap() -> f64 {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it only reads the allocator's own figures.
        let info = unsafe { libc::mallinfo2() };
        (info.uordblks + info.hblkhd) as f64
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0.0
}

/// The heap that `size` nodes take, and what of it stays when they are dropped; for each.
fn heap_of_nodes(size: usize) -> (f64, f64) {
    let root = root();
    let mut nodes = Vec::with_capacity(size);
    let before = heap();
    nodes.extend((0..size).map(|_| child(&root)));
    let full = heap();
    nodes.clear();
    ((full - before) / size as f64, (heap() - before) / size as f64)
}

pub fn register(bench: &mut Bench) {
    const OURS: &str = "nebula";
    const PEER: &str = "memory-budget";
    let cases = &mut bench.growth;
    let most = |figure| Some(Target::Most(figure, 100_000));
    let usage = of_root(Budget::usage);
    growth::add(cases, &USAGE, OURS, most(1e3), usage);
    let set_limit = of_root(|root| root.set_limit(black_box(LIMIT)));
    growth::add(cases, &SET_LIMIT, OURS, most(1e3), set_limit);
    let snapshot = of_root(Budget::snapshot);
    growth::add(cases, &SNAPSHOT, OURS, most(40e6), snapshot);
    growth::add(cases, &BESIDE, OURS, most(100e3), beside);

    growth::add(cases, &CHILD, OURS, Some(Target::Instructions(150.0, 10, 900.0)), made);
    growth::add(cases, &CHILD, "memory-budget (a lease)", None, leased);
    growth::add(cases, &REFUSED, OURS, Some(Target::Instructions(40.0, 100, 250.0)), refused);
    growth::add(cases, &REFUSED, PEER, None, refused_by_peer);

    growth::add(cases, &DEPTH, "nebula (reserve, drop)", None, reserved(LIMIT));
    let exact = Some(Target::Most(22.0, 4));
    growth::add(cases, &DEPTH, "nebula (the same, exact)", exact, reserved(SMALL));
    growth::add(cases, &DEPTH, "nebula (refusal)", None, refused_deep);
    growth::add(cases, &DEPTH, "nebula (child)", None, made_deep);
    growth::add(cases, &DEPTH, "nebula (chain, each node)", None, chains);

    let held = Some(Target::Most(512.0, 100_000));
    growth::add(cases, &HEAP, "nebula (alive)", held, |size| move |_| heap_of_nodes(size).0);
    // All; a byte for each is what the allocator keeps in hand.
    let kept = Some(Target::Most(1.0, 100_000));
    growth::add(cases, &HEAP, "nebula (once dropped)", kept, |size| move |_| heap_of_nodes(size).1);
}
