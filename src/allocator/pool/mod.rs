//! Pools of blocks of one size. The block that was freed last is taken first.
//!
//! ```text
//!   slab ┌──────┬───────┬───────┬───────┬───────┬───────┬───────┐
//!        │ link │ block │ free ─┼──►free│ block │     fresh     │
//!        └──────┴───────┴───────┴───────┴───────┴───────┴───────┘
//!                         ▲ free                ▲ fresh         ▲ fresh_end
//! ```
//!
//! A free block stores the address of the next free block. The blocks of a new slab are cut one by
//! one, so no page is touched before it is used.

mod as_allocator;
mod options;
#[cfg(feature = "std")]
mod shared;
mod slabs;

pub use self::options::BlockPoolOptions;
#[cfg(feature = "std")]
pub use self::shared::SharedBlockPool;

use self::{
    as_allocator::{allocate_by_blocks, fits},
    slabs::{Link, Slabs},
};
use super::{
    AllocError, Allocator, SystemAllocator,
    bump::empty,
    misuse::{Watch, check_layout},
};
use crate::{core::MemoryUsage, utils::poison::unpoison};
use core::{alloc::Layout, cell::Cell, fmt, iter, ptr::NonNull};

/// The pool's name in errors.
const COMPONENT: &str = "block pool";

/// A pool of blocks of one size, cut from a few large blocks of another allocator. Use it for
/// values of one type that are often allocated and freed.
///
/// A reference to it is an [`Allocator`] for every layout that fits a block. A larger layout is
/// refused. The pool grows by slabs. Each slab is as large as all slabs before it together, up to a
/// limit for one slab, and up to the pool's maximum, if one is set. The slabs are freed when the pool
/// is dropped.
/// A pool is for one thread at a time.
///
/// A block has no overhead. A slab costs two words, or the alignment of a block if that is more.
///
/// # Complexity
///
/// Taking or freeing a block costs two loads and a store.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{AllocBox, BlockPool, TypedAllocator};
///
/// struct Node<'p> { value: u32, next: Option<AllocBox<Node<'p>, &'p BlockPool>> }
///
/// let pool = BlockPool::for_type::<Node>().build()?;
/// let mut list = None;
/// for value in 0..100 {
///     list = Some(pool.alloc_value(Node { value, next: list })?);
/// }
/// assert_eq!((list.unwrap().value, pool.free_blocks()), (99, 28));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// No block outlives the pool:
///
/// ```compile_fail
/// use nebula_memory::allocator::{BlockPool, TypedAllocator};
///
/// let kept = {
///     let pool = BlockPool::for_type::<u64>().build().unwrap();
///     pool.alloc_value(7_u64).unwrap()
/// };
/// ```
pub struct BlockPool<A: Allocator = SystemAllocator> {
    /// # Invariants
    ///
    /// Free blocks of this pool, each leading to the next one. Nothing uses them.
    free: Cell<Option<NonNull<Link>>>,
    slabs: Slabs,
    watch: Watch,
    /// # Invariants
    ///
    /// The allocator that the slabs were allocated by.
    base: A,
}

impl<A: Allocator> BlockPool<A> {
    fn new(slabs: Slabs, base: A) -> Self {
        let watch = Watch::new(COMPONENT, size_of::<Link>());
        Self { free: Cell::new(None), slabs, watch, base }
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
    /// let pool = BlockPool::for_type::<[u8; 100]>().build()?;
    /// let block = pool.take_block()?;
    /// // SAFETY: the block is this pool's and was not freed.
    /// unsafe { pool.free_block(block) };
    /// assert_eq!(pool.take_block()?, block, "the last one freed is the first one taken");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take_block(&self) -> Result<NonNull<u8>, AllocError> {
        self.take_freed().map_or_else(|| self.take_slowly(), Ok)
    }

    #[inline(always)]
    fn take_freed(&self) -> Option<NonNull<u8>> {
        let free = self.free.get()?;
        let bytes = self.slabs.block().size();
        // SAFETY: a free block of this pool (the invariants), which was put aside with all its
        // bytes.
        self.free.set(unsafe { Link::take(free, bytes) });
        let block = free.cast();
        self.watch.taken(block);
        unpoison(block, bytes);
        Some(block)
    }

    /// Frees a block.
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
        self.watch.freed(block);
        // SAFETY: a block of this pool, of this size, that nothing uses, as the caller says.
        unsafe { Link::put(block, self.slabs.block().size(), self.free.get()) };
        self.free.set(Some(block.cast()));
    }

    /// Returns the layout of a block: the size and the alignment are at least the requested ones.
    #[must_use]
    pub const fn block_layout(&self) -> Layout {
        self.slabs.block()
    }

    /// Returns the number of blocks that can be taken without a new slab.
    ///
    /// # Complexity
    ///
    /// Linear in the result, because taking and freeing do not count blocks.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.freed().count() + self.slabs.uncut()
    }

    /// Returns the bytes that the pool has allocated from its base allocator.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.slabs.held_bytes()
    }

    /// Returns the number of blocks in use.
    fn used(&self) -> usize {
        self.slabs.cut() - self.freed().count()
    }

    /// Takes a block of the existing slabs: a freed block, or else a block that was never used.
    fn take_present(&self) -> Option<NonNull<u8>> {
        self.take_freed().or_else(|| {
            let block = self.slabs.cut_block()?;
            self.watch.cut(block);
            Some(block)
        })
    }

    /// Takes a block when no freed block is left.
    #[cold]
    fn take_slowly(&self) -> Result<NonNull<u8>, AllocError> {
        loop {
            if let Some(block) = self.take_present() {
                return Ok(block);
            }
            let plan = self.slabs.plan(None)?;
            // The base allocator may itself free and take blocks of this pool during this call.
            let slab = match self.base.allocate(plan.layout()) {
                Ok(slab) => slab.cast(),
                Err(error) => return self.take_present().ok_or(error),
            };
            // SAFETY: 1. The base has just allocated it for this plan. 2. Nothing else uses it.
            if !unsafe { self.slabs.add(slab, plan, &self.watch) } {
                // SAFETY: just allocated with this layout, and unused.
                unsafe { self.base.deallocate(slab, plan.layout()) };
            }
        }
    }

    /// Iterates over the blocks that were freed, the latest first.
    fn freed(&self) -> impl Iterator<Item = NonNull<Link>> {
        let mut next = self.free.get();
        iter::from_fn(move || {
            let free = next?;
            // SAFETY: a free block of this pool (the invariants).
            next = unsafe { Link::peek(free) }.next;
            Some(free)
        })
    }
}

impl<A: Allocator> Drop for BlockPool<A> {
    fn drop(&mut self) {
        // SAFETY: 1. The slabs are the base's (the invariants). 2. Blocks borrow the pool, so none
        // is in use, and the pool is not used again.
        unsafe { self.slabs.free(&self.base) };
    }
}

// SAFETY: the free blocks are those of the slabs. The slabs are sent along, as is `base`, which
// takes them back. Every other pointer into them borrows the pool, which then does not move.
unsafe impl<A: Allocator + Send> Send for BlockPool<A> {}

allocate_by_blocks!(BlockPool, COMPONENT);

/// The bytes of blocks in use.
impl<A: Allocator> MemoryUsage for BlockPool<A> {
    fn used_bytes(&self) -> usize {
        self.used() * self.block_layout().size()
    }

    /// The bytes of all blocks that were cut. Freed blocks are used before new ones are cut, so this
    /// is the most that was ever in use at once.
    fn peak_bytes(&self) -> usize {
        self.slabs.cut() * self.block_layout().size()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.slabs.max_blocks().checked_mul(self.block_layout().size())
    }
}

impl<A: Allocator> fmt::Debug for BlockPool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPool")
            .field("block", &self.block_layout())
            .field("used", &self.used())
            .field("free", &self.free_blocks())
            .finish_non_exhaustive()
    }
}
