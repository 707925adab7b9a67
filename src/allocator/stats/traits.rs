//! The traits of counters: an allocator calls them for each event.

use super::figures::AllocStats;
use core::ptr::NonNull;

mod sealed {
    pub trait Sealed {}
}
pub(super) use sealed::Sealed;

/// Receives every event of a [`TrackedAllocator`](crate::allocator::TrackedAllocator)'s blocks.
///
/// This trait is sealed: counters run inside allocators, which must not panic. A resize is announced before it
/// happens. Until it is reported as done, another block may get the old address.
///
/// # Examples
///
/// For memory that comes from no allocator of this library, call the methods yourself:
///
/// ```
/// use nebula_memory::allocator::stats::{LocalCounters, Counters};
/// use core::ptr::NonNull;
///
/// let counters = LocalCounters::new();
/// let block = NonNull::from(&[0_u8; 64]).cast();
/// counters.allocated(block, 64);
/// let was = counters.resizing(block, 64);
/// counters.resized(was, 64, block, 48);
/// assert_eq!((counters.stats().usage.used, counters.stats().usage.peak), (48, 64));
/// counters.freed(block, 48);
/// assert_eq!(counters.stats().live_blocks(), 0);
/// ```
pub trait Counters: Sealed {
    /// The data that is kept about a block while it is resized.
    type Resizing;

    /// Counts a block that was allocated.
    fn allocated(&self, block: NonNull<u8>, size: usize);

    /// Counts a block that is about to be freed.
    fn freed(&self, block: NonNull<u8>, size: usize);

    /// Announces that a block is about to be resized.
    fn resizing(&self, block: NonNull<u8>, size: usize) -> Self::Resizing;

    /// Counts a block that was resized. Its address may have changed.
    fn resized(&self, was: Self::Resizing, old: usize, block: NonNull<u8>, new: usize);

    /// Counts a resize that failed. The block is unchanged.
    fn not_resized(&self, was: Self::Resizing, block: NonNull<u8>);

    /// Counts a block that could not be allocated.
    fn failed(&self);

    /// Returns the figures.
    fn stats(&self) -> AllocStats;

    /// Returns the call stacks that allocated the live blocks, as far as they are known. Those with
    /// the most bytes come first.
    #[cfg(feature = "std")]
    fn sites(&self) -> std::vec::Vec<super::figures::CallSite>;
}

/// Marks counters that never lock, allocate or panic, so that they may run in a
/// `#[global_allocator]`. All but [`CallSites`](super::CallSites) are.
pub trait GlobalCounters: Counters {}
