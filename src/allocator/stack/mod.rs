//! A stack of blocks that are mostly freed in the opposite order.
//!
//! ```text
//!   ┌────────┬───────┬─────┬────────┬───────┬───────────────────┐
//!   │ header │ block │ gap │ header │ block │       free        │
//!   └────────┴───────┴─────┴────────┴───────┴───────────────────┘
//!                    ▲              ▲       ▲
//!                    restore        top     pos
//! ```
//!
//! A header stores the height of the stack before its block, and the block that was on top then. So
//! freeing the top block restores the earlier state, including alignment gaps. A block that is freed
//! out of order is marked, and its bytes are free again once it is on top.
//!
//! All positions are offsets. So a stack that [owns its bytes](super::bump::InlineBuffer) may be moved
//! together with its blocks: at that time no reference to a block exists.
//!
//! There is no stack for many threads, because their frees have no common order.

mod as_allocator;
mod frame;
mod header;

pub use self::frame::Frame;

use self::header::{FREED, HEADER, Header};
#[cfg(debug_assertions)]
use super::misuse::check_bounds;
use super::{
    AllocError,
    bump::{Borrowed, Place, empty},
};
#[cfg(feature = "alloc")]
use super::{SystemAllocator, bump::Owned};
#[cfg(feature = "alloc")]
use crate::core::AllocationError;
use crate::{
    core::{MemoryUsage, Resettable},
    utils::{
        align::checked_align_up,
        poison::{poison, unpoison},
    },
};
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    mem::MaybeUninit,
    num::NonZeroUsize,
    ops::Range,
    ptr::{self, NonNull},
};

/// A stack of blocks in one region. Use it for scratch memory that is mostly freed in the opposite
/// order.
///
/// A reference to it is an [`Allocator`](super::Allocator). Blocks may be freed in any order, and
/// their bytes are free again once everything above them is freed. The top block grows and shrinks
/// in place. A block costs a header of two words. A stack is for one thread at a time.
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
/// A block does not outlive its frame, and while a frame is open nothing is allocated below it:
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
pub struct StackAllocator<R: Place> {
    /// # Invariants
    ///
    /// The height of the stack in bytes. Blocks lie in the region's bytes below this height; the
    /// bytes above are free.
    pos: Cell<usize>,
    /// # Invariants
    ///
    /// The offset of the top block in the region, behind its header. The headers' `below` lead to
    /// all other blocks, each lower than the one before. The top block is not marked as freed,
    /// unless it lies below `floor`.
    top: Cell<Option<NonZeroUsize>>,
    /// The height at which the innermost open frame began. While the frame is open, nothing below
    /// moves or is taken back, as the frame restores the stack to this height.
    floor: Cell<usize>,
    peak: Cell<usize>,
    region: R,
}

impl<'b> StackAllocator<Borrowed<'b>> {
    /// Creates a stack over `buffer`.
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
    /// Creates a stack over `bytes` bytes of the process's allocator.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if that allocator has no more memory, or if no address space has room
    /// for so many bytes.
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocationError> {
        Owned::with_capacity("stack allocator", bytes).map(Self::from_region)
    }
}

impl<R: Place> StackAllocator<R> {
    /// Creates a stack over `region`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// use nebula_memory::allocator::{PageAllocator, StackAllocator, bump::Owned};
    ///
    /// let stack = StackAllocator::from_region(Owned::new(1 << 20, PageAllocator)?);
    /// # }
    /// # Ok::<(), nebula_memory::allocator::AllocError>(())
    /// ```
    ///
    /// The bytes may be part of the stack itself. The stack may be moved while no block is borrowed:
    ///
    /// ```
    /// use nebula_memory::{
    ///     allocator::{StackAllocator, TypedAllocator, bump::InlineBuffer},
    ///     core::MemoryUsage,
    /// };
    ///
    /// struct Parser {
    ///     scratch: StackAllocator<InlineBuffer<512>>,
    /// }
    ///
    /// let parser = Parser { scratch: StackAllocator::from_region(InlineBuffer::new()) };
    /// assert_eq!(*parser.scratch.alloc_value(7)?, 7);
    /// let moved = Box::new(parser);
    /// assert_eq!(*moved.scratch.alloc_value([1; 100])?, [1; 100]);
    /// assert_eq!(moved.scratch.capacity_bytes(), Some(512));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    ///
    /// The stack cannot be moved while a block is borrowed:
    ///
    /// ```compile_fail
    /// use nebula_memory::allocator::{StackAllocator, TypedAllocator, bump::InlineBuffer};
    ///
    /// let stack = StackAllocator::from_region(InlineBuffer::<512>::new());
    /// let seven = stack.alloc_value(7).unwrap();
    /// let moved = Box::new(stack);
    /// assert_eq!(*seven, 7);
    /// ```
    #[must_use]
    pub const fn from_region(region: R) -> Self {
        Self {
            pos: Cell::new(0),
            top: Cell::new(None),
            floor: Cell::new(0),
            peak: Cell::new(0),
            region,
        }
    }

    /// Frees all blocks.
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

    /// Returns a pointer to the first byte of the region, valid for all its bytes.
    fn start(&self) -> NonNull<u8> {
        self.region.place().0
    }

    fn capacity(&self) -> usize {
        // Headers store offsets times two.
        self.region.place().1.min(usize::MAX >> 1)
    }

    /// Returns a pointer to the header of the block at the offset `at`.
    fn header_place(&self, at: NonZeroUsize) -> NonNull<Header> {
        // SAFETY: callers pass only offsets of blocks. The header of a block lies in front of it,
        // also if the region has moved since (the contract of a place).
        unsafe { self.start().add(at.get() - HEADER) }.cast()
    }

    fn header(&self, at: NonZeroUsize) -> Header {
        // SAFETY: `push` wrote the header, aligned, and nothing else uses it. If the region has
        // moved since, the header moved along, and is aligned as before (the contract of a place).
        unsafe { self.header_place(at).read() }
    }

    /// Allocates a block on top.
    fn push(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let (start, pos) = (self.start().addr().get(), self.pos.get());
        let behind_header = start.checked_add(pos + HEADER).ok_or(AllocError)?;
        let align = layout.align().max(align_of::<Header>());
        let at = checked_align_up(behind_header, align).ok_or(AllocError)? - start;
        let end = at.checked_add(layout.size()).filter(|end| *end <= self.capacity());
        let (Some(end), Some(top)) = (end, NonZeroUsize::new(at)) else { return Err(AllocError) };
        let header = Header { below: self.top.get(), word: pos << 1 };
        self.mark_free(pos..end, false);
        // SAFETY: the header lies within the free bytes, between `pos` and the block, and is aligned,
        // as the block is.
        unsafe { self.header_place(top).write(header) };
        self.pos.set(end);
        self.top.set(Some(top));
        // SAFETY: the offset lies within the region.
        Ok(unsafe { self.start().add(at) })
    }

    /// Lowers the stack to `pos`, with `top` on top. Then takes back the freed blocks that are now
    /// on top.
    fn lower(&self, mut pos: usize, mut top: Option<NonZeroUsize>) {
        while let Some(header) = top.map(|at| self.header(at))
            && header.is_freed()
            && header.restore() >= self.floor.get()
        {
            (pos, top) = (header.restore(), header.below);
        }
        self.mark_free(pos..self.pos.get(), true);
        self.pos.set(pos);
        self.top.set(top);
    }

    /// Tells memory checkers whether the bytes between two offsets are free. Bytes that are part of
    /// the stack itself are left out, as moving the stack reads all of them.
    #[inline(always)]
    fn mark_free(&self, offsets: Range<usize>, free: bool) {
        if cfg!(feature = "sanitize") && offsets.start < offsets.end && !self.is_inline() {
            // SAFETY: callers pass offsets within the region.
            let start = unsafe { self.start().add(offsets.start) };
            let tell = if free { poison } else { unpoison };
            tell(start, offsets.end - offsets.start);
        }
    }

    /// Returns whether the region lies within this value.
    fn is_inline(&self) -> bool {
        let offset = self.start().addr().get().wrapping_sub(ptr::from_ref(self).addr());
        offset < size_of::<Self>()
    }

    /// Panics unless `block` is in use, and long enough for `layout`.
    #[cfg(debug_assertions)]
    #[track_caller]
    fn check_in_use(&self, block: NonNull<u8>, layout: Layout) {
        const WHOSE: &str = "stack allocator";
        let start = self.start().addr().get();
        let (region, used) = (start..start + self.capacity(), start..start + self.pos.get());
        check_bounds(WHOSE, (block, layout), region, used);
        let offset = block.addr().get() - start;
        let (mut end, mut next) = (self.pos.get(), self.top.get());
        while let Some(at) = next
            && at.get() >= offset
        {
            let header = self.header(at);
            if at.get() == offset {
                assert!(!header.is_freed(), "{block:p} is freed twice to this {WHOSE}");
                assert!(
                    layout.size() <= end - offset,
                    "{layout:?} does not fit the block {block:p} of this {WHOSE}"
                );
                return;
            }
            (end, next) = (header.restore(), header.below);
        }
        panic!("{block:p} is not a block of this {WHOSE}, or is one no longer");
    }

    /// Returns the offset of `block`, which is a block of this stack.
    fn offset(&self, block: NonNull<u8>) -> Option<NonZeroUsize> {
        NonZeroUsize::new(block.addr().get().wrapping_sub(self.start().addr().get()))
    }

    /// Returns whether a block lies on top and in the innermost frame.
    fn is_free_to_move(&self, at: NonZeroUsize) -> bool {
        self.top.get() == Some(at) && at.get() > self.floor.get()
    }

    /// Resizes `block` in place, if it is on top and there is room.
    fn resize_top(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        let at = self.offset(block).filter(|at| self.is_free_to_move(*at))?;
        let end = at.get().checked_add(new.size()).filter(|end| *end <= self.capacity())?;
        if !block.addr().get().is_multiple_of(new.align()) {
            return None;
        }
        self.peak.set(self.peak_bytes());
        self.mark_free(end..self.pos.get(), true);
        self.mark_free((at.get() + old.size())..end, false);
        self.pos.set(end);
        // SAFETY: the offset lies within the region.
        let block = unsafe { self.start().add(at.get()) };
        Some(NonNull::slice_from_raw_parts(block, new.size()))
    }

    fn push_block(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = if layout.size() == 0 { empty(layout) } else { self.push(layout)? };
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    /// # Safety
    ///
    /// As [`Allocator::deallocate`].
    unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        #[cfg(debug_assertions)]
        self.check_in_use(block, layout);
        let Some(at) = self.offset(block) else { return };
        let header = self.header(at);
        if self.is_free_to_move(at) {
            self.peak.set(self.peak_bytes());
            self.lower(header.restore(), header.below);
        } else {
            let freed = Header { word: header.word | FREED, ..header };
            // SAFETY: the header of a block that is in use, as the caller says.
            unsafe { self.header_place(at).write(freed) };
            self.mark_free(at.get()..at.get() + layout.size(), true);
        }
    }
}

impl<R: Place> Drop for StackAllocator<R> {
    /// Marks all bytes as accessible: the region's next user does not know which bytes were free.
    fn drop(&mut self) {
        self.mark_free(0..self.capacity(), false);
    }
}

// SAFETY: the offsets belong to the region, which is sent along. Every pointer into the region
// borrows the stack, which then does not move.
unsafe impl<R: Place + Send> Send for StackAllocator<R> {}

/// The bytes below the top, including headers and alignment gaps.
impl<R: Place> MemoryUsage for StackAllocator<R> {
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

impl<R: Place> Resettable for StackAllocator<R> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<R: Place> fmt::Debug for StackAllocator<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackAllocator")
            .field("used", &self.used_bytes())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
