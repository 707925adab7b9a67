//! Counts the blocks of an allocator, and reports blocks that were not freed.

#[cfg(feature = "std")]
mod owned;

#[cfg(feature = "std")]
pub use self::owned::ContextAllocator;

use super::{
    AllocError, Allocator,
    stats::{AllocStats, Counters, GlobalCounters, LocalCounters},
};
use crate::{
    core::{MemoryUsage, Usage},
    macros::forward_to_allocator_api2,
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};

/// Counts the blocks of another allocator: their number, bytes, peak and sizes. Use it to measure
/// memory and to find leaks.
///
/// Every call goes to the same call of the inner allocator. So blocks still grow in place, and
/// pages that are zero already are not written. Requested bytes are counted. A block has the
/// requested length, even if the inner allocator's block is longer, so that the count comes back to
/// zero.
///
/// The counters decide which threads may share it, see [`stats`](super::stats). The default is for
/// one thread at a time, without atomics. With [`CallSites`](crate::allocator::stats::CallSites) as
/// counters the allocator also knows the call stacks that allocated the live blocks.
///
/// # Complexity
///
/// Blocks take no further memory. A call costs the same call of the inner allocator, and the
/// counters' two or three additions.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{SystemAllocator, TrackedAllocator, TypedAllocator};
///
/// let tracked = TrackedAllocator::new(SystemAllocator);
/// let names = (&tracked).alloc_slice_fill_with(2, |i| i.to_string())?;
/// assert_eq!(tracked.stats().usage.used, 48);
/// drop(names);
/// assert!(tracked.leaks().is_none());
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// # Counting the whole process
///
/// Over a [`GlobalAlloc`], this allocator is a [`GlobalAlloc`] itself. It then needs counters
/// that never lock, allocate, log or panic: all but
/// [`CallSites`](crate::allocator::stats::CallSites).
///
/// ```
/// use nebula_memory::allocator::{TrackedAllocator, stats::StripedCounters};
/// use std::alloc::System;
///
/// #[global_allocator]
/// static HEAP: TrackedAllocator<System, StripedCounters> =
///     TrackedAllocator::with_counters(System, StripedCounters::new());
///
/// let before = HEAP.stats().usage.used;
/// let buffer = vec![0_u8; 1 << 20];
/// assert!(HEAP.stats().usage.used >= before + buffer.len());
/// ```
///
/// # Counting by context
///
/// Over a [`ContextAllocator`], a live block counts to the
/// [context](crate::integration::traits::Context) that allocated it, whichever thread frees it.
///
/// ```
/// use nebula_memory::allocator::{ContextAllocator, TrackedAllocator, stats::StripedCounters};
/// use nebula_memory::integration::traits::Context;
/// use std::alloc::System;
///
/// #[global_allocator]
/// static HEAP: TrackedAllocator<ContextAllocator<System>, StripedCounters> =
///     TrackedAllocator::with_counters(ContextAllocator::new(System), StripedCounters::new());
///
/// let tenant = Context::root("tenant-a").build();
/// let buffer = tenant.run(|| vec![0_u8; 1 << 20]);
/// assert!(tenant.usage().used >= buffer.len());
/// assert!(HEAP.stats().usage.used > tenant.usage().used);
/// ```
#[derive(Debug, Default)]
pub struct TrackedAllocator<A, C = LocalCounters> {
    inner: A,
    counters: C,
}

impl<A> TrackedAllocator<A> {
    /// Wraps `inner`, and counts for one thread at a time.
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self::with_counters(inner, LocalCounters::new())
    }
}

impl<A, C> TrackedAllocator<A, C> {
    /// Wraps `inner`, and counts with `counters`.
    #[must_use]
    pub const fn with_counters(inner: A, counters: C) -> Self {
        Self { inner, counters }
    }

    /// Returns the inner allocator. A block that is allocated or freed there is not counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{BlockPool, TrackedAllocator, TypedAllocator};
    /// use nebula_memory::core::MemoryUsage;
    ///
    /// let pool = BlockPool::for_type::<[u64; 8]>().build()?;
    /// let tracked = TrackedAllocator::new(&pool);
    /// let value = (&tracked).alloc_value(7_u64)?;
    /// assert_eq!((tracked.used_bytes(), tracked.inner().used_bytes()), (8, 64));
    /// # drop(value);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

impl<A, C: Counters> TrackedAllocator<A, C> {
    /// Returns the figures.
    ///
    /// # Complexity
    ///
    /// Reads every counter: some eighty numbers, and twenty times as many of
    /// [`StripedCounters`](super::stats::StripedCounters).
    #[must_use]
    pub fn stats(&self) -> AllocStats {
        self.counters.stats()
    }

    /// Reports the live blocks by size, and with [`CallSites`](crate::allocator::stats::CallSites)
    /// by the call stack that allocated them. Returns `None` if no block is live.
    ///
    /// # Complexity
    ///
    /// As [`stats`](Self::stats). With [`CallSites`](crate::allocator::stats::CallSites) also a
    /// walk over the samples, and a look-up of the names in each of their call stacks, which takes
    /// milliseconds.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{SystemAllocator, TrackedAllocator, TypedAllocator};
    ///
    /// let tracked = TrackedAllocator::new(SystemAllocator);
    /// let forgotten = (&tracked).alloc_value([0_u8; 100])?;
    /// let report = tracked.leaks().expect("one block is live");
    /// assert_eq!(report.to_string(), "1 block, 100 B, still allocated\n  1 of up to 128 B\n");
    /// # drop(forgotten);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn leaks(&self) -> Option<AllocStats> {
        #[cfg_attr(not(feature = "std"), expect(unused_mut, reason = "without call stacks"))]
        let mut stats = self.stats();
        if stats.live_blocks() == 0 {
            return None;
        }
        #[cfg(feature = "std")]
        {
            stats.call_sites = self.counters.sites();
        }
        Some(stats)
    }
}

impl<A: Allocator, C: Counters> TrackedAllocator<A, C> {
    /// Counts a new block, and returns it with the requested length.
    #[inline]
    fn count(
        &self,
        block: Result<NonNull<[u8]>, AllocError>,
        layout: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let Ok(block) = block else { return Err(self.count_failure()) };
        self.counters.allocated(block.cast(), layout.size());
        Ok(NonNull::slice_from_raw_parts(block.cast(), layout.size()))
    }

    #[cold]
    fn count_failure(&self) -> AllocError {
        self.counters.failed();
        AllocError
    }

    /// Resizes a block of `old` bytes by `resize`, and counts the result.
    #[inline]
    fn count_resized(
        &self,
        block: NonNull<u8>,
        old: usize,
        new: usize,
        resize: impl FnOnce(&A) -> Result<NonNull<[u8]>, AllocError>,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let was = self.counters.resizing(block, old);
        match resize(&self.inner) {
            Ok(resized) => {
                self.counters.resized(was, old, resized.cast(), new);
                Ok(NonNull::slice_from_raw_parts(resized.cast(), new))
            }
            Err(error) => {
                self.counters.not_resized(was, block);
                Err(error)
            }
        }
    }
}

// SAFETY: blocks are the inner allocator's, which moves along with the wrapper. They are freed
// there with layouts that fit: such a size lies between the requested size and the returned size,
// which are the same here. Counting never unwinds.
unsafe impl<A: Allocator, C: Counters> Allocator for TrackedAllocator<A, C> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.count(self.inner.allocate(layout), layout)
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.count(self.inner.allocate_zeroed(layout), layout)
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // Counted before another thread can get the block.
        self.counters.freed(block, layout.size());
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.deallocate(block, layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.count_resized(block, old.size(), new.size(), |inner| {
            // SAFETY: the caller's promises; the block is the inner allocator's.
            unsafe { inner.grow(block, old, new) }
        })
    }

    #[inline]
    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.count_resized(block, old.size(), new.size(), |inner| {
            // SAFETY: the caller's promises; the block is the inner allocator's.
            unsafe { inner.grow_zeroed(block, old, new) }
        })
    }

    #[inline]
    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.count_resized(block, old.size(), new.size(), |inner| {
            // SAFETY: the caller's promises; the block is the inner allocator's.
            unsafe { inner.shrink(block, old, new) }
        })
    }
}

forward_to_allocator_api2!(impl[A: Allocator, C: Counters] for TrackedAllocator<A, C>);

// SAFETY: blocks are the inner allocator's, and every call is passed to the same call with the same
// arguments. Counters only add to numbers, so nothing here unwinds or allocates.
unsafe impl<A: GlobalAlloc, C: GlobalCounters> GlobalAlloc for TrackedAllocator<A, C> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        self.count_raw(unsafe { self.inner.alloc(layout) }, layout)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        self.count_raw(unsafe { self.inner.alloc_zeroed(layout) }, layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: a block of this allocator (the caller's promise), and so not null.
        let given = unsafe { NonNull::new_unchecked(block) };
        self.counters.freed(given, layout.size());
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.dealloc(block, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: a block of this allocator (the caller's promise), and so not null.
        let given = unsafe { NonNull::new_unchecked(block) };
        let was = self.counters.resizing(given, layout.size());
        // SAFETY: the caller's promises; the block is the inner allocator's.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        match NonNull::new(moved) {
            Some(moved) => self.counters.resized(was, layout.size(), moved, new_size),
            None => self.counters.not_resized(was, given),
        }
        moved
    }
}

impl<A, C: GlobalCounters> TrackedAllocator<A, C> {
    #[inline]
    fn count_raw(&self, block: *mut u8, layout: Layout) -> *mut u8 {
        match NonNull::new(block) {
            Some(made) => self.counters.allocated(made, layout.size()),
            None => self.counters.failed(),
        }
        block
    }
}

/// The requested bytes of the live blocks.
impl<A, C: Counters> MemoryUsage for TrackedAllocator<A, C> {
    fn used_bytes(&self) -> usize {
        self.usage().used
    }

    fn peak_bytes(&self) -> usize {
        self.usage().peak
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }

    fn usage(&self) -> Usage {
        self.counters.stats().usage
    }
}
