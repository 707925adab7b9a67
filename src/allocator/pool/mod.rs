//! Blocks of one size, reused in the opposite order in which they were freed.
//!
//! ```text
//!   slab ┌──────┬───────┬───────┬───────┬───────┬───────┬───────┐
//!        │ link │ block │ free ─┼──►free│ block │     fresh     │
//!        └──────┴───────┴───────┴───────┴───────┴───────┴───────┘
//!                         ▲ free                ▲ fresh         ▲ fresh_end
//! ```
//!
//! A free block holds the address of the next. Blocks of a new slab are cut one by one, so that a
//! page is not touched before it is used.

mod face;
mod options;
#[cfg(feature = "std")]
mod shared;
mod slabs;

pub use self::options::BlockPoolOptions;
#[cfg(feature = "std")]
pub use self::shared::SharedBlockPool;

use self::{
    face::{allocate_by_blocks, fits},
    slabs::{Link, Slabs},
};
use super::{
    AllocError, Allocator, SystemAllocator,
    bump::empty,
    misuse::{Watch, check_layout},
};
use crate::{core::MemoryUsage, utils::poison::unpoison};
use core::{alloc::Layout, cell::Cell, fmt, iter, ptr::NonNull};

/// What errors call the pool.
const COMPONENT: &str = "block pool";

/// Blocks of one size from a few large blocks of another allocator.
///
/// A reference to it is an [`Allocator`] for every layout that fits a block; a larger one is
/// refused. It grows by slabs, each as large as all before it up to a cap, to a maximum if one is
/// set, and frees them when it is dropped. For one thread at a time.
///
/// A block costs nothing beside itself; a slab two words, or its alignment.
///
/// # Complexity
///
/// Two loads and a store to take a block or to free it.
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
/// Nothing outlives the pool:
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
    /// Blocks of this pool that nobody uses, each the next of the one before.
    free: Cell<Option<NonNull<Link>>>,
    slabs: Slabs,
    watch: Watch,
    /// # Invariants
    ///
    /// What the slabs are allocated by.
    base: A,
}

impl<A: Allocator> BlockPool<A> {
    fn new(slabs: Slabs, base: A) -> Self {
        let watch = Watch::new(COMPONENT, size_of::<Link>());
        Self { free: Cell::new(None), slabs, watch, base }
    }

    /// A block, not initialised, of [`block_layout`](Self::block_layout).
    ///
    /// # Panics
    ///
    /// With debug assertions, where the block was written to after it was freed.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where the pool has its maximum or the base allocator no more.
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
        // SAFETY: a free block of this pool (the invariants), which is put aside with all its bytes.
        self.free.set(unsafe { Link::take(free, bytes) });
        let block = free.cast();
        self.watch.taken(block);
        unpoison(block, bytes);
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Panics
    ///
    /// With debug assertions, where the block is not one of this pool's, or free already.
    ///
    /// # Safety
    ///
    /// The block was [taken](Self::take_block) from this pool, or [allocated](Allocator::allocate)
    /// with a size that is not zero, and is not used again.
    #[inline]
    pub unsafe fn free_block(&self, block: NonNull<u8>) {
        self.watch.freed(block);
        // SAFETY: a block of this pool's, of as many bytes, that nobody uses, as the caller says.
        unsafe { Link::put(block, self.slabs.block().size(), self.free.get()) };
        self.free.set(Some(block.cast()));
    }

    /// The size and the alignment of a block: those asked for, or larger.
    #[must_use]
    pub const fn block_layout(&self) -> Layout {
        self.slabs.block()
    }

    /// Blocks that could be taken without a new slab.
    ///
    /// # Complexity
    ///
    /// Linear in their number: blocks are not counted when they are taken and freed.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.freed().count() + self.slabs.uncut()
    }

    /// Bytes that the pool holds of its base allocator.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.slabs.held_bytes()
    }

    /// Blocks in use.
    fn used(&self) -> usize {
        self.slabs.cut() - self.freed().count()
    }

    /// A block of a slab that is there: one that was freed, or else one that was never used.
    fn take_present(&self) -> Option<NonNull<u8>> {
        self.take_freed().or_else(|| {
            let block = self.slabs.cut_block()?;
            self.watch.cut(block);
            Some(block)
        })
    }

    /// A block where none was freed.
    #[cold]
    fn take_slowly(&self) -> Result<NonNull<u8>, AllocError> {
        loop {
            if let Some(block) = self.take_present() {
                return Ok(block);
            }
            let plan = self.slabs.plan(None)?;
            // The base allocator may free and take blocks of this pool when it is asked.
            let slab = match self.base.allocate(plan.layout()) {
                Ok(slab) => slab.cast(),
                Err(error) => return self.take_present().ok_or(error),
            };
            // SAFETY: 1. Just allocated by the base for this plan. 2. It is nobody's.
            if !unsafe { self.slabs.add(slab, plan, &self.watch) } {
                // SAFETY: just allocated with this layout, and unused.
                unsafe { self.base.deallocate(slab, plan.layout()) };
            }
        }
    }

    /// The blocks that were freed, the latest first.
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
        // SAFETY: 1. The slabs are the base's (the invariants). 2. Blocks borrow the pool, so that none
        // is in use, and the pool is not used again.
        unsafe { self.slabs.free(&self.base) };
    }
}

// SAFETY: the free blocks are the slabs', which are sent along, as is `base`, which takes them back;
// whatever else points into them borrows the pool, which then does not move.
unsafe impl<A: Allocator + Send> Send for BlockPool<A> {}

allocate_by_blocks!(BlockPool, COMPONENT);

/// The bytes of blocks in use.
impl<A: Allocator> MemoryUsage for BlockPool<A> {
    fn used_bytes(&self) -> usize {
        self.used() * self.block_layout().size()
    }

    /// As freed blocks are taken before others are cut, those that were cut are the most that were
    /// ever in use at once.
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
