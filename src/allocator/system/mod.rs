//! The process's own memory.
//!
//! ```text
//!   layout ──► size < PAGED_FROM, or aligned to more than a page? ──► the heap
//!          └─► else, where the kernel moves pages ────────────────► pages of their own
//! ```
//!
//! Only the layout decides between the two. So a block is always freed by the allocator that it came
//! from.

mod heap;
#[cfg(feature = "std")]
mod pages;

#[cfg(feature = "std")]
pub use self::pages::PageAllocator;

use self::heap::Heap;
// Large blocks come from the heap too.
#[cfg(not(feature = "std"))]
use self::heap::Heap as PageAllocator;
use super::{
    AllocError, Allocator,
    traits::{move_to_new, relocate},
};
use core::{alloc::Layout, ptr::NonNull};

/// The size from which on a block has pages of its own.
///
/// A heap reuses pages that were freed to it. New pages cost a fault each, and the kernel zeroes
/// them. The table has the time per KiB of a block that is taken, written and freed (`peer-bench`,
/// `--case write-8M` and similar cases; Linux 6.18, huge pages where advised, glibc's heap):
///
/// | block | heap | pages |
/// |---|---|---|
/// | 2 MiB | 18 ns | 51 ns |
/// | 4 MiB | 50 ns | 52 ns |
/// | 8 MiB | 93 ns | 63 ns |
/// | 32 MiB | 720 ns | 104 ns |
///
/// For a zeroed block that is hardly read, pages are ten times faster from 2 MiB on. For a block
/// that grows by doubling, pages are five times faster from 32 MiB on, and take twice as long at 8
/// MiB. Chunks of arenas have at most 2 MiB by default, so they come from the heap.
const PAGED_FROM: usize = 8 << 20;

/// The largest alignment that all pages have: the smallest size of a page.
const PAGE_ALIGN: usize = 4096;

/// Whether pages are better than the heap for large blocks. They are if the kernel moves them to
/// another address instead of copying them, and if the kernel is real, not Miri's.
const HAS_PAGES: bool = cfg!(all(feature = "std", target_os = "linux", not(miri)));

/// Returns whether a block has pages of its own.
#[inline]
const fn is_paged(layout: Layout) -> bool {
    HAS_PAGES && layout.size() >= PAGED_FROM && layout.align() <= PAGE_ALIGN
}

/// The process's memory: the heap, which is the `#[global_allocator]`, and pages of the kernel for
/// large blocks. Use it unless the memory has to come from elsewhere.
///
/// The allocator is zero-sized and `Copy`, and every thread can use it. `grow` and `shrink` use the
/// heap's `realloc` if the alignment stays the same.
///
/// On Linux with the `std` feature, a block of 8 MiB or more comes from a [`PageAllocator`]. Such a
/// block grows without a copy. If zeroed bytes are requested, they are not written, because new pages
/// are zero. Its pages are returned to the kernel at once when it is freed or shrunk.
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
    /// The size in bytes from which on a block has pages of its own, on platforms that have them.
    pub const PAGED_FROM: usize = PAGED_FROM;
}

// SAFETY: each block belongs to one of two allocators. They are valid for the life of the process,
// whatever happens to this zero-sized value, and their blocks are disjoint. Every layout that fits
// a block tells which of the two the block belongs to. A block of the heap is exactly as long as
// requested, so the only layout that fits it is the one that it was requested with. Every layout
// that fits pages has the same alignment and is no shorter.
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
            // SAFETY: the caller's promises; the layout says that the block has pages.
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
            // SAFETY: the caller's promises; the layout says which allocator the block belongs to.
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
            // SAFETY: the caller's promises; the layout says which allocator the block belongs to.
            return unsafe { PageAllocator.grow_zeroed(block, old, new) };
        }
        let target = self.allocate_zeroed(new)?;
        // SAFETY: 1 is the caller's promise; 2, `target` is a new block; 3, `old.size()` is within
        // both blocks.
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
            // SAFETY: the caller's promises; the layout says which allocator the block belongs to.
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
