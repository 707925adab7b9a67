//! Allocators that count allocations, over the C library's, mimalloc and jemalloc. They are called as a
//! `#[global_allocator]` is: by a function that is not inlined, which knows neither size nor alignment.

use crate::{harness::Bench, heaps::Malloc, threads::both};
use cap::Cap;
use crossbeam_utils::CachePadded;
use mimalloc::MiMalloc;
use nebula_memory::{
    allocator::{
        ContextAllocator, TrackedAllocator,
        stats::{SharedCounters, StripedCounters},
    },
    integration::traits::{Context, ContextGuard},
};
use stats_alloc::StatsAlloc;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tikv_jemallocator::Jemalloc;
use tracking_allocator::{
    AllocationGroupId, AllocationGroupToken, AllocationGuard, AllocationRegistry, AllocationTracker,
};

const ONE: (&str, &str) = ("t1", "64 bytes from a tracking allocator, and freed");
const TWO: (&str, &str) = ("t2", "the same by two threads");
const ZEROED: (&str, &str) = ("t3", "256 MiB zeroed, and freed, by 64 KiB");
const GROW: (&str, &str) = ("t4", "from 16 KiB to 1 MiB by doubling, by realloc, each time");
const OVER_MIMALLOC: (&str, &str) = ("t5", "t1 over mimalloc");
const OVER_JEMALLOC: (&str, &str) = ("t6", "t1 over jemalloc");

/// Blocks of each thread.
const MANY: usize = 20_000;
const BYTES: usize = 64;
const ALIGN: usize = 8;
const LARGE: usize = 256 << 20;
const GROWN: std::ops::Range<usize> = 16 << 10..1 << 20;

/// A tracking allocator in a static, as a process's allocator would be.
trait Tracking: 'static {
    const NAME: &'static str;
    type Heap: GlobalAlloc + 'static;
    /// A guard that keeps a thread in the group or context that is counted.
    type Stay;
    fn heap() -> &'static Self::Heap;
    fn stay() -> Self::Stay;
}

macro_rules! tracking {
    ($name:ident: $title:expr, $heap:ty = $value:expr, $stay:ty = $enter:expr) => {
        struct $name;
        impl Tracking for $name {
            const NAME: &'static str = $title;
            type Heap = $heap;
            type Stay = $stay;
            #[inline(always)]
            fn heap() -> &'static $heap {
                static HEAP: $heap = $value;
                &HEAP
            }
            fn stay() -> $stay {
                $enter
            }
        }
    };
}

/// The allocators that count, over one heap.
macro_rules! over {
    ($heap:ty: $Alone:ident $Totals:ident $Shared:ident $Owned:ident $Both:ident $Capped:ident $Groups:ident) => {
        tracking!($Alone: <$heap as Malloc>::NAME, $heap = <$heap as Malloc>::IT, () = ());
        tracking!(
            $Totals: "nebula (totals)",
            TrackedAllocator<$heap, StripedCounters> =
                TrackedAllocator::with_counters(<$heap as Malloc>::IT, StripedCounters::new()),
            () = ()
        );
        tracking!(
            $Shared: "nebula (totals, SharedCounters)",
            TrackedAllocator<$heap, SharedCounters> =
                TrackedAllocator::with_counters(<$heap as Malloc>::IT, SharedCounters::new()),
            () = ()
        );
        tracking!(
            $Owned: "nebula (contexts)",
            ContextAllocator<$heap> = ContextAllocator::new(<$heap as Malloc>::IT),
            ContextGuard = context().enter()
        );
        tracking!(
            $Both: "nebula (contexts, totals)",
            TrackedAllocator<ContextAllocator<$heap>, StripedCounters> =
                TrackedAllocator::with_counters(
                    ContextAllocator::new(<$heap as Malloc>::IT),
                    StripedCounters::new(),
                ),
            ContextGuard = context().enter()
        );
        tracking!($Capped: "cap", Cap<$heap> = Cap::new(<$heap as Malloc>::IT, usize::MAX), () = ());
        tracking!(
            $Groups: "tracking-allocator",
            tracking_allocator::Allocator<$heap> =
                tracking_allocator::Allocator::from_allocator(<$heap as Malloc>::IT),
            AllocationGuard<'static> = group()
        );
    };
}

over!(System: Alone Totals Shared Owned Both Capped Groups);
over!(MiMalloc: MiAlone MiTotals MiShared MiOwned MiBoth MiCapped MiGroups);
over!(Jemalloc: JeAlone JeTotals JeShared JeOwned JeBoth JeCapped JeGroups);
// The constructor over another heap is no `const fn`.
tracking!(Stats: "stats_alloc", StatsAlloc<System> = StatsAlloc::system(), () = ());
tracking!(Dhat: "dhat", dhat::Alloc = dhat::Alloc, () = profile());

fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| Context::root("tenant").build())
}

/// The bytes by group. The crate leaves these sums to its user.
struct Sums([CachePadded<AtomicUsize>; 4]);

impl Sums {
    fn of(&self, group: AllocationGroupId) -> &AtomicUsize {
        &self.0[group.as_usize().get() % self.0.len()]
    }
}

impl AllocationTracker for Sums {
    fn allocated(&self, _: usize, size: usize, _: usize, group: AllocationGroupId) {
        self.of(group).fetch_add(size, Relaxed);
    }

    fn deallocated(
        &self,
        _: usize,
        size: usize,
        _: usize,
        group: AllocationGroupId,
        _: AllocationGroupId,
    ) {
        self.of(group).fetch_sub(size, Relaxed);
    }
}

/// Enters a group of tracking-allocator. Each call makes a new group, so that threads share none.
fn group() -> AllocationGuard<'static> {
    static ENABLED: OnceLock<()> = OnceLock::new();
    ENABLED.get_or_init(|| {
        let sums = Sums([const { CachePadded::new(AtomicUsize::new(0)) }; 4]);
        AllocationRegistry::set_global_tracker(sums).expect("there is no other");
        AllocationRegistry::enable_tracking();
    });
    // If two threads register at once, one may be told that there are too many tokens.
    let mut tokens = std::iter::repeat_with(AllocationGroupToken::register).flatten();
    let token = tokens.next().expect("it goes on until there is one");
    // A guard borrows its token, so each body has one.
    Box::leak(Box::new(token)).enter()
}

/// Profiles the process from now on. The profiler is never dropped, as it would write a file then.
fn profile() {
    static RUNNING: OnceLock<()> = OnceLock::new();
    RUNNING.get_or_init(|| std::mem::forget(dhat::Profiler::builder().testing().build()));
}

/// The four functions that the compiler makes of a `#[global_allocator]`.
///
/// Each requires a size that is not 0, an alignment that is a power of two, and a block of that heap.
struct Calls<T>(std::marker::PhantomData<T>);

impl<T: Tracking> Calls<T> {
    #[inline(never)]
    unsafe fn alloc(size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: likewise.
        unsafe { T::heap().alloc(layout) }
    }

    #[inline(never)]
    unsafe fn zeroed(size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: likewise.
        unsafe { T::heap().alloc_zeroed(layout) }
    }

    #[inline(never)]
    unsafe fn free(block: *mut u8, size: usize, align: usize) {
        // SAFETY: the caller's promise.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: likewise.
        unsafe { T::heap().dealloc(block, layout) }
    }

    #[inline(never)]
    unsafe fn grow(block: *mut u8, size: usize, align: usize, new: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: likewise.
        unsafe { T::heap().realloc(block, layout, new) }
    }
}

fn churn<T: Tracking>() {
    let _stay = T::stay();
    let (size, align) = (black_box(BYTES), black_box(ALIGN));
    for _ in 0..MANY {
        // SAFETY: the layout's size is not zero.
        let block = unsafe { Calls::<T>::alloc(size, align) };
        // SAFETY: the block was just taken, and is freed once.
        unsafe { Calls::<T>::free(black_box(block), size, align) };
    }
}

fn cases<T: Tracking>(bench: &mut Bench) {
    bench.add(ONE, MANY, T::NAME, || churn::<T>);
    bench.add_threads(TWO, 2 * MANY, T::NAME, || || both(churn::<T>));
    bench.add(ZEROED, LARGE / (64 << 10), T::NAME, || {
        || {
            let _stay = T::stay();
            let (size, align) = (black_box(LARGE), black_box(ALIGN));
            // SAFETY: the layout's size is not zero.
            let block = unsafe { Calls::<T>::zeroed(size, align) };
            assert!(!block.is_null(), "there is memory");
            // SAFETY: the block was just taken, and is freed once.
            unsafe { Calls::<T>::free(black_box(block), size, align) };
        }
    });
    bench.add(GROW, (GROWN.end / GROWN.start).ilog2() as usize, T::NAME, || {
        || {
            let _stay = T::stay();
            let (mut size, align) = (black_box(GROWN.start), black_box(ALIGN));
            // SAFETY: the layout's size is not zero.
            let mut block = unsafe { Calls::<T>::alloc(size, align) };
            while size < GROWN.end {
                assert!(!block.is_null(), "there is memory");
                // SAFETY: in use, with this layout; the new size is that of a layout.
                block = unsafe { Calls::<T>::grow(black_box(block), size, align, 2 * size) };
                size *= 2;
            }
            // SAFETY: in use, with this layout.
            unsafe { Calls::<T>::free(black_box(block), size, align) };
        }
    });
}

pub fn register(bench: &mut Bench) {
    cases::<Alone>(bench);
    cases::<Totals>(bench);
    cases::<Shared>(bench);
    cases::<Owned>(bench);
    cases::<Both>(bench);
    cases::<Capped>(bench);
    cases::<Stats>(bench);
    cases::<Groups>(bench);
    cases::<Dhat>(bench);

    macro_rules! over {
        ($case:ident: $($Subject:ident)*) => {
            $(bench.add($case, MANY, $Subject::NAME, || churn::<$Subject>);)*
        };
    }
    over!(OVER_MIMALLOC: MiAlone MiTotals MiShared MiOwned MiBoth MiCapped MiGroups);
    over!(OVER_JEMALLOC: JeAlone JeTotals JeShared JeOwned JeBoth JeCapped JeGroups);
}
