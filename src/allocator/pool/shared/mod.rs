//! Pools of blocks of one size for many threads.
//!
//! ```text
//!   thread 1          thread 2               any other
//!   loaded  spare     loaded  spare              │
//!   ┌────┐  ┌────┐    ┌────┐  ┌────┐             │
//!   │ 17 │  │ 32 │    │  4 │  │  0 │   caches, each one thread's
//!   └──┬─┘  └──┬─┘    └────┘  └────┘             │
//!      └ 32 at a time ┐                          │ one at a time
//!   ┌─────────────────▼──────────────────────────▼───────┐
//!   │ full chains ─► ─► ─►     loose blocks ─► ─►  slabs │   the depot, behind a lock
//!   └────────────────────────────────────────────────────┘
//! ```
//!
//! Each thread has two [magazines](crate::allocator::magazines) over a common depot. A thread goes to
//! the depot only once for a whole magazine of blocks, in whatever order it takes and frees blocks.
//!
//! No list is ever changed by two threads at once. A cache is changed only by the thread that has
//! its number, and the depot only by the thread that holds its lock. So there is no
//! compare-and-swap, and no ABA problem.
//!
//! The base allocator is called without the lock: it may be slow, and it may be foreign code that
//! calls this pool. Afterwards the depot is checked again. A slab that is no longer needed, or that
//! would exceed the maximum, is returned to the base allocator.

mod depot;
#[cfg(all(test, loom))]
mod loom_tests;

use self::depot::{BlockLinks, Chain, Depot, MIN_BLOCK};
use super::{Link, Slabs, allocate_by_blocks, fits, slabs::Growth};
use crate::{
    allocator::{
        AllocError, Allocator, SystemAllocator,
        bump::empty,
        magazines::Magazines,
        misuse::{Watch, check_layout},
    },
    core::{AllocationError, MemoryUsage},
    utils::{
        poison::unpoison,
        sync::{Mutex, MutexGuard, get_mut, lock},
        thread_number::thread_number,
    },
};
use alloc::boxed::Box;
use core::{alloc::Layout, fmt, ptr::NonNull};
use crossbeam_utils::CachePadded;

/// The pool's name in errors.
const COMPONENT: &str = "shared block pool";

/// The most threads that have caches at the same time. A further thread goes to the depot for each
/// block.
const CACHES: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// The most blocks of a magazine. So many calls share one lock of the depot, and the cache misses
/// of a list that another core wrote.
const MAGAZINE: usize = if cfg!(any(loom, miri)) { 2 } else { 32 };

/// The most bytes of a magazine, unless one block is larger. This bounds the memory in the caches
/// of idle threads.
const MAGAZINE_BYTES: usize = 64 << 10;

/// A pool of blocks of one size that many threads share. A thread may free a block that another
/// thread took. Otherwise it is like a [`BlockPool`](super::BlockPool).
///
/// Each of up to 64 threads has a cache of up to 64 free blocks and at most 128 KiB. Taking a block
/// from the cache and freeing a block to it take no lock and write nothing that threads share. After
/// a thread has ended, another thread takes over its cache.
///
/// A [maximum](super::BlockPoolOptions::max_blocks) is exact. A pool that has one keeps no caches,
/// so that every thread can take the last free block. Then each call takes a lock.
///
/// The pool costs 8 KiB in addition to its slabs. A block has at least two words.
///
/// # Complexity
///
/// Taking or freeing a block costs a few loads and stores, and every 32nd time a lock.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{BlockPool, TypedAllocator};
/// use std::{sync::mpsc, thread};
///
/// let pool = BlockPool::for_type::<[u8; 256]>().build_shared()?;
/// thread::scope(|scope| {
///     let (send, receive) = mpsc::channel();
///     let pool = &pool;
///     scope.spawn(move || (0..100_u8).for_each(|i| send.send(pool.alloc_value([i; 256])).unwrap()));
///     scope.spawn(move || receive.iter().for_each(|block| drop(block.expect("there is memory"))));
/// });
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// No block outlives the pool:
///
/// ```compile_fail
/// use nebula_memory::allocator::{BlockPool, TypedAllocator};
///
/// let kept = {
///     let pool = BlockPool::for_type::<u64>().build_shared().unwrap();
///     pool.alloc_value(7_u64).unwrap()
/// };
/// ```
pub struct SharedBlockPool<A: Allocator = SystemAllocator> {
    /// # Invariants
    ///
    /// The cache at a thread's [number](thread_number) is read and written by that thread alone.
    /// There are no caches if the pool has a maximum.
    caches: Box<[CachePadded<Magazines<NonNull<Link>>>]>,
    /// The layout in [`Slabs`], to be read without the lock.
    block: Layout,
    /// The number of blocks in a full magazine, at least one.
    magazine: usize,
    watch: Watch,
    depot: Mutex<Depot>,
    /// # Invariants
    ///
    /// The allocator that the slabs were allocated by. It is called without the lock.
    base: A,
}

// SAFETY: a cache is used by one thread at a time, the thread that has its number (the invariants).
// A number goes from one thread to the next through a lock. The depot is used under its lock, which
// requires that it is `Send`. `base` may be called by several threads at once.
unsafe impl<A: Allocator + Sync> Sync for SharedBlockPool<A> {}
// SAFETY: blocks and slabs belong to no thread, and `base`, which takes them back, is sent along.
// Every other pointer into them borrows the pool, which then does not move.
unsafe impl<A: Allocator + Send> Send for SharedBlockPool<A> {}

impl<A: Allocator> SharedBlockPool<A> {
    pub(super) fn new(block: Layout, growth: Growth, base: A) -> Result<Self, AllocationError> {
        let size = block.size().max(MIN_BLOCK);
        // If this is no layout, then `Slabs::new` returns the error.
        let block = Layout::from_size_align(size, block.align()).unwrap_or(block);
        let slabs = Slabs::new(COMPONENT, block, growth)?;
        let block = slabs.block();
        let caches = if growth.max_blocks == usize::MAX { CACHES } else { 0 };
        let magazine = (MAGAZINE_BYTES / block.size()).clamp(1, MAGAZINE);
        Ok(Self {
            caches: (0..caches).map(|_| CachePadded::new(Magazines::new())).collect(),
            block,
            magazine,
            watch: Watch::new(COMPONENT, MIN_BLOCK),
            depot: Mutex::new(Depot::new(slabs, magazine)),
            base,
        })
    }

    /// Takes a block of the layout [`block_layout`](Self::block_layout). The block is not
    /// initialised.
    ///
    /// # Panics
    ///
    /// With debug assertions, if the block was written to after it was freed.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if the pool has reached its maximum, or if the base allocator has no more
    /// memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::BlockPool;
    ///
    /// let pool = BlockPool::for_type::<[u8; 100]>().max_blocks(1).build_shared()?;
    /// let block = pool.take_block()?;
    /// assert!(pool.take_block().is_err(), "there is one and no more");
    /// // SAFETY: the block is this pool's and was not freed.
    /// unsafe { pool.free_block(block) };
    /// assert_eq!(pool.take_block()?, block);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take_block(&self) -> Result<NonNull<u8>, AllocError> {
        self.take(thread_number())
    }

    /// Frees a block, on any thread.
    ///
    /// # Panics
    ///
    /// With debug assertions, if the block is not one of this pool's, or is free already.
    ///
    /// # Safety
    ///
    /// The block was [taken](Self::take_block) from this pool, or [allocated](Allocator::allocate)
    /// with a size that is not zero, and is not used again.
    #[inline]
    pub unsafe fn free_block(&self, block: NonNull<u8>) {
        // SAFETY: the caller's promise; the number is this thread's.
        unsafe { self.free(thread_number(), block) }
    }

    /// Returns the layout of a block: the size and the alignment are at least the requested ones.
    #[must_use]
    pub const fn block_layout(&self) -> Layout {
        self.block
    }

    /// Returns the bytes that the pool has allocated from its base allocator.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.depot().slabs().held_bytes()
    }

    fn depot(&self) -> MutexGuard<'_, Depot> {
        lock(&self.depot)
    }

    /// Takes a block for the calling thread, whose number is `slot`.
    #[inline]
    fn take(&self, slot: usize) -> Result<NonNull<u8>, AllocError> {
        if let Some(cache) = self.caches.get(slot)
            // SAFETY: the links of this pool's blocks.
            && let Some(block) = unsafe { cache.take(&self.links()) }
        {
            return Ok(self.give(block));
        }
        self.take_slowly(slot)
    }

    /// Marks a free block as in use, and returns it.
    #[inline(always)]
    fn give(&self, block: NonNull<Link>) -> NonNull<u8> {
        let block = block.cast();
        self.watch.taken(block);
        unpoison(block, self.block.size());
        block
    }

    /// Takes a block when the loaded magazine is empty, or when the thread has no cache.
    #[cold]
    fn take_slowly(&self, slot: usize) -> Result<NonNull<u8>, AllocError> {
        let links = self.links();
        let Some(cache) = self.caches.get(slot) else {
            let mut chain = self.chain(1)?;
            // SAFETY: the links of this pool's blocks; the chain is used here alone.
            let block = unsafe { chain.pop(&links) }.ok_or(AllocError)?;
            return Ok(self.give(block));
        };
        if !cache.load_spare() {
            let asked = self.chain(self.magazine);
            // Both magazines are empty, unless the base allocator freed blocks of this pool on this
            // thread during the call.
            if !cache.load_spare() {
                cache.load(asked?);
            } else if let Ok(chain) = asked {
                self.put_loose(chain);
            }
        }
        // SAFETY: the links of this pool's blocks.
        let block = unsafe { cache.take(&links) }.ok_or(AllocError)?;
        Ok(self.give(block))
    }

    /// Gives the blocks of a chain to the depot, one by one.
    fn put_loose(&self, mut chain: Chain) {
        let mut depot = self.depot();
        // SAFETY: the links of this pool's blocks; the chain is used here alone.
        while let Some(block) = unsafe { chain.pop(&self.links()) } {
            // SAFETY: a free block of this pool, in no other list.
            unsafe { depot.put_loose(block.cast()) };
        }
    }

    /// Takes a chain of at least one and at most `most` blocks from the depot. `most` is one or a
    /// full magazine. If the depot is empty, allocates a slab.
    fn chain(&self, most: usize) -> Result<Chain, AllocError> {
        let chain = |depot: &mut Depot| depot.chain(most, &self.watch);
        loop {
            let mut depot = self.depot();
            if let Some(chain) = chain(&mut depot) {
                return Ok(chain);
            }
            let plan = depot.begin_making(self.magazine)?;
            drop(depot);

            let made = self.base.allocate(plan.layout());
            let mut depot = self.depot();
            depot.end_making();
            let slab = match made {
                Ok(slab) => slab.cast(),
                // Another thread may have freed or added blocks meanwhile.
                Err(error) => return chain(&mut depot).ok_or(error),
            };
            // SAFETY: 1. The base has just allocated it for this plan. 2. Nothing else uses it.
            if !unsafe { depot.slabs().add(slab, plan, &self.watch) } {
                drop(depot);
                // SAFETY: just allocated with this layout, and unused.
                unsafe { self.base.deallocate(slab, plan.layout()) };
            } else if let Some(chain) = chain(&mut depot) {
                return Ok(chain);
            }
        }
    }

    /// # Safety
    ///
    /// As [`free_block`](Self::free_block), on the thread whose number is `slot`.
    #[inline]
    unsafe fn free(&self, slot: usize, block: NonNull<u8>) {
        self.watch.freed(block);
        let Some(cache) = self.caches.get(slot) else {
            // SAFETY: a block of this pool, of this size, that nothing uses.
            unsafe { self.depot().put_loose(block) };
            return;
        };
        if cache.is_full(self.magazine) {
            self.put_aside(cache);
        }
        // SAFETY: a block of this pool, of this size, that nothing uses, and the links of such blocks.
        unsafe { cache.push(&self.links(), block.cast()) };
    }

    /// Makes the full magazine the cache's spare one. A full magazine that was there goes to the
    /// depot.
    #[cold]
    fn put_aside(&self, cache: &Magazines<NonNull<Link>>) {
        let before = cache.replace_spare();
        if !before.is_empty() {
            // SAFETY: 1. A full magazine of free blocks of this pool. 2. The cache no longer has
            // it.
            unsafe { self.depot().put_full(before) };
        }
    }

    #[inline(always)]
    const fn links(&self) -> BlockLinks {
        BlockLinks { bytes: self.block.size() }
    }
}

impl<A: Allocator> Drop for SharedBlockPool<A> {
    fn drop(&mut self) {
        // SAFETY: 1. The slabs are the base's (the invariants). 2. Blocks borrow the pool, so none
        // is in use, and the pool is not used again.
        unsafe { get_mut(&mut self.depot).slabs_mut().free(&self.base) };
    }
}

allocate_by_blocks!(SharedBlockPool, COMPONENT);

/// The bytes of blocks in use and of free blocks in the caches of threads. Only a cache's own thread
/// can count its blocks, so they count as used.
impl<A: Allocator> MemoryUsage for SharedBlockPool<A> {
    fn used_bytes(&self) -> usize {
        let depot = self.depot();
        (depot.slabs().cut() - depot.free()) * self.block.size()
    }

    fn peak_bytes(&self) -> usize {
        self.depot().slabs().cut() * self.block.size()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.depot().slabs().max_blocks().checked_mul(self.block.size())
    }
}

impl<A: Allocator> fmt::Debug for SharedBlockPool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBlockPool")
            .field("block", &self.block)
            .field("used", &(self.used_bytes() / self.block.size()))
            .finish_non_exhaustive()
    }
}
