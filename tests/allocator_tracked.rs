//! Counts of allocated memory: they are exact, each call is forwarded, and every count returns to zero.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    allocator::{
        AllocError, Allocator, SystemAllocator, TrackedAllocator, TypedAllocator,
        stats::{AllocStats, CallSites, Counters, LocalCounters, SharedCounters, StripedCounters},
    },
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    cell::RefCell,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::{Arc, Barrier},
    thread,
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// An allocator that records which of its methods were called.
#[derive(Default)]
struct Noting {
    calls: RefCell<Vec<&'static str>>,
}

// SAFETY: every method is `SystemAllocator`'s own.
unsafe impl Allocator for Noting {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.calls.borrow_mut().push("allocate");
        SystemAllocator.allocate(layout)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.calls.borrow_mut().push("allocate_zeroed");
        SystemAllocator.allocate_zeroed(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.calls.borrow_mut().push("deallocate");
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.deallocate(block, layout) }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.calls.borrow_mut().push("grow");
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.grow(block, old, new) }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.calls.borrow_mut().push("grow_zeroed");
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.grow_zeroed(block, old, new) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.calls.borrow_mut().push("shrink");
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.shrink(block, old, new) }
    }
}

#[test]
fn every_call_goes_to_the_same_call_below() {
    let tracked = TrackedAllocator::new(Noting::default());
    let [small, large] = [layout(100, 8), layout(200, 8)];
    let zero = tracked.allocate_zeroed(small).unwrap();
    // SAFETY: the block is allocated with this layout.
    let zero = unsafe { tracked.grow_zeroed(zero.cast(), small, large) }.unwrap();
    // SAFETY: as above.
    unsafe { tracked.deallocate(zero.cast(), large) };
    let block = tracked.allocate(small).unwrap();
    // SAFETY: as above.
    let block = unsafe { tracked.grow(block.cast(), small, large) }.unwrap();
    // SAFETY: as above.
    let block = unsafe { tracked.shrink(block.cast(), large, small) }.unwrap();
    // SAFETY: as above.
    unsafe { tracked.deallocate(block.cast(), small) };
    assert_eq!(
        *tracked.inner().calls.borrow(),
        [
            "allocate_zeroed",
            "grow_zeroed",
            "deallocate",
            "allocate",
            "grow",
            "shrink",
            "deallocate"
        ],
    );
    let stats = tracked.stats();
    assert_eq!((stats.allocations(), stats.frees(), stats.grows, stats.shrinks), (2, 2, 2, 1));
    assert_eq!((stats.usage.used, stats.usage.peak), (0, 200));
}

#[test]
fn a_block_has_exactly_the_requested_length() {
    let base = Awkward::new(13);
    let tracked = TrackedAllocator::new(&base);
    let block = tracked.allocate(layout(10, 1)).unwrap();
    assert_eq!(block.len(), 10);
    // SAFETY: the block is allocated with this layout.
    let block = unsafe { tracked.grow(block.cast(), layout(10, 1), layout(20, 1)) }.unwrap();
    assert_eq!(block.len(), 20);
    // SAFETY: as above; a container may free with the length that the allocator returned.
    unsafe { tracked.deallocate(block.cast(), layout(block.len(), 1)) };
    assert_eq!(tracked.used_bytes(), 0);
    assert!(base.live().is_empty() && tracked.leaks().is_none());
}

#[cfg(feature = "allocator-api2-02")]
#[test]
fn a_hash_map_frees_exactly_its_counted_bytes() {
    let base = Awkward::new(4096);
    let tracked = TrackedAllocator::new(&base);
    let mut map = hashbrown::HashMap::new_in(&tracked);
    map.extend((0..100).map(|i| (i, i)));
    assert!(tracked.used_bytes() > 800);
    drop(map);
    let stats = tracked.stats();
    assert_eq!((stats.usage.used, stats.live_blocks()), (0, 0));
}

#[test]
fn a_failed_request_is_counted_and_changes_nothing_else() {
    let base = Awkward::new(0);
    let tracked = TrackedAllocator::new(&base);
    let block = tracked.allocate(layout(100, 8)).unwrap();
    base.most.set(0);
    assert_eq!(tracked.allocate(layout(5, 1)), Err(AllocError));
    assert_eq!(tracked.allocate_zeroed(layout(5, 1)), Err(AllocError));
    for new in [100, 200] {
        // SAFETY: the block is allocated with this layout, and stays so, as there is no memory.
        let grown = unsafe { tracked.grow(block.cast(), layout(100, 8), layout(new, 8)) };
        assert_eq!(grown, Err(AllocError));
    }
    // SAFETY: as above.
    let shrunk = unsafe { tracked.shrink(block.cast(), layout(100, 8), layout(50, 8)) };
    assert_eq!(shrunk, Err(AllocError));
    let stats = tracked.stats();
    assert_eq!((stats.usage.used, stats.usage.refused, stats.live_blocks()), (100, 5, 1));
    assert_eq!((stats.allocations(), stats.grows, stats.shrinks), (1, 0, 0));
    // SAFETY: the block is allocated with this layout.
    unsafe { tracked.deallocate(block.cast(), layout(100, 8)) };
    assert_eq!(tracked.used_bytes(), 0);
}

/// One step. An index is taken modulo the number of live blocks.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate(usize),
    Free(usize),
    Resize(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..20_usize, 0..3000_usize];
    prop_oneof![
        size().prop_map(Step::Allocate),
        any::<usize>().prop_map(Step::Free),
        (any::<usize>(), size()).prop_map(|(which, size)| Step::Resize(which, size)),
    ]
}

/// Runs the steps. After each step it compares the statistics with plain sums.
fn hold_against_sums<C: Counters>(steps: &[Step], counters: C, exact_peak: bool) -> AllocStats {
    let tracked = TrackedAllocator::with_counters(SystemAllocator, counters);
    let mut live: Vec<(NonNull<u8>, Layout)> = Vec::new();
    let (mut peak, mut made, mut freed) = (0, 0, 0);
    for &step in steps {
        match step {
            Step::Allocate(size) => {
                let layout = layout(size, 8);
                live.push((tracked.allocate(layout).unwrap().cast(), layout));
                made += 1;
            }
            Step::Free(which) if !live.is_empty() => {
                let (block, layout) = live.swap_remove(which % live.len());
                // SAFETY: the block is live, with this layout.
                unsafe { tracked.deallocate(block, layout) };
                freed += 1;
            }
            Step::Resize(which, size) if !live.is_empty() => {
                let at = which % live.len();
                let ((block, old), new) = (live[at], layout(size, 8));
                let block = if new.size() >= old.size() {
                    // SAFETY: the block is live, with this layout.
                    unsafe { tracked.grow(block, old, new) }
                } else {
                    // SAFETY: as above.
                    unsafe { tracked.shrink(block, old, new) }
                };
                live[at] = (block.unwrap().cast(), new);
            }
            Step::Free(_) | Step::Resize(..) => {}
        }
        let bytes = live.iter().map(|(_, layout)| layout.size()).sum();
        peak = peak.max(bytes);
        let stats = tracked.stats();
        assert_eq!((stats.usage.used, stats.live_blocks()), (bytes, live.len()));
        assert_eq!((stats.allocations(), stats.frees()), (made, freed));
        for (up_to, blocks) in stats.live_by_size() {
            let sizes = if up_to == 1 { 0..=1 } else { up_to / 2 + 1..=up_to };
            let of_class = live.iter().filter(|(_, layout)| sizes.contains(&layout.size()));
            assert_eq!(blocks, of_class.count(), "up to {up_to}");
        }
        assert!(if exact_peak { stats.usage.peak == peak } else { stats.usage.peak <= peak });
    }
    for (block, layout) in live {
        // SAFETY: the block is live, with this layout.
        unsafe { tracked.deallocate(block, layout) };
    }
    assert!(tracked.leaks().is_none());
    tracked.stats()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_counters_agree_with_a_plain_sum(
        steps in proptest::collection::vec(any_step(), 0..if cfg!(miri) { 10 } else { 200 }),
    ) {
        let local = hold_against_sums(&steps, LocalCounters::new(), true);
        let shared = hold_against_sums(&steps, SharedCounters::new(), true);
        // The test reads the statistics after every step, so the striped counters miss no peak either.
        let striped = hold_against_sums(&steps, StripedCounters::new(), true);
        prop_assert_eq!(&local, &shared);
        prop_assert_eq!(&local, &striped);
        if !cfg!(miri) {
            let sites = CallSites::every_bytes(NonZeroUsize::new(1000).unwrap());
            prop_assert_eq!(&local, &hold_against_sums(&steps, sites, true));
        }
    }
}

/// Each thread allocates, resizes and frees blocks, and leaves one block that this thread frees.
fn sum_over_threads<C: Counters + Send + Sync>(counters: C, threads: usize) {
    const WAVE: usize = 50;
    let tracked = TrackedAllocator::with_counters(SystemAllocator, counters);
    for wave in (0..threads).step_by(WAVE) {
        let wave = WAVE.min(threads - wave);
        let handed = thread::scope(|scope| {
            let work = |_| scope.spawn(|| (&tracked).alloc_value([1_u8; 24]).unwrap());
            let threads: Vec<_> = (0..wave).map(work).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(tracked.stats().usage.used, wave * 24);
        drop(handed);
    }
    let stats = tracked.stats();
    assert_eq!((stats.allocations(), stats.frees()), (threads, threads));
    assert_eq!((stats.usage.used, stats.live_blocks()), (0, 0));
}

#[test]
fn ten_thousand_short_threads_sum_exactly() {
    let threads = if cfg!(miri) { 12 } else { 10_000 };
    sum_over_threads(StripedCounters::new(), threads);
    sum_over_threads(SharedCounters::new(), threads / 4);
}

#[test]
fn the_stripes_peak_is_short_of_the_true_one_by_a_mebibyte_at_most() {
    let tracked = TrackedAllocator::with_counters(SystemAllocator, StripedCounters::new());
    let (threads, blocks) = if cfg!(miri) { (2, 20) } else { (8, 400) };
    let all_hold = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let held: Vec<_> =
                    (0..blocks).map(|_| (&tracked).alloc_value([0_u8; 10_000]).unwrap()).collect();
                all_hold.wait();
                drop(held);
            });
        }
    });
    let most = threads * blocks * 10_000;
    let peak = tracked.stats().usage.peak;
    assert!((most.saturating_sub(1 << 20)..=most).contains(&peak), "{peak}");
    assert_eq!(tracked.used_bytes(), 0);
}

#[test]
fn an_exact_peak_is_exact_with_many_threads() {
    let tracked = Arc::new(TrackedAllocator::with_counters(SystemAllocator, SharedCounters::new()));
    let all_hold = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (tracked, all_hold) = (Arc::clone(&tracked), Arc::clone(&all_hold));
            thread::spawn(move || {
                let held = (&*tracked).alloc_value([0_u8; 100]).unwrap();
                all_hold.wait();
                drop(held);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((tracked.used_bytes(), tracked.peak_bytes()), (0, 400));
}

#[cfg(not(miri))]
#[inline(never)]
fn a_function_that_forgets<A: Allocator>(allocator: &A, size: usize) -> NonNull<u8> {
    allocator.allocate(layout(size, 1)).unwrap().cast()
}

#[cfg(not(miri))] // The names come from debug information, which Miri reads in other ways.
#[test]
fn a_leak_report_names_the_function_that_allocated() {
    let tracked =
        TrackedAllocator::with_counters(SystemAllocator, CallSites::every_bytes(NonZeroUsize::MIN));
    let first = a_function_that_forgets(&tracked, 100);
    let second = a_function_that_forgets(&tracked, 50);
    // SAFETY: the block is allocated with this layout; it keeps its recorded origin.
    let second = unsafe { tracked.grow(second, layout(50, 1), layout(5000, 1)) }.unwrap().cast();
    drop((&tracked).alloc_value([0_u8; 9]).unwrap());

    let report = tracked.leaks().expect("two blocks are live");
    assert_eq!(report.live_blocks(), 2);
    let bytes: Vec<_> = report.call_sites.iter().map(|site| (site.blocks, site.bytes)).collect();
    assert_eq!(bytes, [(1, 5000), (1, 100)], "the most first, one per line of this test");
    for site in &report.call_sites {
        let innermost = site.trace.lines().next().unwrap();
        assert!(innermost.contains("a_function_that_forgets"), "{}", site.trace);
        assert!(site.trace.contains("a_leak_report_names_the_function_that_allocated"));
    }
    let text = report.to_string();
    assert!(text.starts_with("2 blocks, 5.0 KiB, still allocated\n  1 of up to 128 B\n"), "{text}");
    assert!(text.contains("sampled: 1 block, 100 B, from\n"), "{text}");
    // SAFETY: the blocks are allocated with these layouts.
    unsafe { tracked.deallocate(second, layout(5000, 1)) };
    // SAFETY: as above.
    unsafe { tracked.deallocate(first, layout(100, 1)) };
    assert!(tracked.leaks().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "to walk a call stack takes a minute")]
fn only_a_sample_of_small_blocks_has_a_site_and_every_large_one() {
    let sites = CallSites::every_bytes(NonZeroUsize::new(1000).unwrap());
    let tracked = TrackedAllocator::with_counters(SystemAllocator, sites);
    let small: Vec<_> = (0..50).map(|_| (&tracked).alloc_value([0_u8; 100]).unwrap()).collect();
    let large: Vec<_> = (0..3).map(|_| (&tracked).alloc_value([0_u8; 1000]).unwrap()).collect();
    let sampled: usize = tracked.leaks().unwrap().call_sites.iter().map(|site| site.blocks).sum();
    assert_eq!(sampled, 5 + 3);
    drop(small);
    let report = tracked.leaks().unwrap();
    let left: usize = report.call_sites.iter().map(|site| site.bytes).sum();
    assert_eq!((left, report.live_blocks()), (3000, 3));
    drop(large);
    assert!(tracked.leaks().is_none());
}

#[test]
fn sites_stay_with_their_blocks_when_threads_reuse_addresses() {
    let sites = CallSites::every_bytes(NonZeroUsize::MIN);
    let tracked = TrackedAllocator::with_counters(SystemAllocator, sites);
    let rounds = if cfg!(miri) { 1 } else { 300 };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let block = tracked.allocate(layout(64, 8)).unwrap().cast();
                    // SAFETY: the block is allocated with this layout.
                    let block = unsafe { tracked.grow(block, layout(64, 8), layout(4096, 8)) };
                    // SAFETY: as above.
                    unsafe { tracked.deallocate(block.unwrap().cast(), layout(4096, 8)) };
                }
            });
        }
    });
    let kept = (&tracked).alloc_value(7_u64).unwrap();
    let report = tracked.leaks().unwrap();
    assert_eq!(report.call_sites.iter().map(|site| site.blocks).sum::<usize>(), 1);
    drop(kept);
}

#[cfg(feature = "serde")]
#[test]
#[cfg_attr(miri, ignore = "to walk a call stack takes a minute")]
fn figures_are_logged_as_they_are_read() {
    use serde_json::json;

    let tracked = TrackedAllocator::with_counters(
        SystemAllocator,
        CallSites::every_bytes(NonZeroUsize::new(1000).unwrap()),
    );
    let large = (&tracked).alloc_value([0_u8; 1000]).unwrap();
    drop((&tracked).alloc_value(7_u32).unwrap());
    let mut stats = json!({
        "usage": {"used": 1000, "peak": 1004, "capacity": null, "refused": 0, "reclaimed": 0},
        "allocations": 2, "frees": 1, "live_blocks": 1, "grows": 0, "shrinks": 0,
        "live_by_size": {"4": 0, "1024": 1}, "made_by_size": {"4": 1, "1024": 1},
        "call_sites": [],
    });
    assert_eq!(serde_json::to_value(tracked.stats()).unwrap(), stats);

    let report = tracked.leaks().expect("one block is live");
    let trace = &report.call_sites[0].trace;
    let sites = json!([{"blocks": 1, "bytes": 1000, "trace": trace}]);
    stats["call_sites"] = sites;
    assert_eq!(serde_json::to_value(&report).unwrap(), stats);
    drop(large);
}
