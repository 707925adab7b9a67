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

use super::{
    AllocBox, AllocError, Allocator, SystemAllocator,
    bump::{RawBump, Up, empty},
};
use crate::{
    core::{AllocationError, CapacityOverflow, MemoryUsage},
    macros::forward_to_allocator_api2,
};
use core::{alloc::Layout, cell::Cell, fmt, iter, ptr::NonNull};

/// What errors call the pool.
const COMPONENT: &str = "block pool";

/// A block that nobody uses.
struct Free {
    next: Option<NonNull<Free>>,
}

/// What a slab begins with: the slab before, and how many blocks it has.
struct Slab {
    before: Option<NonNull<Slab>>,
    blocks: usize,
}

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
/// use nebula_memory::allocator::{BlockPool, PoolBox, TypedAllocator};
///
/// struct Node<'p> { value: u32, next: Option<PoolBox<'p, Node<'p>>> }
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
    free: Cell<Option<NonNull<Free>>>,
    /// # Invariants
    ///
    /// Cuts the newest slab, behind its link, into blocks of `block`.
    fresh: RawBump<Up, 1>,
    /// # Invariants
    ///
    /// Of at least a `Free`'s size and alignment; the size is a multiple of the alignment.
    block: Layout,
    /// # Invariants
    ///
    /// The newest slab and by its link all others, allocated by `base` with the
    /// [layout](slab_layout) for their number of blocks.
    newest: Cell<Option<NonNull<Slab>>>,
    /// Blocks that were cut so far. As freed ones are taken first, that is also the most that were
    /// ever in use at once.
    cut: Cell<usize>,
    growth: Growth,
    base: A,
}

/// How a pool grows.
#[derive(Clone, Copy, Debug)]
struct Growth {
    first: usize,
    max_slab: usize,
    max_blocks: usize,
}

/// Describes a [`BlockPool`].
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::{BlockPool, TypedAllocator};
///
/// let layout = Layout::from_size_align(256, 64).unwrap();
/// let pool = BlockPool::options(layout).first_slab_blocks(4).max_blocks(5).build()?;
/// let blocks: Vec<_> = (0..5).map(|i| pool.alloc_value([i; 32])).collect::<Result<_, _>>()?;
/// assert!(pool.alloc_value(0).is_err(), "there are five and no more");
/// assert!(blocks.iter().all(|block| block.as_ptr().addr() % 64 == 0));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing until `build`"]
pub struct BlockPoolOptions {
    block: Layout,
    growth: Growth,
}

impl BlockPoolOptions {
    /// Blocks in the first slab, at least one; 64 by default. Each slab doubles the pool.
    pub const fn first_slab_blocks(mut self, blocks: usize) -> Self {
        self.growth.first = blocks;
        self
    }

    /// The most blocks in one slab, at least one; 4096 by default.
    pub const fn max_slab_blocks(mut self, blocks: usize) -> Self {
        self.growth.max_slab = blocks;
        self
    }

    /// The most blocks in all; unlimited by default. A pool of a fixed size has as many in its
    /// first slab.
    pub const fn max_blocks(mut self, blocks: usize) -> Self {
        self.growth.max_blocks = blocks;
        self
    }

    /// Makes the pool, empty: the first slab is allocated with the first block.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where no address space has room for a slab.
    pub fn build(self) -> Result<BlockPool, AllocationError> {
        self.build_in(SystemAllocator)
    }

    /// As [`build`](Self::build), with slabs from `base`.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{BlockPool, TypedAllocator}, arena::Arena};
    ///
    /// let arena = Arena::new();
    /// let pool = BlockPool::for_type::<u64>().build_in(&arena)?;
    /// assert_eq!(*pool.alloc_value(7_u64)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_in<A: Allocator>(self, base: A) -> Result<BlockPool<A>, AllocationError> {
        let Growth { first, max_slab, max_blocks } = self.growth;
        let growth = Growth { first: first.max(1), max_slab: max_slab.max(1), max_blocks };
        let least = Layout::new::<Free>();
        let (size, align) =
            (self.block.size().max(least.size()), self.block.align().max(least.align()));
        let too_large = CapacityOverflow::new(COMPONENT, growth.max_slab, size);
        let block = Layout::from_size_align(size, align).map_err(|_| too_large)?.pad_to_align();
        slab_layout(block, growth.first.max(growth.max_slab)).ok_or(too_large)?;
        Ok(BlockPool {
            free: Cell::new(None),
            fresh: RawBump::nowhere(),
            block,
            newest: Cell::new(None),
            cut: Cell::new(0),
            growth,
            base,
        })
    }
}

/// Bytes before the first block of a slab, for its link: as much as keeps the blocks aligned.
fn slab_head(block: Layout) -> usize {
    block.align().max(size_of::<Slab>().next_power_of_two())
}

/// A slab of as many blocks; `None` where no address space has room for it.
fn slab_layout(block: Layout, blocks: usize) -> Option<Layout> {
    let bytes = block.size().checked_mul(blocks)?.checked_add(slab_head(block))?;
    Layout::from_size_align(bytes, block.align().max(align_of::<Slab>())).ok()
}

impl BlockPool {
    /// Starts the description of a pool of blocks that `block` fits.
    ///
    /// # Examples
    ///
    /// See [`BlockPoolOptions`].
    pub const fn options(block: Layout) -> BlockPoolOptions {
        let growth = Growth { first: 64, max_slab: 4096, max_blocks: usize::MAX };
        BlockPoolOptions { block, growth }
    }

    /// Starts the description of a pool of blocks for values of one type.
    ///
    /// # Examples
    ///
    /// See [`BlockPool`].
    pub const fn for_type<T>() -> BlockPoolOptions {
        Self::options(Layout::new::<T>())
    }
}

impl<A: Allocator> BlockPool<A> {
    /// A block, not initialised, of [`block_layout`](Self::block_layout).
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
        let Some(free) = self.free.get() else { return self.fresh_block() };
        // SAFETY: a free block of this pool holds a `Free` (the invariants).
        self.free.set(unsafe { free.as_ref() }.next);
        Ok(free.cast())
    }

    /// Takes a block back.
    ///
    /// # Panics
    ///
    /// With debug assertions, where the block is not one of this pool's, or free already, as far as
    /// that can be seen.
    ///
    /// # Safety
    ///
    /// The block was [taken](Self::take_block) from this pool, or [allocated](Allocator::allocate)
    /// with a size that is not zero, and is not used again.
    #[inline]
    pub unsafe fn free_block(&self, block: NonNull<u8>) {
        #[cfg(debug_assertions)]
        self.assert_in_use(block);
        let free = block.cast::<Free>();
        // SAFETY: a block is at least a `Free`'s size and aligned for one (the invariants), and
        // nobody uses it, as the caller says.
        unsafe { free.write(Free { next: self.free.get() }) };
        self.free.set(Some(free));
    }

    /// The size and the alignment of a block: those asked for, or larger.
    #[must_use]
    pub const fn block_layout(&self) -> Layout {
        self.block
    }

    /// Blocks that could be taken without a new slab.
    ///
    /// # Complexity
    ///
    /// Linear in their number: blocks are not counted when they are taken and freed.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.freed().count() + self.fresh.free() / self.block.size()
    }

    /// Bytes that the pool holds of its base allocator.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let slabs =
            self.slabs().map(|(_, blocks)| slab_head(self.block) + blocks * self.block.size());
        slabs.sum()
    }

    /// Blocks in use.
    fn used(&self) -> usize {
        self.cut.get() - self.freed().count()
    }

    /// A block that was never used.
    #[cold]
    fn fresh_block(&self) -> Result<NonNull<u8>, AllocError> {
        let block = loop {
            match self.fresh.alloc(self.block) {
                Some(block) => break block,
                None => self.grow()?,
            }
        };
        self.cut.set(self.cut.get() + 1);
        Ok(block)
    }

    /// Adds a slab, when all blocks of the others are cut.
    ///
    /// The base allocator may run foreign code (what gives memory up to a budget), which may come
    /// back to this pool and make it grow: then that slab is the one to cut.
    fn grow(&self) -> Result<(), AllocError> {
        let Growth { first, max_slab, max_blocks } = self.growth;
        let total = self.cut.get();
        let blocks = total.max(first).min(max_slab).min(max_blocks.saturating_sub(total));
        if blocks == 0 {
            return Err(AllocError);
        }
        let layout = slab_layout(self.block, blocks).ok_or(AllocError)?;
        let before = self.newest.get();
        let start = self.base.allocate(layout)?.cast::<u8>();
        if self.newest.get() != before {
            // SAFETY: just allocated with this layout, and unused.
            unsafe { self.base.deallocate(start, layout) };
            return Ok(());
        }
        let slab = start.cast::<Slab>();
        // SAFETY: the slab begins with room for the link, and is aligned for it.
        unsafe { slab.write(Slab { before, blocks }) };
        self.newest.set(Some(slab));
        // SAFETY: the offset lies within the slab.
        let first = unsafe { start.add(slab_head(self.block)) };
        // SAFETY: the bytes are the slab's, which stays until the pool is dropped, and are new.
        unsafe { self.fresh.enter(first, self.block.size() * blocks) };
        Ok(())
    }

    /// The slabs from the newest on, each with its blocks.
    fn slabs(&self) -> impl Iterator<Item = (NonNull<Slab>, usize)> {
        let mut next = self.newest.get();
        iter::from_fn(move || {
            let slab = next?;
            // SAFETY: `grow` wrote the link; a slab is freed after it was read.
            let Slab { before, blocks } = unsafe { slab.read() };
            next = before;
            Some((slab, blocks))
        })
    }

    /// The blocks that were freed, the latest first.
    fn freed(&self) -> impl Iterator<Item = NonNull<Free>> {
        let mut next = self.free.get();
        iter::from_fn(move || {
            let free = next?;
            // SAFETY: a free block of this pool holds a `Free` (the invariants).
            next = unsafe { free.as_ref() }.next;
            Some(free)
        })
    }

    /// Panics where it can see that `block` is not in use.
    #[cfg(debug_assertions)]
    fn assert_in_use(&self, block: NonNull<u8>) {
        let address = block.addr().get();
        let of_a_slab = self.slabs().any(|(slab, blocks)| {
            let first = slab.addr().get() + slab_head(self.block);
            let offset = address.wrapping_sub(first);
            offset < blocks * self.block.size() && offset.is_multiple_of(self.block.size())
        });
        assert!(of_a_slab, "{block:p} is not a block of this pool");
        // As far as a look at the latest frees tells.
        let twice = self.freed().take(64).any(|free| free.cast() == block);
        assert!(!twice, "{block:p} is freed twice");
    }
}

impl<A: Allocator> Drop for BlockPool<A> {
    fn drop(&mut self) {
        for (slab, blocks) in self.slabs() {
            let layout = slab_layout(self.block, blocks).expect("as when the slab was made");
            // SAFETY: allocated by `base` with this layout (the invariants); blocks in it borrow the
            // pool, so that none is in use.
            unsafe { self.base.deallocate(slab.cast(), layout) };
        }
    }
}

// SAFETY: slabs are the pool's own, and `base`, which takes them back, is sent along; whatever else
// points into them borrows the pool, which then does not move.
unsafe impl<A: Allocator + Send> Send for BlockPool<A> {}

impl<A: Allocator> BlockPool<A> {
    fn fits(&self, layout: Layout) -> bool {
        layout.size() <= self.block.size() && layout.align() <= self.block.align()
    }
}

// SAFETY: a block is cut from a slab that stays until the pool is dropped, and is given out again
// only after it was freed; blocks are disjoint. Nothing unwinds, but for misuse with debug assertions.
unsafe impl<A: Allocator> Allocator for &BlockPool<A> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(empty(layout), 0));
        }
        if !self.fits(layout) {
            return Err(AllocError);
        }
        Ok(NonNull::slice_from_raw_parts(self.take_block()?, self.block.size()))
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller's promises; with bytes in it, it is a block of a slab.
            unsafe { self.free_block(block) };
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if old.size() == 0 {
            return self.allocate(new);
        }
        if !self.fits(new) {
            return Err(AllocError);
        }
        Ok(NonNull::slice_from_raw_parts(block, self.block.size()))
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises.
        let grown = unsafe { self.grow(block, old, new) }?;
        // SAFETY: the offset lies within the block.
        let rest = unsafe { grown.cast::<u8>().add(old.size()) };
        // SAFETY: the block is valid for writes up to its end.
        unsafe { rest.write_bytes(0, grown.len() - old.size()) };
        Ok(grown)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        if !self.fits(new) {
            return Err(AllocError);
        }
        if new.size() == 0 {
            // SAFETY: the caller's promises.
            unsafe { self.deallocate(block, old) };
            return self.allocate(new);
        }
        Ok(NonNull::slice_from_raw_parts(block, self.block.size()))
    }
}

forward_to_allocator_api2!(impl[A: Allocator] for &BlockPool<A>);

/// A value in a block of a pool.
///
/// # Examples
///
/// See [`BlockPool`].
pub type PoolBox<'p, T, A = SystemAllocator> = AllocBox<T, &'p BlockPool<A>>;

/// The bytes of blocks in use.
impl<A: Allocator> MemoryUsage for BlockPool<A> {
    fn used_bytes(&self) -> usize {
        self.used() * self.block.size()
    }

    fn peak_bytes(&self) -> usize {
        self.cut.get() * self.block.size()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.growth.max_blocks.checked_mul(self.block.size())
    }
}

impl<A: Allocator> fmt::Debug for BlockPool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPool")
            .field("block", &self.block)
            .field("used", &self.used())
            .field("free", &self.free_blocks())
            .finish_non_exhaustive()
    }
}
