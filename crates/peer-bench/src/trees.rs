//! The tree itself: the cost of its nodes by their number and their depth.

use crate::{
    growth::{self, Kind, Target, Unit, batches, timed},
    harness::Bench,
};
use memory_budget::{BudgetConfig, MemoryBudget};
use nebula_memory::{Budget, Reservation};
use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

const NODES: &[usize] = &[10, 100, 1_000, 10_000, 100_000];

const USAGE: Kind = Kind {
    name: "u1",
    about: "the figures of the root",
    of: "nodes, each with 100 bytes",
    sizes: NODES,
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

type Body = dyn FnMut(u32) -> f64;

const LIMIT: usize = 1 << 40;
const BYTES: usize = 100;

/// The limit of a node without credit.
const SMALL: usize = 10_000;

/// The most operations between two readings of the clock.
const BATCH: usize = 64;

fn root() -> Budget {
    Budget::root("process").limit(LIMIT).build().expect("the figures are right")
}

fn child(of: &Budget) -> Budget {
    of.child("tenant").build().expect("a name")
}

/// A root with children. Each child has some bytes of its own.
struct Flat {
    root: Budget,
    children: Vec<Budget>,
    _held: Vec<Reservation>,
}

impl Flat {
    fn new(size: usize) -> Self {
        let root = root();
        let children: Vec<_> = (0..size).map(|_| child(&root)).collect();
        let held = children.iter().map(|child| child.try_reserve(BYTES).expect("it fits"));
        let _held = held.collect();
        Self { root, children, _held }
    }

    // Closures that used the fields would capture only these, and drop the others.
    fn root(&self) -> &Budget {
        &self.root
    }

    /// Charges each child often enough that it is given credit.
    fn warm(&self) {
        for child in &self.children {
            (0..8).for_each(|_| drop(black_box(child.try_reserve(1).ok())));
        }
    }
}

/// Measures an operation on the root of such a tree.
fn of_root<R: 'static>(operation: fn(&Budget) -> R) -> impl Fn(usize) -> Box<Body> {
    move |size| {
        let flat = Flat::new(size);
        Box::new(move |times| timed(times, || operation(flat.root())))
    }
}

/// Measures the same with children that have credit. They receive it anew before each `most` operations.
fn of_warm_root<R: 'static>(
    most: usize,
    operation: fn(&Budget) -> R,
) -> impl Fn(usize) -> Box<Body> {
    move |size| {
        let flat = Flat::new(size);
        let run = move |times| {
            let prepare = |batch| {
                flat.warm();
                batch
            };
            let operations = |batch| {
                for _ in 0..batch {
                    drop(black_box(operation(flat.root())));
                }
            };
            batches(times, most, prepare, operations)
        };
        Box::new(run)
    }
}

/// Measures the longest charge by another thread during a snapshot. Returns the median of some snapshots, as
/// in a few of them that thread may not run at all.
fn beside(size: usize) -> impl FnMut(u32) -> f64 {
    const SNAPSHOTS: usize = 9;
    let flat = Flat::new(size);
    let node = flat.root().child("exact").limit(SMALL).build().expect("the figures are right");
    let median = move || {
        let (made, longest) = (AtomicUsize::new(0), AtomicU64::new(0));
        let is_over = AtomicBool::new(false);
        let charge = || {
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                drop(black_box(node.try_reserve(BYTES).expect("it fits")));
                let took = u64::try_from(start.elapsed().as_nanos()).expect("short");
                longest.fetch_max(took, Ordering::Relaxed);
                made.fetch_add(1, Ordering::Release);
            }
        };
        let charges = |more| {
            let enough = made.load(Ordering::Acquire) + more;
            while made.load(Ordering::Acquire) < enough {
                thread::yield_now();
            }
        };
        let snapshot = |_| {
            charges(2);
            longest.store(0, Ordering::Relaxed);
            drop(black_box(flat.root().snapshot()));
            // Counts the charge that began during the snapshot, too.
            charges(1);
            longest.load(Ordering::Relaxed)
        };
        thread::scope(|scope| {
            scope.spawn(charge);
            let mut longest: Vec<_> = (0..SNAPSHOTS).map(snapshot).collect();
            is_over.store(true, Ordering::Relaxed);
            longest.sort_unstable();
            longest[SNAPSHOTS / 2] as f64
        })
    };
    move |times| (0..times).map(|_| median()).sum()
}

/// Measures a child that is made, charged and dropped.
fn made(size: usize) -> impl FnMut(u32) -> f64 {
    let flat = Flat::new(size);
    move |times| {
        let each = || child(flat.root()).try_reserve(black_box(BYTES)).expect("it fits");
        timed(times, each)
    }
}

fn leased(size: usize) -> impl FnMut(u32) -> f64 {
    let budget = MemoryBudget::new(BudgetConfig::new(LIMIT as u64));
    let lease = move || budget.try_lease(black_box(BYTES as u64)).ok();
    let held: Vec<_> = (0..size).map(|_| lease().expect("it fits")).collect();
    move |times| (timed(times, &lease), &held).0
}

/// Measures a refusal at a node whose children hold all bytes.
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

/// Makes `depth` nodes, each below the one before, and returns the last.
fn chain(depth: usize, limit: usize) -> Budget {
    let build = |builder: nebula_memory::budget::BudgetBuilder| {
        builder.limit(limit).build().expect("the figures are right")
    };
    let root = build(Budget::root("process"));
    (1..depth).fold(root, |above, _| build(above.child("node")))
}

/// Measures a reservation that is made and dropped at a leaf.
fn reserved(limit: usize) -> impl Fn(usize) -> Box<Body> {
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

/// Measures a chain that is built and dropped, for each of its nodes.
fn chains(depth: usize) -> impl FnMut(u32) -> f64 {
    move |times| {
        let build = |many| (0..many).map(|_| chain(depth, LIMIT)).collect::<Vec<_>>();
        let took = batches(times, BATCH, |batch| batch, |batch| drop(build(batch)));
        took / depth as f64
    }
}

/// Returns the bytes of heap in use, as glibc counts them; 0 elsewhere.
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

/// Measures the bytes of heap that a node takes, and the part of them that stays in use once it is dropped.
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
    const WARM: &str = "nebula (nodes with credit)";
    const PEER: &str = "memory-budget";
    let cases = &mut bench.growth;
    let most = |figure| Some(Target::Most(figure, 100_000));
    growth::add(cases, &USAGE, OURS, most(1e3), of_root(Budget::usage));
    growth::add(cases, &USAGE, WARM, most(1e3), of_warm_root(BATCH, Budget::usage));
    let set_limit = |root: &Budget| root.set_limit(black_box(LIMIT));
    growth::add(cases, &SET_LIMIT, OURS, most(1e3), of_root(set_limit));
    growth::add(cases, &SET_LIMIT, WARM, most(1e3), of_warm_root(1, set_limit));
    growth::add(cases, &SNAPSHOT, OURS, most(40e6), of_root(Budget::snapshot));
    growth::add(cases, &SNAPSHOT, WARM, most(40e6), of_warm_root(1, Budget::snapshot));
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
    // The bytes of all nodes. The allocator itself may keep a few blocks.
    let kept = Some(Target::Most(1.0, 100_000));
    growth::add(cases, &HEAP, "nebula (once dropped)", kept, |size| move |_| heap_of_nodes(size).1);
}
