//! Memory that is freed in the opposite order, mostly.
//!
//! ```text
//!   ┌────────┬───────┬─────┬────────┬───────┬───────────────────┐
//!   │ header │ block │ gap │ header │ block │       free        │
//!   └────────┴───────┴─────┴────────┴───────┴───────────────────┘
//!                    ▲              ▲       ▲
//!                    restore        top     pos
//! ```
//!
//! A header says where the stack stood before its block and which block was on top then, so that
//! freeing the top block restores everything, alignment gaps included. A block that is freed out of
//! order is marked, and goes when it comes to lie on top.

use super::{
    AllocError, Allocator,
    bump::{Borrowed, Region, empty},
};
#[cfg(feature = "alloc")]
use super::{SystemAllocator, bump::Owned};
#[cfg(feature = "alloc")]
use crate::core::AllocationError;
use crate::{
    core::{MemoryUsage, Resettable},
    macros::forward_to_allocator_api2,
    utils::align::checked_align_up,
};
use core::{
    alloc::Layout, cell::Cell, fmt, mem::MaybeUninit, num::NonZeroUsize, ops::Deref, ptr::NonNull,
};

/// What lies before each block.
#[derive(Clone, Copy)]
struct Header {
    /// The block that was on top before, if there was one.
    below: Option<NonZeroUsize>,
    /// Where the stack stood before, an offset, times four; plus [`FREED`] and [`MARKER`].
    word: usize,
}

/// The block was freed and waits until it is on top.
const FREED: usize = 1;

/// The block is a marker's: it holds a serial number.
const MARKER: usize = 2;

impl Header {
    const fn restore(self) -> usize {
        self.word >> 2
    }

    const fn has(self, flag: usize) -> bool {
        self.word & flag != 0
    }
}

const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 2 * size_of::<usize>() && align_of::<Header>() <= 8);

/// Blocks from one region, on top of each other.
///
/// A reference to it is an [`Allocator`]: blocks may be freed in any order, and their bytes are free
/// again once everything on top is. The top block grows and shrinks where it is. A block costs a
/// header of two words. For one thread at a time.
///
/// # Examples
///
/// ```
/// use nebula_memory::{allocator::{StackAllocator, TypedAllocator}, core::MemoryUsage};
///
/// let mut stack = StackAllocator::with_capacity(4096)?;
/// {
///     let frame = stack.frame();
///     let path = frame.alloc_slice_copy(b"/usr/lib")?;
///     let depth = frame.alloc_value(path.iter().filter(|byte| **byte == b'/').count())?;
///     assert_eq!(*depth, 2);
/// } // the frame is gone, and all in it
/// assert_eq!(stack.used_bytes(), 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// A block does not outlive its frame, and while a frame is open nothing is put below it:
///
/// ```compile_fail
/// use nebula_memory::allocator::{StackAllocator, TypedAllocator};
///
/// let mut stack = StackAllocator::with_capacity(4096).unwrap();
/// let kept = {
///     let frame = stack.frame();
///     frame.alloc_value(7).unwrap()
/// };
/// ```
///
/// ```compile_fail
/// use nebula_memory::allocator::{StackAllocator, TypedAllocator};
///
/// let mut stack = StackAllocator::with_capacity(4096).unwrap();
/// let frame = stack.frame();
/// let below = stack.alloc_value(7).unwrap();
/// drop(frame);
/// ```
pub struct StackAllocator<R: Region> {
    /// # Invariants
    ///
    /// Bytes of the region below which blocks lie; the rest are free.
    pos: Cell<usize>,
    /// # Invariants
    ///
    /// The offset of the top block in the region, behind its header, and by the headers' `below` of
    /// all others, each lower than the one before. The top one is not marked as freed, unless it
    /// lies below `floor`.
    top: Cell<Option<NonZeroUsize>>,
    /// Where the innermost open frame began: nothing below moves or goes while it is open, as it
    /// restores the stack to that height.
    floor: Cell<usize>,
    peak: Cell<usize>,
    /// How many markers were set.
    marks: Cell<u64>,
    region: R,
}

impl<'b> StackAllocator<Borrowed<'b>> {
    /// Blocks from `buffer`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{StackAllocator, TypedAllocator, bump::InlineBuffer};
    ///
    /// let mut buffer = InlineBuffer::<256>::new();
    /// let stack = StackAllocator::over(buffer.as_uninit());
    /// assert_eq!(*stack.alloc_value(7)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn over(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        Self::from_region(buffer.into())
    }
}

#[cfg(feature = "alloc")]
impl StackAllocator<Owned<SystemAllocator>> {
    /// Blocks from `bytes` of the process's allocator.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where it has no more, or no address space has room for as many.
    ///
    /// # Examples
    ///
    /// See [`StackAllocator`].
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocationError> {
        Owned::with_capacity("stack allocator", bytes).map(Self::from_region)
    }
}

impl<R: Region> StackAllocator<R> {
    /// Blocks from `region`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// use nebula_memory::allocator::{StackAllocator, bump::ReadWrite};
    ///
    /// let stack = StackAllocator::from_region(ReadWrite::map(1 << 20)?);
    /// # }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    #[must_use]
    pub const fn from_region(region: R) -> Self {
        Self {
            pos: Cell::new(0),
            top: Cell::new(None),
            floor: Cell::new(0),
            peak: Cell::new(0),
            marks: Cell::new(0),
            region,
        }
    }

    /// A stretch of the stack's life, after which it is as high as before.
    ///
    /// # Examples
    ///
    /// See [`StackAllocator`].
    pub fn frame(&mut self) -> Frame<'_, R> {
        self.open_frame()
    }

    fn open_frame(&self) -> Frame<'_, R> {
        let (pos, top) = (self.pos.get(), self.top.get());
        Frame { stack: self, pos, top, floor: self.floor.replace(pos) }
    }

    /// Remembers how high the stack is now, to [release](Self::release) later what lies above.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where the stack has no room for the three words that a marker takes.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{AllocBox, StackAllocator, TypedAllocator}, core::MemoryUsage};
    ///
    /// let mut stack = StackAllocator::with_capacity(4096).unwrap();
    /// let outer = stack.mark().unwrap();
    /// AllocBox::leak(stack.alloc_value([1_u8; 100]).unwrap());
    /// let inner = stack.mark().unwrap();
    /// stack.release(outer).unwrap();
    /// assert_eq!(stack.used_bytes(), 0);
    /// assert!(stack.release(inner).is_err(), "it went with the outer one");
    /// ```
    pub fn mark(&self) -> Result<Marker, AllocError> {
        let serial = self.marks.get();
        let place = self.push(Layout::new::<u64>(), MARKER)?.cast::<u64>();
        // SAFETY: a new block of the size and the alignment of a `u64`.
        unsafe { place.write(serial) };
        self.marks.set(serial + 1);
        let region = self.start().addr().get();
        Ok(Marker { region, at: place.addr().get() - region, serial })
    }

    /// Takes back the marker and whatever lies above it.
    ///
    /// # Errors
    ///
    /// [`StaleMarker`], and nothing is taken back, for a marker that was released already, alone or
    /// with one below it, that a reset took, or that is another stack's.
    ///
    /// # Complexity
    ///
    /// Linear in the number of blocks above the marker.
    ///
    /// # Examples
    ///
    /// See [`mark`](Self::mark).
    pub fn release(&mut self, marker: Marker) -> Result<(), StaleMarker> {
        if marker.region != self.start().addr().get() {
            return Err(StaleMarker);
        }
        let mut block = self.top.get();
        while let Some(at) = block
            && at.get() > marker.at
        {
            block = self.header(at).below;
        }
        let Some(at) = block.filter(|at| at.get() == marker.at) else { return Err(StaleMarker) };
        let header = self.header(at);
        if !header.has(MARKER) || self.serial(at) != marker.serial {
            return Err(StaleMarker);
        }
        self.peak.set(self.peak_bytes());
        self.floor.set(self.floor.get().min(header.restore()));
        self.lower(header.restore(), header.below);
        Ok(())
    }

    /// Takes every block back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{AllocBox, StackAllocator, TypedAllocator}, core::MemoryUsage};
    ///
    /// let mut stack = StackAllocator::with_capacity(4096)?;
    /// AllocBox::leak(stack.alloc_value(7)?);
    /// stack.reset();
    /// assert_eq!(stack.used_bytes(), 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn reset(&mut self) {
        self.peak.set(self.peak_bytes());
        self.floor.set(0);
        self.lower(0, None);
    }

    /// The first byte of the region, valid for all.
    fn start(&self) -> NonNull<u8> {
        self.region.bytes().0
    }

    fn capacity(&self) -> usize {
        // Offsets are kept times four.
        self.region.bytes().1.min(usize::MAX >> 2)
    }

    /// The header of the block at the offset `at`.
    fn header_place(&self, at: NonZeroUsize) -> NonNull<Header> {
        // SAFETY: only offsets of blocks are passed in, before which their headers lie.
        unsafe { self.start().add(at.get() - HEADER) }.cast()
    }

    fn header(&self, at: NonZeroUsize) -> Header {
        // SAFETY: `push` wrote it, aligned, and nobody else has it.
        unsafe { self.header_place(at).read() }
    }

    /// The serial number in a marker's block.
    fn serial(&self, at: NonZeroUsize) -> u64 {
        debug_assert!(self.header(at).has(MARKER));
        // SAFETY: the offset of a block lies within the region.
        let place = unsafe { self.start().add(at.get()) };
        // SAFETY: `mark` wrote it, aligned, and gives the block to nobody.
        unsafe { place.cast().read() }
    }

    /// A block on top, with `flag` in its header.
    fn push(&self, layout: Layout, flag: usize) -> Result<NonNull<u8>, AllocError> {
        let (start, pos) = (self.start().addr().get(), self.pos.get());
        let behind_header = start.checked_add(pos + HEADER).ok_or(AllocError)?;
        let align = layout.align().max(align_of::<Header>());
        let at = checked_align_up(behind_header, align).ok_or(AllocError)? - start;
        let end = at.checked_add(layout.size()).filter(|end| *end <= self.capacity());
        let (Some(end), Some(top)) = (end, NonZeroUsize::new(at)) else { return Err(AllocError) };
        let header = Header { below: self.top.get(), word: pos << 2 | flag };
        // SAFETY: the header lies within the free bytes, between `pos` and the block, and is aligned,
        // as the block is.
        unsafe { self.header_place(top).write(header) };
        self.pos.set(end);
        self.top.set(Some(top));
        // SAFETY: the offset lies within the region.
        Ok(unsafe { self.start().add(at) })
    }

    /// Takes everything above `pos` back, with `top` on top, then what was freed below.
    fn lower(&self, mut pos: usize, mut top: Option<NonZeroUsize>) {
        while let Some(header) = top.map(|at| self.header(at))
            && header.has(FREED)
            && header.restore() >= self.floor.get()
        {
            (pos, top) = (header.restore(), header.below);
        }
        self.pos.set(pos);
        self.top.set(top);
    }

    /// The offset of `block`, which is one of this stack's.
    fn offset(&self, block: NonNull<u8>) -> Option<NonZeroUsize> {
        NonZeroUsize::new(block.addr().get().wrapping_sub(self.start().addr().get()))
    }

    /// Whether a block lies on top and in the innermost frame.
    fn is_free_to_move(&self, at: NonZeroUsize) -> bool {
        self.top.get() == Some(at) && at.get() > self.floor.get()
    }

    /// Resizes `block` where it is, if it is on top and there is room.
    fn resize_top(&self, block: NonNull<u8>, new: Layout) -> Option<NonNull<[u8]>> {
        let at = self.offset(block).filter(|at| self.is_free_to_move(*at))?;
        let end = at.get().checked_add(new.size()).filter(|end| *end <= self.capacity())?;
        if !block.addr().get().is_multiple_of(new.align()) {
            return None;
        }
        self.peak.set(self.peak_bytes());
        self.pos.set(end);
        // SAFETY: the offset lies within the region.
        let block = unsafe { self.start().add(at.get()) };
        Some(NonNull::slice_from_raw_parts(block, new.size()))
    }

    fn push_block(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = if layout.size() == 0 { empty(layout) } else { self.push(layout, 0)? };
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    /// # Safety
    ///
    /// As [`Allocator::deallocate`].
    unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let Some(at) = self.offset(block) else { return };
        let header = self.header(at);
        debug_assert!(
            !header.has(FREED | MARKER),
            "a block is freed twice, or is no block's start"
        );
        if self.is_free_to_move(at) {
            self.peak.set(self.peak_bytes());
            self.lower(header.restore(), header.below);
        } else {
            let freed = Header { word: header.word | FREED, ..header };
            // SAFETY: the header of a block that is in use, as the caller says.
            unsafe { self.header_place(at).write(freed) };
        }
    }
}

// SAFETY: the offsets belong to the region, which is sent along; whatever points into it borrows the
// stack, which then does not move.
unsafe impl<R: Region + Send> Send for StackAllocator<R> {}

// SAFETY: blocks are disjoint parts of the region, which stays until the stack is dropped, and are
// taken back without their owners' doing only by methods that borrow the stack uniquely, when no
// reference to it is left, and by a frame for what borrows the frame. Nothing unwinds.
unsafe impl<R: Region> Allocator for &StackAllocator<R> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.push_block(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { self.free_block(block, layout) }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if old.size() > 0
            && let Some(grown) = self.resize_top(block, new)
        {
            return Ok(grown);
        }
        let target = self.push_block(new)?;
        // SAFETY: two blocks in use are disjoint and as long; the old one is allocated here.
        unsafe { super::traits::relocate(self, block, old, target, old.size()) };
        Ok(target)
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
        unsafe { rest.write_bytes(0, new.size() - old.size()) };
        Ok(grown)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        if new.size() > 0 {
            if let Some(shrunk) = self.resize_top(block, new) {
                return Ok(shrunk);
            }
            if block.addr().get().is_multiple_of(new.align()) {
                return Ok(NonNull::slice_from_raw_parts(block, new.size()));
            }
        }
        let target = self.push_block(new)?;
        // SAFETY: two blocks in use are disjoint and as long; the old one is allocated here.
        unsafe { super::traits::relocate(self, block, old, target, new.size()) };
        Ok(target)
    }
}

forward_to_allocator_api2!(impl[R: Region] for &StackAllocator<R>);

/// What lies below the top, headers and alignment gaps included.
impl<R: Region> MemoryUsage for StackAllocator<R> {
    fn used_bytes(&self) -> usize {
        self.pos.get()
    }

    fn peak_bytes(&self) -> usize {
        self.peak.get().max(self.pos.get())
    }

    fn capacity_bytes(&self) -> Option<usize> {
        Some(self.capacity())
    }
}

impl<R: Region> Resettable for StackAllocator<R> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<R: Region> fmt::Debug for StackAllocator<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackAllocator")
            .field("used", &self.used_bytes())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// A stretch of a stack's life; from [`StackAllocator::frame`]. When it is dropped, whatever was put
/// on the stack since is gone.
///
/// It gives shared access to the stack, to allocate from, and further [frames](Self::frame).
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{StackAllocator, TypedAllocator};
///
/// let mut stack = StackAllocator::with_capacity(4096)?;
/// let mut outer = stack.frame();
/// let total = {
///     let inner = outer.frame();
///     let scratch = inner.alloc_slice_fill_with(10, |i| i)?;
///     scratch.iter().sum::<usize>()
/// };
/// assert_eq!(*outer.alloc_value(total)?, 45);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Frame<'a, R: Region> {
    /// # Invariants
    ///
    /// Borrowed uniquely, as far as others see: it is only lent out, shared, for as long as the frame
    /// is borrowed. It stood at `pos` with `top` on top when the frame began.
    stack: &'a StackAllocator<R>,
    pos: usize,
    top: Option<NonZeroUsize>,
    floor: usize,
}

impl<R: Region> Frame<'_, R> {
    /// A frame within this one.
    ///
    /// # Examples
    ///
    /// See [`Frame`].
    pub fn frame(&mut self) -> Frame<'_, R> {
        self.stack.open_frame()
    }
}

impl<R: Region> Deref for Frame<'_, R> {
    type Target = StackAllocator<R>;

    fn deref(&self) -> &StackAllocator<R> {
        self.stack
    }
}

impl<R: Region> Drop for Frame<'_, R> {
    fn drop(&mut self) {
        self.stack.peak.set(self.stack.peak_bytes());
        self.stack.floor.set(self.floor);
        self.stack.lower(self.pos, self.top);
    }
}

impl<R: Region> fmt::Debug for Frame<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("stack", self.stack).field("began_at", &self.pos).finish()
    }
}

/// A height of a stack; from [`StackAllocator::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a marker that is not released stays on the stack until it is reset"]
pub struct Marker {
    region: usize,
    at: usize,
    serial: u64,
}

/// A [`Marker`] is of another stack, or no longer on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the marker is not on this stack: released already, or of another stack")]
pub struct StaleMarker;
