//! One arena, two threads: i with a handle for each, i2 with `alloc(&self)`.

use crate::{
    harness::Bench,
    subjects::{Bumpalo, Floor, Nebula, Oxc, Stumpalo, Subject},
};
use blink_alloc::{Blink, SyncBlinkAlloc};
use nebula_memory::{allocator::bump::Up, arena::SharedArena};
use std::{
    alloc::Layout,
    cell::Cell,
    hint::{black_box, spin_loop},
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const HANDLE: (&str, &str) = ("i", "one arena, two threads, u64 by a handle for each");
const SHARED: (&str, &str) = ("i2", "one arena, two threads, u64 by alloc(&self)");

/// Allocations of each thread.
const MANY: usize = 50_000;

/// Adds a subject. Each thread runs `each` on the shared value.
fn pair<A: Sync + 'static>(
    bench: &mut Bench,
    case: (&'static str, &'static str),
    name: &'static str,
    make: fn() -> A,
    each: impl Fn(&A) + Copy + Sync + 'static,
    clear: fn(&mut A),
) {
    bench.add_threads(case, 2 * MANY, name, move || {
        let mut shared = make();
        move || {
            let took = both(|| each(&shared));
            clear(&mut shared);
            took
        }
    });
}

/// Runs `each` on two threads that start together. Returns the sum of their times.
pub fn both(each: impl Fn() + Sync) -> Duration {
    let ready = AtomicUsize::new(0);
    let timed = || {
        ready.fetch_add(1, Ordering::Relaxed);
        let mut waited = 0;
        while ready.load(Ordering::Relaxed) < 2 {
            waited += 1;
            if waited % 100 == 0 {
                thread::yield_now();
            }
            spin_loop();
        }
        let start = Instant::now();
        each();
        start.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(timed);
        timed() + other.join().expect("allocations do not panic")
    })
}

/// Arenas that cannot be shared. Each is used by one thread at a time.
struct Lent<S>(Mutex<Vec<S>>);

fn lent<S: Subject + Send>(bench: &mut Bench, name: &'static str) {
    pair(
        bench,
        HANDLE,
        name,
        || Lent(Mutex::new(vec![S::make(), S::make()])),
        |lent: &Lent<S>| {
            let arena = lent.0.lock().expect("no panic").pop().expect("one for each");
            for i in 0..MANY as u64 {
                black_box(arena.value(i));
            }
            lent.0.lock().expect("no panic").push(arena);
        },
        |lent| lent.0.get_mut().expect("no panic").iter_mut().for_each(S::clear),
    );
}

fn handles(bench: &mut Bench) {
    pair(
        bench,
        HANDLE,
        "nebula (handle)",
        <SharedArena>::new,
        |arena| {
            let handle = arena.handle();
            for i in 0..MANY as u64 {
                black_box(handle.alloc(i));
            }
        },
        SharedArena::reset,
    );
    lent::<Nebula<Up, 8>>(bench, "nebula (an arena each)");
    pair(
        bench,
        HANDLE,
        "blink-alloc (local)",
        SyncBlinkAlloc::new,
        |arena| {
            let handle = Blink::new_in(arena.local());
            for i in 0..MANY as u64 {
                black_box(handle.put_no_drop(i));
            }
        },
        SyncBlinkAlloc::reset,
    );
    pair(
        bench,
        HANDLE,
        "bump-scope (BumpPool)",
        bump_scope::BumpPool::<bump_scope::alloc::Global>::new,
        |pool| {
            let bump = pool.get();
            for i in 0..MANY as u64 {
                black_box(bump_scope::BumpBox::leak(bump.alloc(i)));
            }
        },
        bump_scope::BumpPool::reset_to_start,
    );
    lent::<Bumpalo>(bench, "bumpalo (an arena each)");
    lent::<Stumpalo>(bench, "stumpalo (an arena each)");
    lent::<Oxc>(bench, "oxc_allocator (an arena each)");
    lent::<Floor>(bench, "floor (an arena each)");
}

/// One region, and one atomic read-modify-write for each allocation: the cost of plain sharing.
struct Atomic {
    left: AtomicUsize,
    region: Box<[Cell<u64>]>,
}

// SAFETY: no two allocations get the same element.
unsafe impl Sync for Atomic {}

impl Atomic {
    #[inline(always)]
    fn alloc(&self, value: u64) -> &Cell<u64> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        let slot = &self.region[left - 1];
        slot.set(value);
        slot
    }
}

fn shared(bench: &mut Bench) {
    pair(
        bench,
        SHARED,
        "nebula",
        <SharedArena>::new,
        |arena| {
            for i in 0..MANY as u64 {
                black_box(arena.alloc(i));
            }
        },
        SharedArena::reset,
    );
    pair(
        bench,
        SHARED,
        "blink-alloc (sync)",
        SyncBlinkAlloc::new,
        |arena| {
            for i in 0..MANY as u64 {
                let block = arena.allocate(Layout::new::<u64>()).expect("there is memory");
                // SAFETY: the block has the layout of a `u64`.
                unsafe { block.cast::<u64>().write(i) };
                black_box(block.cast::<u64>());
            }
        },
        SyncBlinkAlloc::reset,
    );
    pair(
        bench,
        SHARED,
        "bumpalo (Mutex)",
        || Mutex::new(bumpalo::Bump::new()),
        |arena| {
            for i in 0..MANY as u64 {
                black_box(NonNull::from(arena.lock().expect("no panic").alloc(i)));
            }
        },
        |arena| arena.get_mut().expect("no panic").reset(),
    );
    pair(
        bench,
        SHARED,
        "atomic bump, by hand",
        || Atomic {
            left: AtomicUsize::new(2 * MANY),
            region: std::iter::repeat_with(Cell::default).take(2 * MANY).collect(),
        },
        |arena| {
            for i in 0..MANY as u64 {
                black_box(arena.alloc(i));
            }
        },
        |arena| *arena.left.get_mut() = 2 * MANY,
    );
    thread_local(bench);
}

/// A bump arena of this thread's own, which each allocation looks up.
fn thread_local(bench: &mut Bench) {
    thread_local! {
        static OWN: Cell<Option<NonNull<Floor>>> = const { Cell::new(None) };
    }
    pair(
        bench,
        SHARED,
        "floor (thread_local)",
        || Lent(Mutex::new(vec![Floor::make(), Floor::make()])),
        |lent: &Lent<Floor>| {
            let mut arena = lent.0.lock().expect("no panic").pop().expect("one for each");
            OWN.set(Some(NonNull::from(&mut arena)));
            for i in 0..MANY as u64 {
                let own = black_box(&OWN).get().expect("set above");
                // SAFETY: the pointer was set above to an arena that outlives the loop and that only this
                // thread uses.
                black_box(unsafe { own.as_ref() }.value(i));
            }
            OWN.set(None);
            lent.0.lock().expect("no panic").push(arena);
        },
        |lent| lent.0.get_mut().expect("no panic").iter_mut().for_each(Floor::clear),
    );
}

pub fn register(bench: &mut Bench) {
    handles(bench);
    shared(bench);
}
