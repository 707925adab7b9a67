//! What an allocator gave out, and what did not come back.

#[cfg(feature = "std")]
mod flow;
#[cfg(feature = "std")]
mod owned;
mod report;

pub use self::report::LeakReport;
#[cfg(feature = "std")]
pub use self::{flow::ContextFlow, owned::ContextAllocator};

use super::{
    AllocError, Allocator,
    stats::{AllocStats, Counters, LocalCounters, Record},
};
use crate::{
    core::{MemoryUsage, Usage},
    macros::forward_to_allocator_api2,
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};

/// Counts what another allocator gives out: blocks, bytes, the peak and the sizes.
///
/// Every call goes to the same call of the allocator below, so that blocks still grow in place and
/// pages that are zero already are not written. What is counted are the bytes asked for; a block is
/// as long as that, even where the allocator below has more, so that the count comes back to zero.
///
/// The counters decide who may share it, see [`stats`](super::stats): by default one thread at a
/// time, without atomics. With [`CallSites`](crate::allocator::stats::CallSites) for counters it also knows where live blocks come from.
///
/// # Complexity
///
/// Nothing per block in memory. A call costs what the call below does and the counters' two or three
/// additions.
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
/// Over a [`GlobalAlloc`] it is one itself. Its counters then must be counters alone: these never
/// lock, allocate, log or panic.
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
/// With [`ContextFlow`] for counters what passes is counted to the
/// [context](crate::integration::traits::Context) that the thread is in; over a [`ContextAllocator`] what is
/// live is, too, whoever frees it.
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
    /// Counts what `inner` gives out, for one thread at a time.
    ///
    /// # Examples
    ///
    /// See [`TrackedAllocator`].
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self::with_counters(inner, LocalCounters::new())
    }
}

impl<A, C> TrackedAllocator<A, C> {
    /// Counts what `inner` gives out with counters of the caller's choice.
    ///
    /// # Examples
    ///
    /// See [`TrackedAllocator`](TrackedAllocator#counting-the-whole-process).
    #[must_use]
    pub const fn with_counters(inner: A, counters: C) -> Self {
        Self { inner, counters }
    }

    /// The allocator below. A block that is made or freed there is not counted.
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

impl<A, C: Record> TrackedAllocator<A, C> {
    /// The figures.
    ///
    /// # Complexity
    ///
    /// Reads every counter: some eighty numbers, of [`StripedCounters`](super::stats::StripedCounters)
    /// sixteen times as many.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn stats(&self) -> AllocStats {
        self.counters.stats()
    }

    /// What is allocated still, by size, and with [`CallSites`](crate::allocator::stats::CallSites) by where it comes from; `None`
    /// where nothing is.
    ///
    /// # Complexity
    ///
    /// As [`stats`](Self::stats); with [`CallSites`](crate::allocator::stats::CallSites) also a walk over the samples, and a look-up of the
    /// names in each of their call stacks, which takes milliseconds.
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
    pub fn leaks(&self) -> Option<LeakReport> {
        LeakReport::of(&self.counters)
    }
}

impl<A: Allocator, C: Record> TrackedAllocator<A, C> {
    /// Counts a new block, which is as long as was asked for.
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

    /// Counts what `resize` makes of a block of `old` bytes.
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

// SAFETY: blocks are the inner allocator's, which moves along with the wrapper, and are freed there
// with layouts that fit: between the size asked for and the size returned, which are the same here.
// Counting never unwinds.
unsafe impl<A: Allocator, C: Record> Allocator for TrackedAllocator<A, C> {
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
        // Before the block can be anyone else's.
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

forward_to_allocator_api2!(impl[A: Allocator, C: Record] for TrackedAllocator<A, C>);

// SAFETY: blocks are the inner allocator's, and every call is passed to the same call with the same
// arguments. Counters only add to numbers, so nothing here unwinds or allocates.
unsafe impl<A: GlobalAlloc, C: Counters> GlobalAlloc for TrackedAllocator<A, C> {
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

impl<A, C: Counters> TrackedAllocator<A, C> {
    #[inline]
    fn count_raw(&self, block: *mut u8, layout: Layout) -> *mut u8 {
        match NonNull::new(block) {
            Some(made) => self.counters.allocated(made, layout.size()),
            None => self.counters.failed(),
        }
        block
    }
}

/// The bytes asked for and not freed.
impl<A, C: Record> MemoryUsage for TrackedAllocator<A, C> {
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
