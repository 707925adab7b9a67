//! The [`Allocator`] implementation of the stack.

use super::StackAllocator;
use crate::{
    allocator::{
        AllocError, Allocator,
        bump::Place,
        traits::{grow_then_zero, move_to_new},
    },
    macros::forward_to_allocator_api2,
};
use core::{alloc::Layout, ptr::NonNull};

// SAFETY: blocks are disjoint parts of the region, which stays until the stack is dropped. Blocks
// that their owners did not free are taken back in two cases only: by methods that borrow the stack
// uniquely, when no reference to the stack is left, and by a frame, if the blocks borrow the frame.
// Nothing unwinds, except for misuse with debug assertions.
unsafe impl<R: Place> Allocator for &StackAllocator<R> {
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
        #[cfg(debug_assertions)]
        if old.size() > 0 {
            self.check_in_use(block, old);
        }
        if old.size() > 0
            && let Some(grown) = self.resize_top(block, old, new)
        {
            return Ok(grown);
        }
        // SAFETY: the caller's promises.
        unsafe { move_to_new(self, block, old, new) }
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
        if old.size() > 0 {
            self.check_in_use(block, old);
        }
        if new.size() > 0 {
            if let Some(shrunk) = self.resize_top(block, old, new) {
                return Ok(shrunk);
            }
            if block.addr().get().is_multiple_of(new.align()) {
                return Ok(NonNull::slice_from_raw_parts(block, new.size()));
            }
        }
        // SAFETY: the caller's promises.
        unsafe { move_to_new(self, block, old, new) }
    }
}

forward_to_allocator_api2!(impl[R: Place] for &StackAllocator<R>);
