//! What an allocator tells its counters.

use super::figures::AllocStats;
use core::ptr::NonNull;

mod sealed {
    pub trait Sealed {}
}
pub(in crate::allocator) use sealed::Sealed;

/// What a [`TrackedAllocator`](crate::allocator::TrackedAllocator) tells of every block.
///
/// Sealed, as [`Counter`](super::Counter) is. A block that is resized is announced before, so that its address may
/// be given to another one meanwhile.
///
/// # Examples
///
/// By hand, for memory that no allocator here gives out:
///
/// ```
/// use nebula_memory::allocator::stats::{LocalCounters, Record};
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
pub trait Record: Sealed {
    /// What is kept of a block while it is resized.
    type Resizing;

    /// A block was made.
    fn allocated(&self, block: NonNull<u8>, size: usize);

    /// A block is about to go.
    fn freed(&self, block: NonNull<u8>, size: usize);

    /// A block is about to be resized.
    fn resizing(&self, block: NonNull<u8>, size: usize) -> Self::Resizing;

    /// The block was resized, to another address or not.
    fn resized(&self, was: Self::Resizing, old: usize, block: NonNull<u8>, new: usize);

    /// The block could not be resized, and is what it was.
    fn not_resized(&self, was: Self::Resizing, block: NonNull<u8>);

    /// A block could not be made.
    fn failed(&self);

    /// The figures.
    fn stats(&self) -> AllocStats;

    /// Where the live blocks come from, as far as that is known; the most bytes first.
    #[cfg(feature = "std")]
    fn sites(&self) -> std::vec::Vec<super::figures::CallSite>;
}

/// Counters alone: they never lock, allocate or panic, so that they may run in the hook of a
/// `#[global_allocator]`.
///
/// # Examples
///
/// See [`TrackedAllocator`](crate::allocator::TrackedAllocator#counting-the-whole-process).
pub trait Counters: Record {}
