//! The memory that an allocator takes for objects beyond the objects themselves.

use crate::{
    heaps::Malloc,
    options::Options,
    report::{self, head, line, optional},
    subjects::{Blink, BumpScope, Bumpalo, Nebula, Oxc, Stumpalo, Subject},
};
use nebula_memory::{allocator::bump::Up, arena::TypedArena};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    mem::forget,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

pub const CASE: &str = "memory";

/// 24 MB in objects of 24 bytes.
const OBJECTS: u64 = 1_000_000;
type Object = [u64; 3];
const BIG: usize = 1 << 20;

/// The system's allocator. It counts while a probe runs, and otherwise costs a load and a branch, for all
/// subjects alike.
pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static HELD: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    #[inline]
    fn count(taken: usize, freed: usize) {
        if ON.load(Relaxed) {
            HELD.fetch_add(taken.wrapping_sub(freed), Relaxed);
            CALLS.fetch_add(usize::from(taken > 0), Relaxed);
        }
    }
}

// SAFETY: every call is passed on to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size(), 0);
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size(), 0);
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        Self::count(new, layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.realloc(block, layout, new) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::count(0, layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The figures of a run: counts of `Counting`, and the process's pages.
struct Taken {
    bytes: usize,
    calls: usize,
    resident: usize,
}

/// Runs `work`, and returns the memory that it has taken and still holds.
fn taken<R>(work: impl FnOnce() -> R) -> (Taken, R) {
    HELD.store(0, Relaxed);
    CALLS.store(0, Relaxed);
    let before = resident();
    ON.store(true, Relaxed);
    let result = work();
    ON.store(false, Relaxed);
    let resident = resident().saturating_sub(before);
    (Taken { bytes: HELD.load(Relaxed), calls: CALLS.load(Relaxed), resident }, result)
}

/// The resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size()
}

/// The figures of a probe, as it prints them. A figure that a subject does not have is left out.
#[derive(Default)]
struct Figures([Option<f64>; 5]);

const COLUMNS: [&str; 6] = ["subject", "bytes", "calls", "resident", "1 MiB gap", "steady calls"];

impl Figures {
    fn objects(&mut self, taken: &Taken) {
        let payload = (OBJECTS * size_of::<Object>() as u64) as f64;
        if taken.calls > 0 {
            self.0[0] = Some(taken.bytes as f64 / payload);
            self.0[1] = Some(taken.calls as f64);
        }
        self.0[2] = Some(taken.resident as f64 / payload);
    }
}

fn arena<S: Subject>() -> Figures {
    let fill = |arena: &S| {
        for i in 0..OBJECTS {
            black_box(arena.value::<Object>([i; 3]));
        }
    };
    let mut figures = Figures::default();
    let (objects, mut arena) = taken(|| {
        let arena = S::make();
        fill(&arena);
        arena
    });
    figures.objects(&objects);

    for _ in 0..3 {
        arena.clear();
        fill(&arena);
    }
    let (steady, ()) = taken(|| {
        arena.clear();
        fill(&arena);
    });
    figures.0[4] = Some(steady.calls as f64);

    let (gap, arena) = taken(|| {
        let arena = S::make();
        black_box(arena.value::<Object>([1; 3]));
        black_box(arena.raw(Layout::from_size_align(BIG, 8).expect("a layout")));
        black_box(arena.value::<Object>([1; 3]));
        arena
    });
    figures.0[3] = Some(gap.bytes as f64 / (BIG + 2 * size_of::<Object>()) as f64);
    drop(arena);
    figures
}

/// Allocates objects that are never freed, so that no list of them is needed.
fn heap<A: Malloc>() -> Figures {
    let mut figures = Figures::default();
    let (objects, ()) = taken(|| {
        for i in 0..OBJECTS {
            let block = A::IT.block(Layout::new::<Object>()).cast::<Object>();
            // SAFETY: the block has the layout of an object.
            unsafe { block.write([i; 3]) };
            black_box(block);
        }
    });
    figures.objects(&objects);
    figures
}

macro_rules! container {
    ($make:expr, |$all:ident, $object:ident| $put:expr) => {
        || {
            let mut figures = Figures::default();
            let (objects, all) = taken(|| {
                let mut all = $make;
                let $all = &mut all;
                for i in 0..OBJECTS {
                    let $object: Object = [i; 3];
                    black_box($put);
                }
                all
            });
            figures.objects(&objects);
            forget(all);
            figures
        }
    };
}

type Probe = (&'static str, fn() -> Figures);

const PROBES: [Probe; 14] = [
    ("nebula", arena::<Nebula<Up, 8>>),
    ("nebula (TypedArena)", container!(TypedArena::new(), |all, object| all.alloc(object))),
    ("bumpalo", arena::<Bumpalo>),
    ("bump-scope (down)", arena::<BumpScope<8, false>>),
    ("bump-scope (up)", arena::<BumpScope<1, true>>),
    ("blink-alloc", arena::<Blink>),
    ("stumpalo", arena::<Stumpalo>),
    ("oxc_allocator", arena::<Oxc>),
    ("typed-arena", container!(typed_arena::Arena::new(), |all, object| all.alloc(object))),
    ("slab", container!(slab::Slab::new(), |all, object| all.insert(object))),
    ("std (Vec)", container!(Vec::new(), |all, object| all.push(object))),
    ("system", heap::<System>),
    ("mimalloc", heap::<mimalloc::MiMalloc>),
    ("jemalloc", heap::<tikv_jemallocator::Jemalloc>),
];

/// Measures one subject and prints its figures for `run` to read.
pub fn probe(subject: &str) -> Result<(), String> {
    let (_, measure) = PROBES
        .iter()
        .find(|probe| probe.0 == subject)
        .ok_or_else(|| format!("there is no memory of {subject}"))?;
    let Figures(figures) = measure();
    println!("{}", figures.map(|figure| optional(figure, 6)).join(" "));
    Ok(())
}

/// Prints the table. Each subject runs in a process of its own, so that none reuses another's pages.
pub fn run(options: &Options) -> Result<(), String> {
    const WIDTHS: [usize; 6] = [26, 9, 9, 9, 10, 13];
    if !options.wants(CASE) {
        return Ok(());
    }
    let about = "24 MB of 24-byte objects, bytes to payload; calls to the base allocator";
    println!("\n{}{CASE}: {about}\n", if options.markdown { "### " } else { "" });
    head(&COLUMNS, &WIDTHS, options.markdown);
    for (name, _) in PROBES.iter().filter(|probe| options.wants_subject(probe.0)) {
        let failed = |error: &dyn std::fmt::Display| format!("the memory of {name}: {error}");
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let output = Command::new(program)
            .args(["--probe", name])
            .output()
            .map_err(|error| failed(&error))?;
        if !output.status.success() {
            return Err(failed(&String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.split_whitespace().map(|figure| figure.parse().ok());
        let mut cells = vec![report::title(name, options.markdown)];
        cells.extend(figures.zip([3, 0, 3, 3, 0]).map(|(figure, digits)| optional(figure, digits)));
        line(&cells, &WIDTHS, options.markdown);
    }
    Ok(())
}
