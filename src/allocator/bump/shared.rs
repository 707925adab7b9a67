//! The bump allocator that many threads share.

use super::{
    raw::empty,
    region::{Borrowed, Place},
};
#[cfg(debug_assertions)]
use crate::allocator::misuse::check_bounds;
use crate::{
    allocator::{AllocError, Allocator, global::global_by_allocator, traits::grow_then_zero},
    core::{MemoryUsage, Resettable},
    macros::forward_to_allocator_api2,
    utils::{
        align::checked_align_up,
        sync::{AtomicUsize, Ordering::*},
    },
};
use core::{alloc::Layout, fmt, mem::MaybeUninit, ptr::NonNull};
#[cfg(feature = "alloc")]
use {super::region::Owned, crate::allocator::SystemAllocator, crate::core::AllocationError};

/// Blocks from one region, front to back, for many threads, until it is full; freed all at once.
///
/// A reference to it is an [`Allocator`]. The newest block of all threads grows and shrinks where it
/// is and gives its bytes back, without those that its alignment took; any other stays until
/// [`reset`](Self::reset).
///
/// It is for what many threads write once: every block changes one word that all share. Threads that
/// allocate all the time are better off with an allocator each.
///
/// # Complexity
///
/// A block is one compare-and-swap, repeated where another thread was faster; some thread always is.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{TypedAllocator, bump::SharedBumpAllocator};
/// use std::thread;
///
/// let frame = SharedBumpAllocator::with_capacity(1 << 16)?;
/// let squares: Vec<_> = thread::scope(|scope| {
///     let workers: Vec<_> =
///         (0..4_u64).map(|i| { let frame = &frame; scope.spawn(move || frame.alloc_value(i * i)) }).collect();
///     workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Result<_, _>>()
/// })?;
/// assert_eq!(squares.iter().map(|square| **square).sum::<u64>(), 14);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// Nothing is used across a reset:
///
/// ```compile_fail
/// use nebula_memory::allocator::{TypedAllocator, bump::SharedBumpAllocator};
///
/// let mut frame = SharedBumpAllocator::with_capacity(64).unwrap();
/// let kept = frame.alloc_value(7).unwrap();
/// frame.reset();
/// println!("{kept}");
/// ```
///
/// # As the process's allocator
///
/// In a `static` it can be the [global](core::alloc::GlobalAlloc) one, of a program that runs to its end in so many
/// bytes, or has no heap:
///
/// ```
/// use nebula_memory::{allocator::bump::{InlineBuffer, SharedBumpAllocator}, core::MemoryUsage};
///
/// #[global_allocator]
/// static HEAP: SharedBumpAllocator<InlineBuffer<{ 4 << 20 }>> =
///     SharedBumpAllocator::from_region(InlineBuffer::new());
///
/// let before = HEAP.used_bytes();
/// let buffer = vec![0_u8; 1 << 20];
/// assert!(HEAP.used_bytes() >= before + buffer.len());
/// ```
pub struct SharedBumpAllocator<R: Place> {
    /// Bytes of the region that are taken.
    ///
    /// # Invariants
    ///
    /// At most the region's. Blocks in use lie below, and whoever raises it from one value to another
    /// owns the bytes between. It is a number and nothing else, so that it does not matter whether it
    /// changed and changed back while a thread looked away.
    taken: AtomicUsize,
    /// The most bytes that were taken before some came back.
    peak: AtomicUsize,
    region: R,
}

impl<'b> SharedBumpAllocator<Borrowed<'b>> {
    /// Blocks from `buffer`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{TypedAllocator, bump::{InlineBuffer, SharedBumpAllocator}};
    ///
    /// let mut buffer = InlineBuffer::<64>::new();
    /// let frame = SharedBumpAllocator::over(buffer.as_uninit());
    /// assert_eq!(*frame.alloc_value(7)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn over(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        Self::from_region(buffer.into())
    }
}

#[cfg(feature = "alloc")]
impl SharedBumpAllocator<Owned<SystemAllocator>> {
    /// Blocks from `bytes` of the process's allocator.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where it has no more, or no address space has room for as many.
    ///
    /// # Examples
    ///
    /// See [`SharedBumpAllocator`].
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocationError> {
        Owned::with_capacity("shared bump allocator", bytes).map(Self::from_region)
    }
}

impl<R: Place> SharedBumpAllocator<R> {
    /// Blocks from `region`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// use nebula_memory::allocator::bump::{ReadWrite, SharedBumpAllocator};
    ///
    /// let frame = SharedBumpAllocator::from_region(ReadWrite::map(1 << 20)?);
    /// # }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    ///
    /// For one in a `static` see [`InlineBuffer`](super::InlineBuffer).
    #[cfg(not(loom))]
    #[must_use]
    pub const fn from_region(region: R) -> Self {
        Self { taken: AtomicUsize::new(0), peak: AtomicUsize::new(0), region }
    }

    /// The model checker's atomics are not made at compile time.
    #[cfg(loom)]
    #[must_use]
    pub fn from_region(region: R) -> Self {
        Self { taken: AtomicUsize::new(0), peak: AtomicUsize::new(0), region }
    }

    /// Takes every block back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{AllocBox, TypedAllocator, bump::SharedBumpAllocator}, core::MemoryUsage};
    ///
    /// let mut frame = SharedBumpAllocator::with_capacity(64)?;
    /// AllocBox::leak(frame.alloc_value([7_u64; 8])?);
    /// frame.reset();
    /// assert_eq!((frame.used_bytes(), frame.peak_bytes()), (0, 64));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn reset(&mut self) {
        self.note_peak();
        self.taken.store(0, Relaxed);
    }

    /// The region, all of whose blocks are gone.
    #[must_use]
    pub fn into_region(self) -> R {
        self.region
    }

    fn note_peak(&self) {
        self.peak.fetch_max(self.taken.load(Relaxed), Relaxed);
    }

    /// A block of `layout`, which has bytes.
    fn block(&self, layout: Layout) -> Option<NonNull<u8>> {
        let (start, len) = self.region.place();
        let base = start.addr().get();
        let mut taken = self.taken.load(Relaxed);
        loop {
            let at = checked_align_up(base + taken, layout.align())? - base;
            let end = at.checked_add(layout.size()).filter(|end| *end <= len)?;
            // Acquire: what a thread that gave bytes back, by `give_back`, did with them is over.
            match self.taken.compare_exchange_weak(taken, end, Acquire, Relaxed) {
                // SAFETY: the offset lies within the region.
                Ok(_) => return Some(unsafe { start.add(at) }),
                Err(now) => taken = now,
            }
        }
    }

    /// Where `block` begins and ends, as offsets.
    fn offsets(&self, block: NonNull<u8>, layout: Layout) -> (usize, usize) {
        let at = block.addr().get() - self.region.place().0.addr().get();
        (at, at + layout.size())
    }

    /// Moves the end of the newest block of all threads from `end` to `new`, which is below;
    /// whether it was that.
    fn give_back(&self, end: usize, new: usize) -> bool {
        self.peak.fetch_max(end, Relaxed);
        // Release: pairs with the exchange of whoever takes the bytes next.
        self.taken.compare_exchange(end, new, Release, Relaxed).is_ok()
    }

    /// Panics unless `block` lies among those in use.
    #[cfg(debug_assertions)]
    #[track_caller]
    fn check_in_use(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            let (start, len) = self.region.place();
            let start = start.addr().get();
            let used = start..start + self.taken.load(Relaxed);
            check_bounds("shared bump allocator", (block, layout), start..start + len, used);
        }
    }
}

// SAFETY: blocks are disjoint parts of the region, which stays until the allocator is dropped; a
// part is given out again only after the newest block, which it was of, was freed or shrunk, or by
// `reset`, which borrows the allocator uniquely, when no reference to it is left. Nothing unwinds, but
// for misuse with debug assertions.
unsafe impl<R: Place> Allocator for &SharedBumpAllocator<R> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = if layout.size() == 0 {
            empty(layout)
        } else {
            self.block(layout).ok_or(AllocError)?
        };
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(debug_assertions)]
        self.check_in_use(block, layout);
        if layout.size() > 0 {
            let (at, end) = self.offsets(block, layout);
            self.give_back(end, at);
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        #[cfg(debug_assertions)]
        self.check_in_use(block, old);
        if old.size() > 0 && block.addr().get().is_multiple_of(new.align()) {
            let (at, end) = self.offsets(block, old);
            // As in `block`.
            if let Some(further) = at.checked_add(new.size())
                && further <= self.region.place().1
                && self.taken.compare_exchange(end, further, Acquire, Relaxed).is_ok()
            {
                // SAFETY: the offset of the block, which lies within the region.
                let block = unsafe { self.region.place().0.add(at) };
                return Ok(NonNull::slice_from_raw_parts(block, new.size()));
            }
        }
        let target = self.allocate(new)?;
        // SAFETY: two blocks in use do not overlap, and both are valid for the old size.
        unsafe { block.copy_to_nonoverlapping(target.cast(), old.size()) };
        Ok(target)
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises.
        unsafe { grow_then_zero(self, block, old, new) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        #[cfg(debug_assertions)]
        self.check_in_use(block, old);
        if block.addr().get().is_multiple_of(new.align()) {
            if old.size() > 0 {
                let (at, end) = self.offsets(block, old);
                self.give_back(end, at + new.size());
            }
            return Ok(NonNull::slice_from_raw_parts(block, new.size()));
        }
        let target = self.allocate(new)?;
        // SAFETY: two blocks in use do not overlap, and both are valid for the new size.
        unsafe { block.copy_to_nonoverlapping(target.cast(), new.size()) };
        Ok(target)
    }
}

forward_to_allocator_api2!(impl[R: Place] for &SharedBumpAllocator<R>);

global_by_allocator! {
    /// A block is valid until it is freed, or the allocator is moved, reset or dropped, as one in a
    /// `static` never is.
    impl[R: Place] for SharedBumpAllocator<R>
}

/// The bytes that blocks take, with what alignment costs.
impl<R: Place> MemoryUsage for SharedBumpAllocator<R> {
    fn used_bytes(&self) -> usize {
        self.taken.load(Relaxed)
    }

    fn peak_bytes(&self) -> usize {
        self.peak.load(Relaxed).max(self.used_bytes())
    }

    fn capacity_bytes(&self) -> Option<usize> {
        Some(self.region.place().1)
    }
}

impl<R: Place> Resettable for SharedBumpAllocator<R> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<R: Place> fmt::Debug for SharedBumpAllocator<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBumpAllocator")
            .field("used", &self.used_bytes())
            .field("capacity", &self.region.place().1)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::SharedBumpAllocator;
    use crate::allocator::Allocator;
    use core::{alloc::Layout, ptr::NonNull};
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    type Watched = UnsafeCell<u32>;
    const LAYOUT: Layout = Layout::new::<Watched>();

    /// Takes a block, uses it and, if it is the newest still, gives it back.
    fn use_one<A: Allocator>(allocator: A, mark: u32) {
        let Ok(block) = allocator.allocate(LAYOUT) else { return };
        let block: NonNull<Watched> = block.cast();
        // SAFETY: a new block, of the size and alignment of what is written.
        unsafe { block.write(UnsafeCell::new(mark)) };
        // SAFETY: written above.
        let watched = unsafe { block.as_ref() };
        thread::yield_now();
        watched.with_mut(|value| {
            // SAFETY: the model checker says so if it is not.
            assert_eq!(unsafe { *value }, mark, "another thread had it too");
        });
        // SAFETY: in use until here.
        unsafe { block.drop_in_place() };
        // SAFETY: taken above, and freed once.
        unsafe { allocator.deallocate(block.cast(), LAYOUT) };
    }

    #[test]
    fn bytes_are_one_threads_at_a_time() {
        loom::model(|| {
            let bytes = 2 * LAYOUT.size();
            let shared = Arc::new(SharedBumpAllocator::with_capacity(bytes).unwrap());
            let theirs = Arc::clone(&shared);
            let thread = thread::spawn(move || (1..3).for_each(|mark| use_one(&*theirs, mark)));
            (5..7).for_each(|mark| use_one(&*shared, mark));
            thread.join().unwrap();
        });
    }
}
