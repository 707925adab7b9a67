//! The allocators that many threads share.
#![cfg(feature = "std")]

use nebula_memory::{
    allocator::{
        AllocError, Allocator, BlockPool, SharedBlockPool, SystemAllocator, TypedAllocator,
    },
    core::MemoryUsage,
};
use std::{
    alloc::Layout,
    collections::HashSet,
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };

/// Counts the bytes of allocated blocks.
#[derive(Default)]
struct Counting(AtomicUsize);

// SAFETY: every block is `SystemAllocator`'s.
unsafe impl Allocator for &Counting {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = SystemAllocator.allocate(layout)?;
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        Ok(block)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

/// A base allocator that calls the hook once, at the next request. The hook returns whether there is memory.
struct Hooked {
    hook: Mutex<Option<Box<dyn FnOnce() -> bool + Send>>>,
    allocations: AtomicUsize,
}

// SAFETY: every block is `SystemAllocator`'s.
unsafe impl Allocator for &Hooked {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let hook = self.hook.lock().unwrap().take();
        if hook.is_some_and(|hook| !hook()) {
            return Err(AllocError);
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        SystemAllocator.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

/// Writes `mark` to a block in use. No other code writes to the block.
fn write(block: NonNull<u8>, mark: u64) {
    // SAFETY: the tests' blocks are three words, aligned, and the caller's.
    unsafe { block.cast::<[u64; 3]>().write([mark; 3]) };
}

fn check(block: NonNull<u8>, mark: u64) {
    // SAFETY: as above, and written.
    assert_eq!(unsafe { block.cast::<[u64; 3]>().read() }, [mark; 3]);
}

fn free<A: Allocator>(pool: &SharedBlockPool<A>, block: NonNull<u8>) {
    // SAFETY: the callers' block, which they do not use again.
    unsafe { pool.free_block(block) };
}

#[test]
fn blocks_that_the_base_allocator_frees_are_not_lost() {
    static BASE: Hooked = Hooked { hook: Mutex::new(None), allocations: AtomicUsize::new(0) };
    // Counts below, at and above the size of a magazine.
    let counts = [1, 5, 31, 32, 33, 64, 65, 100];
    for (freed, fails) in counts.into_iter().flat_map(|freed| [(freed, false), (freed, true)]) {
        let pool = BlockPool::for_type::<[u64; 3]>().first_slab_blocks(100).build_shared_in(&BASE);
        let pool = Arc::new(pool.unwrap());
        let mut blocks: Vec<_> = (0..100).map(|_| pool.take_block().unwrap()).collect();
        let allocations = BASE.allocations.load(Ordering::Relaxed);
        let given = blocks.split_off(100 - freed);
        let addresses: HashSet<_> = given.iter().copied().collect();
        let (theirs, given) = (Arc::clone(&pool), given.into_iter().map(Sent).collect::<Vec<_>>());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let took = Arc::clone(&taken);
        *BASE.hook.lock().unwrap() = Some(Box::new(move || {
            given.into_iter().for_each(|Sent(block)| free(&theirs, block));
            // The remaining block may be in the spare magazine alone.
            if freed > 1 {
                took.lock().unwrap().push(Sent(theirs.take_block().unwrap()));
            }
            !fails
        }));
        blocks.push(pool.take_block().unwrap());
        blocks.extend(taken.lock().unwrap().drain(..).map(|Sent(block)| block));
        let more = if fails { 0 } else { 1 };
        while BASE.allocations.load(Ordering::Relaxed) <= allocations + more {
            blocks.push(pool.take_block().unwrap());
        }
        let taken: HashSet<_> = blocks.iter().copied().collect();
        assert_eq!(taken.len(), blocks.len(), "a block is given out once");
        assert_eq!(addresses.difference(&taken).count(), 0, "of {freed} some are lost");
        blocks.into_iter().for_each(|block| free(&pool, block));
    }
}

/// Sends a block to another thread.
struct Sent(NonNull<u8>);
// SAFETY: a block of a shared pool belongs to no thread.
unsafe impl Send for Sent {}

#[test]
fn blocks_that_wander_between_threads_are_one_owners_at_a_time() {
    let base = Counting::default();
    for most in [usize::MAX, 4000] {
        let options = BlockPool::for_type::<[u64; 3]>().max_blocks(most);
        let pool = options.build_shared_in(&base).unwrap();
        let passed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 0..4 {
                let (pool, passed) = (&pool, &passed);
                scope.spawn(move || {
                    let mut own = Vec::new();
                    for round in 0..ROUNDS {
                        let mark = thread * ROUNDS + round;
                        let block = pool.take_block().unwrap();
                        write(block, mark);
                        own.push((Sent(block), mark));
                        if own.len() > 40 + usize::try_from(round % 90).unwrap() {
                            let mut shared = passed.lock().unwrap();
                            shared.append(&mut own);
                            let half = shared.len() / 2;
                            own.extend(shared.drain(half..));
                        }
                        while own.len() > 100 {
                            let which = usize::try_from(round).unwrap() % 100;
                            let (Sent(block), mark) = own.swap_remove(which);
                            check(block, mark);
                            free(pool, block);
                        }
                    }
                    passed.lock().unwrap().append(&mut own);
                });
            }
        });
        for (Sent(block), mark) in passed.into_inner().unwrap() {
            check(block, mark);
            free(&pool, block);
        }
        assert!(pool.held_bytes() == base.0.load(Ordering::Relaxed) && pool.held_bytes() > 0);
        drop(pool);
        assert_eq!(base.0.load(Ordering::Relaxed), 0, "all slabs went back");
    }
}

#[test]
fn blocks_freed_by_another_thread_are_used_again() {
    let pool = BlockPool::for_type::<[u64; 3]>().build_shared().unwrap();
    thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel(100);
        let pool = &pool;
        scope.spawn(move || {
            for mark in 0..ROUNDS {
                send.send((pool.alloc_value([mark; 3]).unwrap(), mark)).unwrap();
            }
        });
        scope.spawn(move || {
            for (block, mark) in receive {
                assert_eq!(*block, [mark; 3]);
            }
        });
    });
    let (most, blocks) = (100 + 2 * 2 * 32 + 64, pool.peak_bytes() / pool.block_layout().size());
    assert!(blocks <= most, "{blocks} blocks for the 100 that were out and the caches");
}

/// A base allocator that answers its first call only when the test allows it. It counts its calls and the
/// allocated bytes.
struct Slow {
    out: Counting,
    calls: AtomicUsize,
    asked: Barrier,
    answered: Barrier,
}

impl Slow {
    fn new() -> Self {
        let (asked, answered) = (Barrier::new(2), Barrier::new(2));
        Self { out: Counting::default(), calls: AtomicUsize::new(0), asked, answered }
    }
}

// SAFETY: every block is `SystemAllocator`'s.
unsafe impl Allocator for &Slow {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            self.asked.wait();
            self.answered.wait();
        }
        (&self.out).allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { (&self.out).deallocate(block, layout) };
    }
}

/// Takes a block on another thread. Calls `meanwhile` while that thread waits for a slab of `base`.
fn while_another_thread_grows<R>(
    pool: &SharedBlockPool<&Slow>,
    base: &Slow,
    meanwhile: impl FnOnce() -> R,
) -> (Result<(), AllocError>, R) {
    thread::scope(|scope| {
        let other = scope.spawn(|| pool.take_block().map(|block| write(block, 1)));
        base.asked.wait();
        let result = meanwhile();
        base.answered.wait();
        (other.join().unwrap(), result)
    })
}

#[test]
fn of_threads_that_grow_at_once_one_doubles_the_pool() {
    let base = Slow::new();
    let options = BlockPool::for_type::<[u64; 3]>().first_slab_blocks(1000);
    let pool = options.build_shared_in(&base).unwrap();
    let size = pool.block_layout().size();
    let meanwhile = || {
        write(pool.take_block().unwrap(), 2);
        pool.held_bytes()
    };
    let (other, held) = while_another_thread_grows(&pool, &base, meanwhile);
    assert_eq!(other, Ok(()));
    assert!((size..100 * size).contains(&held), "{held} bytes for one block");
    assert!(pool.held_bytes() < held + 1100 * size);
    assert_eq!(pool.held_bytes(), base.out.0.load(Ordering::Relaxed));
    // No other thread grows the pool now, and the next slab doubles it again.
    let before = pool.held_bytes();
    while pool.held_bytes() == before {
        write(pool.take_block().unwrap(), 3);
    }
    assert!(pool.held_bytes() >= 2 * before - 100, "{before} and {}", pool.held_bytes());
}

#[test]
fn a_maximum_is_exact_when_threads_grow_at_once() {
    const MOST: usize = 100;
    for before in [0, 1, MOST - 1, MOST] {
        let base = Slow::new();
        let options = BlockPool::for_type::<[u64; 3]>().first_slab_blocks(MOST).max_blocks(MOST);
        let pool = options.build_shared_in(&base).unwrap();
        let meanwhile = || (0..before).for_each(|_| write(pool.take_block().unwrap(), 2));
        let (other, ()) = while_another_thread_grows(&pool, &base, meanwhile);
        assert_eq!(other.is_ok(), before < MOST, "there are {MOST} and no more");
        (before + 1..MOST).for_each(|_| write(pool.take_block().unwrap(), 3));
        assert!(pool.take_block().is_err());
        assert_eq!(pool.used_bytes(), pool.capacity_bytes().unwrap());
        let held = pool.held_bytes();
        assert_eq!(held, base.out.0.load(Ordering::Relaxed), "what was not wanted went back");
        assert!(
            held < 2 * MOST * pool.block_layout().size(),
            "{held}: all that was asked for stayed"
        );
    }
}

#[test]
fn a_maximum_is_exact_whichever_threads_have_freed() {
    const MOST: usize = 100;
    let pool = BlockPool::for_type::<u64>().max_blocks(MOST).build_shared().unwrap();
    for _ in 0..3 {
        // Each block is freed by a thread that then ends.
        let blocks: Vec<_> = (0..MOST).map(|i| pool.alloc_value(i).unwrap()).collect();
        assert!(pool.take_block().is_err());
        assert_eq!(pool.used_bytes(), pool.capacity_bytes().unwrap());
        thread::scope(|scope| {
            let mut blocks = blocks.into_iter();
            for _ in 0..4 {
                let some: Vec<_> = blocks.by_ref().take(MOST / 4).collect();
                scope.spawn(move || drop(some));
            }
        });
        assert_eq!(pool.used_bytes(), 0);
    }
}

#[test]
fn more_threads_than_caches_are_served() {
    let threads = if cfg!(miri) { 5 } else { 100 };
    let pool = BlockPool::for_type::<[u64; 3]>().build_shared().unwrap();
    let barrier = Barrier::new(threads);
    let seen = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for mark in 0..threads as u64 {
            let (pool, barrier, seen) = (&pool, &barrier, &seen);
            scope.spawn(move || {
                let block = pool.take_block().unwrap();
                write(block, mark);
                seen.lock().unwrap().insert(block.addr());
                barrier.wait();
                check(block, mark);
                free(pool, block);
            });
        }
    });
    assert_eq!(seen.into_inner().unwrap().len(), threads, "all at once, all different");
}

#[test]
fn cached_blocks_of_an_ended_thread_go_to_the_next() {
    let pool = BlockPool::for_type::<[u64; 3]>().build_shared().unwrap();
    for _ in 0..if cfg!(miri) { 5 } else { 300 } {
        thread::scope(|scope| {
            scope.spawn(|| drop(pool.alloc_value([1_u64; 3]).unwrap()));
        });
    }
    // Threads of other tests have taken some thread numbers in between.
    assert!(pool.peak_bytes() <= 64 * 32 * pool.block_layout().size());
}

#[test]
fn blocks_that_are_freed_while_a_thread_ends_are_taken_back() {
    struct AtEnd(Option<&'static SharedBlockPool>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            if let Some(pool) = self.0 {
                let block = pool.alloc_value([5_u64; 3]).unwrap();
                assert_eq!(*block, [5; 3]);
            }
        }
    }
    std::thread_local! {
        static AT_END: std::cell::RefCell<AtEnd> = const { std::cell::RefCell::new(AtEnd(None)) };
    }
    let owned = Box::into_raw(Box::new(BlockPool::for_type::<[u64; 3]>().build_shared().unwrap()));
    // SAFETY: the pool was just made, and is not freed before the end.
    let pool: &'static SharedBlockPool = unsafe { &*owned };
    for first in [false, true] {
        let thread = thread::spawn(move || {
            // The thread-local that is initialised first is destroyed last.
            if first {
                drop(pool.alloc_value([1_u64; 3]).unwrap());
            }
            AT_END.with_borrow_mut(|at_end| at_end.0 = Some(pool));
            drop(pool.alloc_value([1_u64; 3]).unwrap());
        });
        thread.join().unwrap();
    }
    // SAFETY: the pool was made from a box, and all threads with a reference to it have ended.
    drop(unsafe { Box::from_raw(owned) });
}

#[test]
fn layouts_that_do_not_fit_are_refused_and_large_blocks_are_served() {
    let layout = Layout::from_size_align(200_000, 64).unwrap();
    let pool = BlockPool::options(layout).first_slab_blocks(1).build_shared().unwrap();
    assert!((&pool).allocate(Layout::from_size_align(200_001, 8).unwrap()).is_err());
    assert!((&pool).allocate(Layout::from_size_align(1, 1 << 20).unwrap()).is_err());
    let blocks: Vec<_> = (0..5).map(|_| pool.take_block().unwrap()).collect();
    for block in &blocks {
        assert!(block.addr().get().is_multiple_of(64));
        free(&pool, *block);
    }
    let huge = Layout::from_size_align(1 << 40, 8).unwrap();
    assert!(BlockPool::options(huge).max_slab_blocks(usize::MAX).build_shared().is_err());
}
