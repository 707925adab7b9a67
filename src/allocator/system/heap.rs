//! The process's heap: the `#[global_allocator]`.

#![expect(clippy::disallowed_methods, reason = "the one file that calls the process's allocator")]

use crate::allocator::{AllocError, Allocator, bump::empty, traits::move_to_new};
use alloc::alloc::{alloc, alloc_zeroed, dealloc, realloc};
use core::{alloc::Layout, ptr::NonNull};

/// An allocator of every layout from the heap.
///
/// `grow` and `shrink` use the heap's `realloc` if the alignment stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heap;

impl Heap {
    /// Allocates a block by `request`, a raw allocation call that must not get a zero-sized layout.
    #[inline]
    fn allocate_by(
        layout: Layout,
        request: unsafe fn(Layout) -> *mut u8,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(empty(layout), 0));
        }
        // SAFETY: the layout's size is not zero.
        let block = NonNull::new(unsafe { request(layout) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    /// Resizes a block in place or by moving it.
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator, `old` fits it, and neither size is zero.
    /// 2. `old.align() == new.align()`.
    unsafe fn resize(
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(old.size() > 0 && new.size() > 0 && old.align() == new.align());
        // SAFETY: 1 gives the block, its layout and a size that is not zero. `new` is a layout of
        // the same alignment (2), so its size, rounded up to the alignment, does not overflow
        // `isize`.
        let moved = unsafe { realloc(block.as_ptr(), old, new.size()) };
        let block = NonNull::new(moved).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, new.size()))
    }
}

// SAFETY: blocks come from the process's allocator, which is valid for the life of the process,
// whatever happens to this zero-sized value. A zero-sized block is a dangling aligned pointer. It
// is valid for zero bytes, and is never passed to the process's allocator. The functions of
// `alloc::alloc` may not unwind, by the contract of `GlobalAlloc`.
unsafe impl Allocator for Heap {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Self::allocate_by(layout, alloc)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Self::allocate_by(layout, alloc_zeroed)
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller promises that the block is allocated here and that the layout fits
            // it. Every block has exactly the requested size, so this is the block's layout.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if old.size() > 0 && old.align() == new.align() {
            // SAFETY: 1. The caller's promises; no size is zero, as `new` is not below `old`. 2.
            // Just checked.
            return unsafe { Self::resize(block, old, new) };
        }
        // SAFETY: the caller's promises.
        unsafe { move_to_new(self, block, old, new) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        if new.size() > 0 && old.align() == new.align() {
            // SAFETY: 1. The caller's promises; no size is zero, as `old` is not below `new`. 2.
            // Just checked.
            return unsafe { Self::resize(block, old, new) };
        }
        // SAFETY: the caller's promises.
        unsafe { move_to_new(self, block, old, new) }
    }
}
