//! The options of pools.

#[cfg(feature = "std")]
use super::SharedBlockPool;
use super::{
    BlockPool, COMPONENT,
    slabs::{Growth, Slabs},
};
use crate::{
    allocator::{Allocator, SystemAllocator},
    core::AllocationError,
};
use core::alloc::Layout;

/// Options of a [`BlockPool`]; from [`BlockPool::options`] or [`BlockPool::for_type`].
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
    /// Sets the number of blocks in the first slab, at least one; 64 by default. Each further slab
    /// doubles the pool.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{BlockPool, TypedAllocator}, arena::Arena};
    ///
    /// let base = Arena::new();
    /// let pool = BlockPool::for_type::<[u8; 64]>().first_slab_blocks(2).build_in(&base)?;
    /// let first = pool.alloc_value([1_u8; 64])?;
    /// let slab = base.filled_bytes();
    /// let second = pool.alloc_value([2_u8; 64])?;
    /// assert_eq!(base.filled_bytes(), slab, "it is of the same slab");
    /// let third = pool.alloc_value([3_u8; 64])?;
    /// assert!(base.filled_bytes() > slab);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn first_slab_blocks(mut self, blocks: usize) -> Self {
        self.growth.first = blocks;
        self
    }

    /// Sets the most blocks in one slab, at least one; 4096 by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{BlockPool, TypedAllocator}, arena::Arena};
    ///
    /// let base = Arena::new();
    /// let pool = BlockPool::for_type::<[u8; 512]>().max_slab_blocks(16).build_in(&base)?;
    /// let blocks = (0..100_u8).map(|i| pool.alloc_value([i; 512]));
    /// let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    /// assert!(base.filled_bytes() < (blocks.len() + 16) * 512, "no more than a slab is idle");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn max_slab_blocks(mut self, blocks: usize) -> Self {
        self.growth.max_slab = blocks;
        self
    }

    /// Sets the most blocks in the pool; unlimited by default. For a pool of a fixed size, set the
    /// first slab to the same number.
    pub const fn max_blocks(mut self, blocks: usize) -> Self {
        self.growth.max_blocks = blocks;
        self
    }

    /// Creates an empty pool. The first slab is allocated with the first block.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if no address space has room for a slab.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use nebula_memory::allocator::{BlockPool, TypedAllocator};
    ///
    /// let pool = BlockPool::for_type::<u64>().build()?;
    /// assert_eq!(*pool.alloc_value(7_u64)?, 7);
    ///
    /// let half = Layout::array::<u8>(isize::MAX as usize / 2).unwrap();
    /// assert!(BlockPool::options(half).build().is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build(self) -> Result<BlockPool, AllocationError> {
        self.build_in(SystemAllocator)
    }

    /// Like [`build`](Self::build), with slabs from `base`.
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
        let slabs = Slabs::new(COMPONENT, self.block, self.growth)?;
        Ok(BlockPool::new(slabs, base))
    }

    /// Creates an empty pool that many threads share.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    #[cfg(feature = "std")]
    pub fn build_shared(self) -> Result<SharedBlockPool, AllocationError> {
        self.build_shared_in(SystemAllocator)
    }

    /// Like [`build_shared`](Self::build_shared), with slabs from `base`. Several threads may call
    /// `base` at once.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{BlockPool, PageAllocator, TypedAllocator};
    ///
    /// let pages = BlockPool::for_type::<[u64; 512]>().build_shared_in(PageAllocator)?;
    /// assert_eq!(pages.alloc_value([7_u64; 512])?[511], 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn build_shared_in<A: Allocator>(
        self,
        base: A,
    ) -> Result<SharedBlockPool<A>, AllocationError> {
        SharedBlockPool::new(self.block, self.growth, base)
    }
}

impl BlockPool {
    /// Starts the options of a pool whose blocks have room for `block`.
    pub const fn options(block: Layout) -> BlockPoolOptions {
        let growth = Growth { first: 64, max_slab: 4096, max_blocks: usize::MAX };
        BlockPoolOptions { block, growth }
    }

    /// Starts the options of a pool whose blocks have room for a `T`.
    pub const fn for_type<T>() -> BlockPoolOptions {
        Self::options(Layout::new::<T>())
    }
}
