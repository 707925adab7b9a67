//! The process's own memory.
//!
//! ```text
//!   layout ──► size < PAGED_FROM, or aligned to more than a page? ──► the heap
//!          └─► else, where the kernel moves pages ────────────────► pages of their own
//! ```
//!
//! The layout alone decides, so that a block goes back to where it came from whatever happened since.

mod heap;
#[cfg(feature = "std")]
mod pages;

#[cfg(feature = "std")]
pub use self::pages::PageAllocator;

use self::heap::Heap;
// Large blocks are the heap's too.
#[cfg(not(feature = "std"))]
use self::heap::Heap as PageAllocator;
use super::{
    AllocError, Allocator,
    traits::{move_to_new, relocate},
};
use core::{alloc::Layout, ptr::NonNull};

/// The size from which on a block has pages of its own.
///
/// A heap that is given back what it gave out has its pages at hand; new ones cost a fault each, and
/// the kernel's zeroes. Measured per KiB of a block that is taken, written and freed (`peer-bench`,
/// `--case write-8M` and its like; Linux 6.18, huge pages where advised, glibc's heap): 18 ns of the heap
/// and 51 of pages at 2 MiB, 50 and 52 at 4 MiB, 93 and 63 at 8 MiB, 720 and 104 at 32 MiB. Zeroed and
/// hardly read, pages win from 2 MiB on, ten times; grown by doubling, from 32 MiB on, five times, and
/// at 8 MiB they cost twice as much. Arenas' chunks, of at most 2 MiB unless they are told otherwise, stay
/// the heap's.
const PAGED_FROM: usize = 8 << 20;

/// The largest alignment of pages: the smallest page there is.
const PAGE_ALIGN: usize = 4096;

/// Whether pages are better than the heap for large blocks: where the kernel gives them another
/// address instead of copying them, and is the kernel.
const HAS_PAGES: bool = cfg!(all(feature = "std", target_os = "linux", not(miri)));

/// Whether a block has pages of its own.
#[inline]
const fn is_paged(layout: Layout) -> bool {
    HAS_PAGES && layout.size() >= PAGED_FROM && layout.align() <= PAGE_ALIGN
}

/// The process's memory: the heap, that is whatever `#[global_allocator]` is, and for large blocks
/// pages of the kernel's.
///
/// Zero-sized, `Copy`, usable from every thread. `grow` and `shrink` use the heap's `realloc` where
/// the alignment stays the same. From 8 MiB on, on Linux with the `std` feature, a block is one of a
/// [`PageAllocator`]: it grows without being copied, zeroed ones are not written to, and what is
/// freed or cut off goes back to the kernel at once.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::{Allocator, SystemAllocator};
///
/// let block = SystemAllocator.allocate_zeroed(Layout::new::<u64>())?;
/// // SAFETY: the block holds eight zero bytes, aligned for a `u64`.
/// assert_eq!(unsafe { block.cast::<u64>().read() }, 0);
/// // SAFETY: the block came from this allocator with this layout.
/// unsafe { SystemAllocator.deallocate(block.cast(), Layout::new::<u64>()) };
/// # Ok::<(), nebula_memory::allocator::AllocError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemAllocator;

impl SystemAllocator {
    /// The size in bytes from which on a block has pages of its own, where it can have them.
    pub const PAGED_FROM: usize = PAGED_FROM;
}

// SAFETY: each block is one of two allocators', which are valid for the life of the process whatever
// happens to this zero-sized value, and whose blocks are disjoint. Which one's is told by a layout
// that fits it: every layout that fits a block of the heap, which is exactly as long as asked for, is
// the one it was asked with, and every one that fits pages is aligned alike and no shorter.
unsafe impl Allocator for SystemAllocator {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if is_paged(layout) { PageAllocator.allocate(layout) } else { Heap.allocate(layout) }
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if is_paged(layout) {
            PageAllocator.allocate_zeroed(layout)
        } else {
            Heap.allocate_zeroed(layout)
        }
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if is_paged(layout) {
            // SAFETY: the caller's promises; the layout says that the block is one of pages.
            unsafe { PageAllocator.deallocate(block, layout) }
        } else {
            // SAFETY: the caller's promises; the layout says that the block is the heap's.
            unsafe { Heap.deallocate(block, layout) }
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        match (is_paged(old), is_paged(new)) {
            // SAFETY: the caller's promises; the layout says whose the block is.
            (true, true) => unsafe { PageAllocator.grow(block, old, new) },
            // SAFETY: as above.
            (false, false) => unsafe { Heap.grow(block, old, new) },
            _ => {
                // SAFETY: the caller's promises.
                unsafe { move_to_new(self, block, old, new) }
            }
        }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if is_paged(old) && is_paged(new) {
            // SAFETY: the caller's promises; the layout says whose the block is.
            return unsafe { PageAllocator.grow_zeroed(block, old, new) };
        }
        let target = self.allocate_zeroed(new)?;
        // SAFETY: the caller's promises; `old.size()` is within both blocks.
        unsafe { relocate(self, block, old, target, old.size()) };
        Ok(target)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        match (is_paged(old), is_paged(new)) {
            // SAFETY: the caller's promises; the layout says whose the block is.
            (true, true) => unsafe { PageAllocator.shrink(block, old, new) },
            // SAFETY: as above.
            (false, false) => unsafe { Heap.shrink(block, old, new) },
            _ => {
                // SAFETY: the caller's promises.
                unsafe { move_to_new(self, block, old, new) }
            }
        }
    }
}

crate::macros::forward_to_allocator_api2!(impl[] for SystemAllocator);
