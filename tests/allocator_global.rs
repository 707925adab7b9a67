//! Tests a tracked allocator as the process's global allocator. This program has a single test, and only the
//! test allocates blocks of the sizes that it counts.
#![cfg(all(feature = "std", not(miri)))]

use nebula_memory::allocator::{TrackedAllocator, stats::StripedCounters};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

/// Only the test allocates blocks of this size or more.
const LARGE: usize = 1 << 24;

/// Counts the calls with large sizes that reach the underlying allocator.
struct Below {
    alloc: AtomicUsize,
    alloc_zeroed: AtomicUsize,
    realloc: AtomicUsize,
}

fn note(calls: &AtomicUsize, size: usize) {
    calls.fetch_add(usize::from(size >= LARGE), Relaxed);
}

// SAFETY: every call is `System`'s own.
unsafe impl GlobalAlloc for Below {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(&self.alloc, layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(&self.alloc_zeroed, layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(&self.realloc, new_size);
        // SAFETY: the caller's promises.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

impl Below {
    fn calls(&self) -> [usize; 3] {
        [&self.alloc, &self.alloc_zeroed, &self.realloc].map(|calls| calls.load(Relaxed))
    }
}

#[global_allocator]
static HEAP: TrackedAllocator<Below, StripedCounters> = TrackedAllocator::with_counters(
    Below {
        alloc: AtomicUsize::new(0),
        alloc_zeroed: AtomicUsize::new(0),
        realloc: AtomicUsize::new(0),
    },
    StripedCounters::new(),
);

/// Returns the allocations and the live blocks of the size class that ends at `up_to`.
fn class(up_to: usize) -> (usize, usize) {
    let stats = HEAP.stats();
    let made = stats.made_by_size().find(|(size, _)| *size == up_to);
    let live = stats.live_by_size().find(|(size, _)| *size == up_to);
    (made.map_or(0, |(_, blocks)| blocks), live.map_or(0, |(_, blocks)| blocks))
}

#[test]
fn the_whole_process_is_counted_and_every_call_forwarded() {
    // Zeroed memory is requested with `alloc_zeroed`: nothing writes to these 256 MiB.
    let zero = black_box(vec![0_u8; 256 << 20]);
    assert_eq!(HEAP.inner().calls(), [0, 1, 0]);
    assert_eq!(class(256 << 20), (1, 1));
    let stats = HEAP.stats();
    assert!(stats.usage.used >= zero.len() && stats.usage.peak >= stats.usage.used);
    drop(zero);
    assert_eq!(class(256 << 20), (1, 0));
    assert!(HEAP.stats().usage.peak >= 256 << 20, "the peak stays");

    // A vector grows with `realloc`.
    let mut grown = Vec::<u8>::with_capacity(LARGE);
    grown.reserve_exact(2 * LARGE);
    grown.push(1);
    assert_eq!(HEAP.inner().calls(), [1, 1, 1]);
    assert_eq!((class(LARGE), class(2 * LARGE)), ((1, 0), (1, 1)));
    grown.shrink_to(LARGE);
    assert_eq!(HEAP.inner().calls(), [1, 1, 2]);
    assert_eq!((class(LARGE), class(2 * LARGE)), ((2, 1), (1, 0)));
    drop(grown);
    assert_eq!(class(LARGE), (2, 0));

    // A request that cannot be served is counted, and returns a null pointer.
    let refused = HEAP.stats().usage.refused;
    let impossible = Layout::from_size_align(isize::MAX as usize - 4095, 1).unwrap();
    // SAFETY: the size is not zero.
    assert!(unsafe { HEAP.alloc(black_box(impossible)) }.is_null());
    assert_eq!(HEAP.stats().usage.refused, refused + 1);

    // Many threads allocate blocks and end. This thread frees the blocks.
    const SIZE: usize = 3 << 20;
    let handed: Vec<_> = (0..64)
        .map(|_| thread::spawn(|| Vec::<u8>::with_capacity(SIZE)))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(class(4 << 20), (64, 64));
    drop(handed);
    assert_eq!(class(4 << 20), (64, 0));
}
