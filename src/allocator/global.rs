//! An [`Allocator`](super::Allocator) as the process's own.

/// Makes a type a [`GlobalAlloc`](::core::alloc::GlobalAlloc) by its references, which are allocators of
/// every layout that is asked of it. These neither unwind nor allocate.
macro_rules! global_by_allocator {
    ($(#[$doc:meta])* impl[$($generics:tt)*] for $type:ty) => {
        $(#[$doc])*
        // SAFETY: blocks are those of an allocator, which neither unwinds nor allocates, and go back to
        // it with the layout that they have.
        unsafe impl<$($generics)*> ::core::alloc::GlobalAlloc for $type {
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                $crate::allocator::global::raw((&self).allocate(layout))
            }

            unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
                $crate::allocator::global::raw((&self).allocate_zeroed(layout))
            }

            unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
                if let Some(block) = NonNull::new(block) {
                    // SAFETY: a block of this allocator, with its layout, as the caller says.
                    unsafe { (&self).deallocate(block, layout) };
                }
            }

            unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
                let new = Layout::from_size_align(size, layout.align());
                let (Some(block), Ok(new)) = (NonNull::new(block), new) else {
                    return ::core::ptr::null_mut();
                };
                $crate::allocator::global::raw(if size >= layout.size() {
                    // SAFETY: a block of this allocator, with its layout, as the caller says, and not
                    // smaller than that.
                    unsafe { (&self).grow(block, layout, new) }
                } else {
                    // SAFETY: as above, and smaller.
                    unsafe { (&self).shrink(block, layout, new) }
                })
            }
        }
    };
}
pub(super) use global_by_allocator;

use super::AllocError;
use core::ptr::{self, NonNull};

/// A block as `GlobalAlloc` has it.
pub(super) fn raw(block: Result<NonNull<[u8]>, AllocError>) -> *mut u8 {
    block.map_or(ptr::null_mut(), |block| block.cast().as_ptr())
}
