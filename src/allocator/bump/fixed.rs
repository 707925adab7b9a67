//! The bump allocator over a region that does not grow.

use super::{
    raw::{Direction, RawBump, Up, empty},
    region::{Borrowed, Region},
};
#[cfg(debug_assertions)]
use crate::{allocator::misuse::check_bounds, utils::align::align_down};
use crate::{
    allocator::{AllocError, Allocator, traits::grow_then_zero},
    core::{MemoryUsage, Resettable},
    macros::forward_to_allocator_api2,
    utils::{align::is_aligned, poison::unpoison},
};
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{self, NonNull},
};
#[cfg(feature = "alloc")]
use {super::region::Owned, crate::allocator::SystemAllocator, crate::core::AllocationError};

/// A bump allocator over one region: it cuts one block after the other until the region is full.
/// All blocks are freed at once.
///
/// A reference to it is an [`Allocator`]. The newest block grows and shrinks in place, and its
/// bytes are free again when it is freed. Any other block stays until [`reset`](Self::reset). The
/// allocator is for one thread at a time.
///
/// `D` and `MIN_ALIGN` have the same meaning as for arenas. `D` is the end of the free bytes that
/// blocks are cut from. Blocks begin at multiples of `MIN_ALIGN`, which is 1 by default.
///
/// # Complexity
///
/// A block costs an addition and a comparison. There is no search.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{TypedAllocator, bump::{BumpAllocator, InlineBuffer}};
///
/// let mut buffer = InlineBuffer::<64>::new();
/// let mut frame = BumpAllocator::over(buffer.as_uninit());
/// for _ in 0..1000 {
///     let point = frame.alloc_value([1.0_f64, 2.0])?;
///     let name = frame.alloc_slice_copy(b"origin")?;
///     assert_eq!((point[1], &name[..]), (2.0, &b"origin"[..]));
///     drop((point, name));
///     frame.reset();
/// }
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// No block is used across a reset:
///
/// ```compile_fail
/// use nebula_memory::allocator::{TypedAllocator, bump::{BumpAllocator, InlineBuffer}};
///
/// let mut buffer = InlineBuffer::<64>::new();
/// let mut frame = BumpAllocator::over(buffer.as_uninit());
/// let kept = frame.alloc_value(7).unwrap();
/// frame.reset();
/// println!("{kept}");
/// ```
pub struct BumpAllocator<R: Region, D: Direction = Up, const MIN_ALIGN: usize = 1> {
    /// # Invariants
    ///
    /// The free bytes of `bump` are bytes of `region`.
    bump: RawBump<D, MIN_ALIGN>,
    /// The most bytes in use at once, up to the last reset, free or shrink.
    peak: Cell<usize>,
    region: R,
}

// SAFETY: the pointer leads into the region, which is sent along. Every other pointer into the
// region borrows the allocator, which then does not move.
unsafe impl<R: Region + Send, D: Direction, const MIN_ALIGN: usize> Send
    for BumpAllocator<R, D, MIN_ALIGN>
{
}

impl<'b> BumpAllocator<Borrowed<'b>> {
    /// Creates an allocator over `buffer`, which may lie anywhere, also in a `static`.
    #[must_use]
    pub fn over(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        Self::from_region(buffer.into())
    }
}

#[cfg(feature = "alloc")]
impl BumpAllocator<Owned<SystemAllocator>> {
    /// Creates an allocator over `bytes` bytes of the process's allocator.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if that allocator has no more memory, or if no address space has room
    /// for so many bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{TypedAllocator, bump::BumpAllocator};
    ///
    /// let bump = BumpAllocator::with_capacity(1024)?;
    /// let squares = bump.alloc_slice_fill_with(16, |i| i * i)?;
    /// assert_eq!(squares[15], 225);
    /// assert!(bump.alloc_value([0_u8; 1024]).is_err(), "not beside them");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocationError> {
        Owned::with_capacity("bump allocator", bytes).map(Self::from_region)
    }
}

impl<R: Region, D: Direction, const MIN_ALIGN: usize> BumpAllocator<R, D, MIN_ALIGN> {
    /// Creates an allocator over `region`, in either direction.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// use nebula_memory::allocator::{PageAllocator, bump::{BumpAllocator, Down, Owned}};
    ///
    /// let pages = Owned::new(1 << 20, PageAllocator)?;
    /// let bump = BumpAllocator::<_, Down, 16>::from_region(pages);
    /// assert_eq!(bump.free_bytes(), 1 << 20);
    /// # }
    /// # Ok::<(), nebula_memory::allocator::AllocError>(())
    /// ```
    #[must_use]
    pub fn from_region(region: R) -> Self {
        let mut this = Self { bump: RawBump::nowhere(), peak: Cell::new(0), region };
        this.reset();
        this
    }

    /// Frees all blocks.
    ///
    /// # Complexity
    ///
    /// Constant.
    pub fn reset(&mut self) {
        self.peak.set(self.peak_bytes());
        let (start, len) = self.region.bytes();
        // SAFETY: 1. The region's bytes are valid as long as the region lives, and the region is
        // dropped after the bump pointer. 2. They are the region's own, and no block is in use:
        // blocks borrow the allocator, which is borrowed uniquely here.
        unsafe { self.bump.enter(start, len) };
    }

    /// Returns the number of free bytes: the size of the largest block with alignment `MIN_ALIGN`
    /// that still fits.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.bump.free()
    }

    /// Frees all blocks, and returns the region.
    #[must_use]
    pub fn into_region(self) -> R {
        let this = ManuallyDrop::new(self);
        this.give_region_back();
        // SAFETY: the allocator is neither dropped nor used again.
        unsafe { ptr::read(&raw const this.region) }
    }

    /// Unpoisons all bytes: the region's next user does not know which bytes were free.
    fn give_region_back(&self) {
        let (start, len) = self.region.bytes();
        unpoison(start, len);
    }

    fn sized(block: NonNull<u8>, size: usize) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(block, size)
    }

    fn capacity(&self) -> usize {
        self.region.bytes().1
    }

    #[inline]
    fn block(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        match self.bump.alloc(layout) {
            Some(block) => Ok(block),
            None if layout.size() == 0 => Ok(empty(layout)),
            None => Err(AllocError),
        }
    }

    /// Panics unless `block` lies among the bytes in use.
    #[cfg(debug_assertions)]
    #[track_caller]
    fn check_in_use(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let (start, len) = self.region.bytes();
        let (start, end) = (start.addr().get(), start.addr().get() + len);
        let used = if D::UP {
            start..align_down(end, MIN_ALIGN) - self.free_bytes()
        } else {
            start.next_multiple_of(MIN_ALIGN) + self.free_bytes()..end
        };
        check_bounds("bump allocator", (block, layout), start..end, used);
    }

    /// Returns whether `block`, of `layout`, is the newest block.
    fn is_newest(&self, block: NonNull<u8>, layout: Layout) -> bool {
        layout.size() > 0 && self.bump.is_newest(block, layout.size())
    }
}

impl<R: Region, D: Direction, const MIN_ALIGN: usize> Drop for BumpAllocator<R, D, MIN_ALIGN> {
    fn drop(&mut self) {
        self.give_region_back();
    }
}

// SAFETY: blocks are disjoint parts of the region, which stays until the allocator is dropped.
// Their bytes are cut anew only by methods that borrow the allocator uniquely, when no reference to
// it is left. Nothing unwinds, except for misuse with debug assertions.
unsafe impl<R: Region, D: Direction, const MIN_ALIGN: usize> Allocator
    for &BumpAllocator<R, D, MIN_ALIGN>
{
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Ok(BumpAllocator::<R, D, MIN_ALIGN>::sized(self.block(layout)?, layout.size()))
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(debug_assertions)]
        self.check_in_use(block, layout);
        if self.is_newest(block, layout) {
            self.peak.set(self.peak_bytes());
            // SAFETY: 1. In use until now, as the caller says, and the newest block of its size,
            // which is not zero. 2. The caller does not use the block again.
            unsafe { self.bump.free_newest(block, layout.size()) };
        }
    }

    #[inline]
    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        #[cfg(debug_assertions)]
        self.check_in_use(block, old);
        if self.is_newest(block, old) {
            // SAFETY: 1 and 2 as in `deallocate`; `new` is not smaller. 3. The caller does not use
            // the old pointer again.
            if let Some(grown) = unsafe { self.bump.resize_newest(block, old, new) } {
                return Ok(BumpAllocator::<R, D, MIN_ALIGN>::sized(grown, new.size()));
            }
        }
        let target = self.allocate(new)?;
        // SAFETY: two blocks in use do not overlap, and both are valid for the old size.
        unsafe { block.copy_to_nonoverlapping(target.cast(), old.size()) };
        Ok(target)
    }

    #[inline]
    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises.
        unsafe { grow_then_zero(self, block, old, new) }
    }

    #[inline]
    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        #[cfg(debug_assertions)]
        self.check_in_use(block, old);
        if new.size() > 0 && self.is_newest(block, old) {
            self.peak.set(self.peak_bytes());
            // SAFETY: as in `grow`; `new` is not zero-sized.
            if let Some(shrunk) = unsafe { self.bump.resize_newest(block, old, new) } {
                return Ok(BumpAllocator::<R, D, MIN_ALIGN>::sized(shrunk, new.size()));
            }
        }
        if is_aligned(block.addr().get(), new) {
            return Ok(BumpAllocator::<R, D, MIN_ALIGN>::sized(block, new.size()));
        }
        let target = self.allocate(new)?;
        // SAFETY: two blocks in use do not overlap, and both are valid for the new size.
        unsafe { block.copy_to_nonoverlapping(target.cast(), new.size()) };
        Ok(target)
    }
}

forward_to_allocator_api2!(
    impl[R: Region, D: Direction, const MIN_ALIGN: usize] for &BumpAllocator<R, D, MIN_ALIGN>
);

/// The bytes that blocks take, including alignment gaps.
impl<R: Region, D: Direction, const MIN_ALIGN: usize> MemoryUsage
    for BumpAllocator<R, D, MIN_ALIGN>
{
    fn used_bytes(&self) -> usize {
        self.capacity() - self.free_bytes()
    }

    fn peak_bytes(&self) -> usize {
        self.peak.get().max(self.used_bytes())
    }

    fn capacity_bytes(&self) -> Option<usize> {
        Some(self.capacity())
    }
}

impl<R: Region, D: Direction, const MIN_ALIGN: usize> Resettable
    for BumpAllocator<R, D, MIN_ALIGN>
{
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<R: Region, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for BumpAllocator<R, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BumpAllocator")
            .field("used", &self.used_bytes())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
