//! The bytes that contexts allocate. The process's global allocator counts them, as this test program uses
//! it.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    hint::black_box,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use nebula_memory::{
    Budget,
    allocator::{ContextAllocator, TrackedAllocator, stats::StripedCounters},
    core::Interrupted,
    integration::traits::{Cancellation, Context, checkpoint},
};
use std::{
    alloc::System,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Counts the calls that reach the system, and refuses requests when told to.
struct Base;

static ZEROED: AtomicUsize = AtomicUsize::new(0);
static MOVED: AtomicUsize = AtomicUsize::new(0);
thread_local!(static CALLS: Cell<usize> = const { Cell::new(0) });

static FAILS_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

fn fails(size: usize) -> bool {
    CALLS.set(CALLS.get() + 1);
    size >= FAILS_FROM.load(Relaxed)
}

// SAFETY: every call is passed on to the same call, or refused.
unsafe impl GlobalAlloc for Base {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return ptr::null_mut();
        }
        ZEROED.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if fails(new_size) {
            return ptr::null_mut();
        }
        MOVED.fetch_max(new_size, Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static HEAP: TrackedAllocator<ContextAllocator<Base>, StripedCounters> =
    TrackedAllocator::with_counters(ContextAllocator::new(Base), StripedCounters::new());

const MANY: usize = if cfg!(miri) { 8 } else { 2000 };

fn context(name: &str) -> Context {
    Context::root(name).build()
}

fn bytes(len: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(len))
}

#[test]
fn a_block_is_its_contexts_until_it_is_freed_wherever_that_is() {
    let [one, other] = ["one", "other"].map(context);
    let block = one.run(|| bytes(1000));
    assert_eq!([one.usage().used, other.usage().used], [1000, 0]);
    // The block grows outside of any context, and then in another context. It still counts for the first one.
    let mut block = block;
    block.reserve_exact(3000);
    assert_eq!(one.usage().used, 3000);
    let mut block = other.run(move || {
        block.reserve_exact(5000);
        block
    });
    assert_eq!([one.usage().used, other.usage().used], [5000, 0]);
    block.shrink_to(10);
    assert_eq!(one.usage().used, 10);
    thread::spawn(move || drop(block)).join().unwrap();
    assert_eq!((one.usage().used, one.allocated_bytes()), (0, 5000));
}

#[test]
fn a_context_is_not_charged_for_a_block_from_outside() {
    let tenant = context("tenant");
    let before = bytes(100);
    tenant.run(move || drop(before));
    assert_eq!((tenant.usage().used, tenant.allocated_bytes()), (0, 0));
}

#[test]
fn a_context_counts_the_bytes_of_live_and_ended_children() {
    let tenant = context("tenant");
    let own = tenant.run(|| bytes(7));
    let run = tenant.child("run").build();
    let step = run.child("step").build();
    let kept = [run.run(|| bytes(100)), step.run(|| bytes(1000))];
    assert_eq!([&tenant, &run, &step].map(|context| context.usage().used), [1107, 1100, 1000]);
    drop(step);
    assert_eq!([&tenant, &run].map(|context| context.usage().used), [1107, 1100]);
    drop(run);
    assert_eq!(tenant.usage().used, 1107);
    drop(kept);
    assert_eq!(tenant.usage().used, 7);
    // An ended context is forgotten in the end. The bytes that it allocated still count.
    drop(tenant.child("another").build());
    assert_eq!((tenant.usage().used, tenant.allocated_bytes()), (7, 1107));
    drop(own);
}

/// A later context reuses the counters of an ended one.
#[test]
fn counters_are_used_again_from_zero() {
    for n in 0..if cfg!(miri) { 10 } else { 100 } {
        let tenant = context("tenant");
        let usage = tenant.usage();
        assert_eq!((usage.used, usage.peak, tenant.allocated_bytes()), (0, 0, 0));
        let block = tenant.run(|| bytes(n));
        assert_eq!(tenant.usage().used, n);
        drop(tenant);
        drop(block);
    }
}

#[test]
fn blocks_have_their_alignment_and_their_bytes() {
    let tenant = context("tenant");
    let _entered = tenant.enter();
    for align in (0..13).map(|shift| 1 << shift) {
        for size in [1, 7, 64, 5000] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout's size is not zero.
            let block = unsafe { HEAP.alloc_zeroed(layout) };
            assert!(block.addr().is_multiple_of(align));
            // SAFETY: the block is of `size` bytes, written by the allocator.
            let bytes = unsafe { core::slice::from_raw_parts_mut(block, size) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            // SAFETY: the block is of this layout, and `block` is not used any more.
            let grown = unsafe { HEAP.realloc(block, layout, size + 4096) };
            assert!(grown.addr().is_multiple_of(align));
            // SAFETY: the block has more bytes than these, which were copied.
            let bytes = unsafe { core::slice::from_raw_parts(grown, size) };
            assert!(bytes.iter().all(|byte| *byte == 7));
            assert_eq!(tenant.usage().used, size + 4096);
            let layout = Layout::from_size_align(size + 4096, align).unwrap();
            // SAFETY: the block is of this layout.
            unsafe { HEAP.dealloc(grown, layout) };
        }
    }
    assert_eq!(tenant.usage().used, 0);
}

/// In a context or in none, on this thread or on another.
#[test]
fn the_hook_allocates_nothing_itself() {
    let tenant = context("tenant");
    let elsewhere = thread::spawn(|| bytes(100)).join().unwrap();
    let calls = |work: &mut dyn FnMut()| {
        let before = CALLS.get();
        work();
        CALLS.get() - before
    };
    assert_eq!(calls(&mut || drop(bytes(10))), 2);
    let _entered = tenant.enter();
    assert_eq!(calls(&mut || drop(bytes(10))), 2);
    let mut elsewhere = Some(elsewhere);
    assert_eq!(calls(&mut || drop(elsewhere.take())), 1);
    let mut grown = bytes(10);
    assert_eq!(calls(&mut || grown.reserve_exact(100)), 1);
}

/// Contexts are made and left inside of others. The outer contexts are not charged for it, and all counters
/// are reused.
#[test]
fn inner_contexts_cost_outer_contexts_nothing() {
    let [request, tenant] = ["request", "tenant"].map(context);
    let _entered = request.enter();
    for _ in 0..if cfg!(miri) { 10 } else { 1000 } {
        let step = tenant.child("step").build();
        let block = step.run(|| bytes(10));
        drop(step);
        assert_eq!(tenant.usage().used, 10);
        drop(block);
    }
    assert_eq!([&request, &tenant].map(|context| context.usage().used), [0, 0]);

    // Each context is entered before the one before is left, many times.
    let mut guard = tenant.enter();
    let before = CALLS.get();
    for n in 0..if cfg!(miri) { 20 } else { 1000 } {
        guard = if n % 2 == 0 { request.enter() } else { tenant.enter() };
    }
    assert!(CALLS.get() - before <= 2, "the list has as much room as is needed at once");
    drop(guard);
}

/// The outer contexts end with the last handle to an inner one. The thread that drops this handle is charged
/// for none of their lists.
#[test]
fn contexts_that_end_together_cost_the_ending_thread_nothing() {
    let tenant = context("tenant");
    let mut last = context("first");
    for _ in 0..if cfg!(miri) { 3 } else { 100 } {
        last = last.child("part").build();
    }
    tenant.run(move || drop(last));
    assert_eq!((tenant.usage().used, tenant.allocated_bytes()), (0, 0));
}

/// The lists of waiters belong to the budget and to the cancellation, which live on.
#[test]
#[cfg_attr(miri, ignore = "a thread that outlives the wait")]
fn a_wait_leaves_nothing_in_its_context() {
    let budget = Budget::root("process").limit(100).workers(2).build().unwrap();
    let held = budget.try_reserve(100).unwrap();
    let (tenant, shutdown) = (context("tenant"), Cancellation::new());
    tenant.run(|| {
        let request = budget.reserve(1).cancelled_by(&shutdown);
        request.timeout(Duration::from_millis(1)).wait().unwrap_err();
    });
    assert_eq!(tenant.usage().used, 0);
    drop((held, shutdown));
}

/// The reading thread may be interrupted in the middle of a sum, while other threads go on for as long.
#[test]
#[cfg_attr(miri, ignore = "by the clock")]
fn a_sum_does_not_add_up_short_lived_blocks() {
    const BLOCK: usize = 1 << 16;
    let tenant = Context::root("tenant").soft_limit(256 * BLOCK).build();
    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                tenant.run(|| {
                    while !is_over.load(Relaxed) {
                        drop(bytes(BLOCK));
                    }
                });
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) && tenant.checkpoint().is_ok() {}
        is_over.store(true, Relaxed);
        tenant.usage().peak
    });
    assert!(most <= 256 * BLOCK, "three blocks at a time, and {most} bytes were seen");
}

/// Other tracking allocators lose these optimisations: zeroed pages are not written, and blocks grow in
/// place.
#[test]
fn zeroed_and_resized_blocks_reach_the_same_call_below() {
    const SIZE: usize = 1 << 20;
    let mut zeroed = black_box(vec![0_u8; SIZE]);
    assert!(ZEROED.load(Relaxed) >= SIZE);
    zeroed.reserve_exact(SIZE);
    assert!(MOVED.load(Relaxed) >= 2 * SIZE);
}

#[test]
fn sizes_that_no_layout_has_are_refused() {
    let tenant = context("tenant");
    let _entered = tenant.enter();
    let largest = isize::MAX.unsigned_abs();
    // With the header none of these sizes is a valid layout.
    for (size, align) in [(largest, 1), (largest - 7, 8), (largest - 4095, 4096)] {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the layout's size is not zero.
        assert!(unsafe { HEAP.alloc(layout) }.is_null());
        // SAFETY: likewise.
        assert!(unsafe { HEAP.alloc_zeroed(layout) }.is_null());
    }
    assert_eq!(tenant.usage().used, 0);
}

#[test]
fn a_failed_allocation_is_not_counted_and_the_block_stays() {
    const LARGE: usize = 1 << 30;
    FAILS_FROM.store(LARGE, Relaxed);
    let tenant = context("tenant");
    let _entered = tenant.enter();
    let mut block = bytes(10);
    block.extend_from_slice(b"0123456789");
    block.try_reserve_exact(LARGE).unwrap_err();
    Vec::<u8>::new().try_reserve_exact(LARGE).unwrap_err();
    assert_eq!((tenant.usage().used, &*block), (10, b"0123456789".as_slice()));
}

#[test]
fn a_checkpoint_refuses_a_context_above_its_soft_limit() {
    let tenant = Context::root("tenant").soft_limit(1000).build();
    let run = tenant.child("run").build();
    let _entered = run.enter();
    let block = bytes(1000);
    checkpoint().unwrap();
    let more = bytes(1);
    let error = checkpoint().unwrap_err();
    assert!(matches!(error, Interrupted::OverLimit { used: 1001, limit: 1000, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "context `tenant` is interrupted: it holds 1001 B of a soft limit of 1000 B"
    );
    drop(more);
    checkpoint().unwrap();
    let usage = tenant.usage();
    assert_eq!(
        (usage.used, usage.peak, usage.capacity, usage.refused),
        (1000, 1001, Some(1000), 1)
    );
    tenant.set_soft_limit(Some(999));
    checkpoint().unwrap_err();
    tenant.set_soft_limit(None);
    checkpoint().unwrap();
    drop(block);
}

/// More threads than a context has stripes, and blocks that other threads resize and free. The sum is exact
/// whenever no thread is at work.
#[test]
fn many_threads_and_contexts_sum_exactly() {
    const THREADS: usize = if cfg!(miri) { 3 } else { 12 };
    let contexts: Vec<_> = (0..3).map(|n| context(&format!("tenant-{n}"))).collect();
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::channel::<(usize, Vec<u8>)>()).unzip();
        for (n, receiver) in receivers.into_iter().enumerate() {
            let (contexts, barrier) = (&contexts, &barrier);
            let next = senders[(n + 1) % THREADS].clone();
            scope.spawn(move || {
                let mut kept = Vec::new();
                for round in 0..MANY {
                    let owner = (n + round) % contexts.len();
                    let block = contexts[owner].run(|| bytes(1 + round % 700));
                    if round % 3 == 0 {
                        kept.push((owner, block));
                    } else {
                        let _ = next.send((owner, block));
                    }
                    if let Ok((owner, mut block)) = receiver.try_recv() {
                        block.reserve_exact(1000);
                        if round % 2 == 0 {
                            kept.push((owner, block));
                        } else {
                            contexts[(owner + 1) % contexts.len()].run(move || drop(block));
                        }
                    }
                }
                drop(next);
                // Received when no thread sends any more.
                barrier.wait();
                kept.extend(receiver.try_iter());
                let mut sums = vec![0; contexts.len()];
                kept.iter().for_each(|(owner, block)| sums[*owner] += block.capacity());
                barrier.wait();
                (sums, kept)
            });
        }
        drop(senders);
        barrier.wait();
        barrier.wait();
    });
    let used: Vec<_> = contexts.iter().map(|context| context.usage().used).collect();
    assert_eq!(used, [0, 0, 0], "all blocks are gone with their threads");
}

#[test]
#[cfg_attr(miri, ignore = "as many threads take too long")]
fn ten_thousand_short_threads_sum_exactly() {
    let tenant = context("tenant");
    let keep = thread::scope(|scope| {
        (0..100)
            .flat_map(|_| {
                let threads: Vec<_> = (0..100)
                    .map(|n| {
                        scope.spawn({
                            let tenant = &tenant;
                            move || tenant.run(|| bytes(n))
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    });
    let sum: usize = keep.iter().map(Vec::capacity).sum();
    // This thread is in no context. It allocates the library's own handles to threads, so that these do not
    // count.
    assert_eq!((tenant.usage().used, sum), (sum, 100 * 99 * 100 / 2));
    let stats = HEAP.stats();
    assert!(stats.usage.used >= sum);
    drop(keep);
    assert_eq!(tenant.usage().used, 0);
}

/// A thread ends with a guard that was forgotten. Its other locals allocate and free afterwards, which counts
/// for no context.
#[test]
fn a_thread_that_ends_has_left() {
    struct Last(Option<Vec<u8>>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.0 = Some(bytes(5000));
            ENDED.store(true, Relaxed);
        }
    }

    static ENDED: AtomicBool = AtomicBool::new(false);
    thread_local!(static LAST: Last = const { Last(None) });

    let tenant = context("tenant");
    let entered = tenant.clone();
    thread::spawn(move || {
        // This local is initialised before the thread's list of contexts. The platform decides which of the
        // two is dropped first.
        LAST.with(|_| ());
        core::mem::forget(entered.enter());
    })
    .join()
    .unwrap();
    assert!(ENDED.load(Relaxed));
    assert_eq!(tenant.usage().used, 0);
}
