use crate::{
    allocator::stats::{AllocStats, CallSite, Counters, Record, Sealed, StripedCounters},
    integration::traits::context::meter,
};
use core::ptr::NonNull;
use std::vec::Vec;

/// Counters that also count the bytes that a thread allocates and frees while it is in a
/// [context](crate::integration::traits::Context). Freed bytes count to this context even if
/// another one allocated them.
///
/// These counters need no header in front of blocks. They are enough if work frees the blocks that
/// it allocates: the difference of the two numbers is then the memory of the context. With a
/// [`ContextAllocator`](super::ContextAllocator) that memory is exact.
///
/// # Complexity
///
/// In addition to the other counters' cost, a call looks up the context. In a context the call also
/// costs an addition, without a read-modify-write as long as at most four threads are in the
/// context.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{TrackedAllocator, tracked::ContextFlow};
/// use nebula_memory::integration::traits::Context;
/// use std::alloc::System;
///
/// #[global_allocator]
/// static HEAP: TrackedAllocator<System, ContextFlow> =
///     TrackedAllocator::with_counters(System, ContextFlow::new());
///
/// let tenant = Context::root("tenant-a").build();
/// tenant.run(|| drop(vec![0_u8; 1000]));
/// let flow = tenant.flow();
/// assert!(flow.allocated >= 1000 && flow.allocated == flow.freed);
/// ```
#[derive(Debug, Default)]
pub struct ContextFlow<C = StripedCounters> {
    totals: C,
}

impl ContextFlow {
    /// Creates counters at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self::beside(StripedCounters::new())
    }
}

impl<C> ContextFlow<C> {
    /// Creates counters that count totals with `totals`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{stats::SharedCounters, tracked::ContextFlow};
    ///
    /// static COUNTERS: ContextFlow<SharedCounters> = ContextFlow::beside(SharedCounters::new());
    /// ```
    #[must_use]
    pub const fn beside(totals: C) -> Self {
        Self { totals }
    }
}

impl<C: Record> Sealed for ContextFlow<C> {}
impl<C: Counters> Counters for ContextFlow<C> {}
impl<C: Record> Record for ContextFlow<C> {
    type Resizing = C::Resizing;

    #[inline]
    fn allocated(&self, block: NonNull<u8>, size: usize) {
        meter::allocated(size);
        self.totals.allocated(block, size);
    }

    #[inline]
    fn freed(&self, block: NonNull<u8>, size: usize) {
        meter::freed(size);
        self.totals.freed(block, size);
    }

    #[inline]
    fn resizing(&self, block: NonNull<u8>, size: usize) -> C::Resizing {
        self.totals.resizing(block, size)
    }

    #[inline]
    fn resized(&self, was: C::Resizing, old: usize, block: NonNull<u8>, new: usize) {
        match new.checked_sub(old) {
            Some(more) => meter::allocated(more),
            None => meter::freed(old - new),
        }
        self.totals.resized(was, old, block, new);
    }

    #[inline]
    fn not_resized(&self, was: C::Resizing, block: NonNull<u8>) {
        self.totals.not_resized(was, block);
    }

    #[inline]
    fn failed(&self) {
        self.totals.failed();
    }

    fn stats(&self) -> AllocStats {
        self.totals.stats()
    }

    fn sites(&self) -> Vec<CallSite> {
        self.totals.sites()
    }
}
