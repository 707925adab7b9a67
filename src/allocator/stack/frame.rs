//! Frames: scopes that free the blocks of a stack when they end.

use super::StackAllocator;
use crate::{allocator::bump::Place, core::MemoryUsage};
use core::{fmt, num::NonZeroUsize, ops::Deref};

impl<R: Place> StackAllocator<R> {
    /// Opens a frame. When the frame is dropped, all blocks that were allocated since are freed.
    pub fn frame(&mut self) -> Frame<'_, R> {
        self.open_frame()
    }

    fn open_frame(&self) -> Frame<'_, R> {
        let (pos, top) = (self.pos.get(), self.top.get());
        Frame { stack: self, pos, top, floor: self.floor.replace(pos) }
    }
}

/// A scope of a stack, from [`StackAllocator::frame`]. When a frame is dropped, all blocks that
/// were allocated since the frame was opened are freed.
///
/// A frame dereferences to the stack, to allocate blocks, and opens further [frames](Self::frame).
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
pub struct Frame<'a, R: Place> {
    /// # Invariants
    ///
    /// The stack is borrowed uniquely, as seen from outside: a frame gives only shared borrows of
    /// it, for as long as the frame itself is borrowed. When the frame began, the stack's height
    /// was `pos` and its top block was `top`.
    stack: &'a StackAllocator<R>,
    pos: usize,
    top: Option<NonZeroUsize>,
    floor: usize,
}

impl<R: Place> Frame<'_, R> {
    /// Opens a frame within this one.
    pub fn frame(&mut self) -> Frame<'_, R> {
        self.stack.open_frame()
    }
}

impl<R: Place> Deref for Frame<'_, R> {
    type Target = StackAllocator<R>;

    fn deref(&self) -> &StackAllocator<R> {
        self.stack
    }
}

impl<R: Place> Drop for Frame<'_, R> {
    fn drop(&mut self) {
        self.stack.peak.set(self.stack.peak_bytes());
        self.stack.floor.set(self.floor);
        self.stack.lower(self.pos, self.top);
    }
}

impl<R: Place> fmt::Debug for Frame<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("stack", self.stack).field("began_at", &self.pos).finish()
    }
}
