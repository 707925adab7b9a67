//! Blocks that grow, shrink and go: the newest where it is, any other by a copy.

use super::raw::RawArena;
use crate::{
    allocator::{
        Allocator,
        bump::{Direction, empty},
    },
    core::AllocationError,
};
use core::{alloc::Layout, ptr::NonNull};

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// A larger block in the place of `block`, with its contents: the newest borders on the free
    /// bytes, and takes some of them; any other is copied.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); the block is as it was.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `old`, and the arena has not gone back to before it.
    /// 2. Unless this fails it is not used again.
    /// 3. `new.size() >= old.size()`.
    #[inline]
    pub(super) unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if old.size() > 0 && self.bump.is_newest(block, old.size()) {
            // SAFETY: 1, 2, just checked, and sizes that are not zero.
            if let Some(grown) = unsafe { self.bump.resize_newest(block, old, new) } {
                return Ok(grown);
            }
        }
        let target = self.alloc::<AllocationError>(new)?;
        // SAFETY: two blocks that are in use do not overlap; both are valid for the old size.
        unsafe { block.copy_to_nonoverlapping(target, old.size()) };
        Ok(target)
    }

    /// A smaller block in the place of `block`, with the beginning of its contents. The rest of the
    /// newest goes back to the free bytes.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc), where the new alignment is one that the block does not have.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `old`, and the arena has not gone back to before it.
    /// 2. Unless this fails it is not used again.
    /// 3. `new.size() <= old.size()`.
    #[inline]
    pub(super) unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        if new.size() == 0 {
            // SAFETY: 1 and 2.
            unsafe { self.free_block(block, old) };
            return Ok(empty(new));
        }
        if self.bump.is_newest(block, old.size()) {
            // SAFETY: 1, 2, just checked, and sizes that are not zero.
            if let Some(shrunk) = unsafe { self.bump.resize_newest(block, old, new) } {
                return Ok(shrunk);
            }
        }
        if block.addr().get().is_multiple_of(new.align()) {
            return Ok(block);
        }
        let target = self.alloc::<AllocationError>(new)?;
        // SAFETY: two blocks that are in use do not overlap; both are valid for the new size.
        unsafe { block.copy_to_nonoverlapping(target, new.size()) };
        Ok(target)
    }

    /// Gives the newest block back; any other stays until the arena goes back.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `layout`, and the arena has not gone back to before it.
    /// 2. It is not used again.
    #[inline]
    pub(super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 && self.bump.is_newest(block, layout.size()) {
            // SAFETY: 1, 2, and just checked.
            unsafe { self.bump.free_newest(block, layout.size()) };
        }
    }
}
