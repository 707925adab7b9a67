//! An allocator that makes a mapping for each block.

use crate::{
    allocator::{AllocError, Allocator, bump::empty, traits::move_to_new},
    macros::forward_to_allocator_api2,
    syscalls::{
        direct::{Advice, Mapping},
        info::page_size,
    },
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

/// The size from which on huge pages are requested. It is the size of a huge page of x86-64, and of
/// 64-bit ARM with pages of 4 KiB. A smaller block has no room for a huge page. On a machine whose
/// huge pages are larger, the advice has no effect.
const HUGE: usize = 2 << 20;

/// An allocator that maps pages of the kernel for each block. Use it for few and large blocks.
///
/// - New pages are zero, and take no memory before they are written to. A zeroed block is not
///   touched.
/// - A block grows in place, or moves with its pages, without a copy, on platforms that
///   [resize](Mapping::resize) mappings. On other platforms it is copied.
/// - When a block is freed or shrunk, its pages are returned to the kernel at once.
/// - For blocks of 2 MiB or more it requests huge pages, which make first writes several times
///   cheaper.
///
/// Each block costs a system call or two, and a fault for each page that is first written to. A
/// [`SystemAllocator`](super::SystemAllocator) uses this allocator for blocks that are large
/// enough. A layout that is aligned to more than a page is refused. The allocator is zero-sized and
/// `Copy`, and every thread can use it.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::{Allocator, PageAllocator};
///
/// let (layout, double) = (Layout::new::<[u64; 8192]>(), Layout::new::<[u64; 16384]>());
/// let block = PageAllocator.allocate_zeroed(layout)?.cast::<u64>();
/// // SAFETY: the block is large enough, and aligned to a page.
/// unsafe { block.write(7) };
/// // SAFETY: allocated here with this layout, which is smaller than the new one.
/// let block = unsafe { PageAllocator.grow(block.cast(), layout, double) }?.cast::<u64>();
/// // SAFETY: written above.
/// assert_eq!(unsafe { block.read() }, 7);
/// // SAFETY: the block came from this allocator with this layout.
/// unsafe { PageAllocator.deallocate(block.cast(), double) };
/// # Ok::<(), nebula_memory::allocator::AllocError>(())
/// ```
///
/// # As the process's allocator
///
/// It can be the [global](core::alloc::GlobalAlloc) allocator of a program that has few and large
/// blocks. It also helps to find uses of freed blocks: they fault, because the pages are unmapped.
///
/// ```
/// use nebula_memory::allocator::PageAllocator;
///
/// #[global_allocator]
/// static HEAP: PageAllocator = PageAllocator;
///
/// let buffer = vec![7_u8; 1 << 20];
/// assert_eq!(buffer.as_ptr().addr() % 4096, 0);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PageAllocator;

/// Returns the number of bytes in the pages of a block of `size` bytes.
const fn whole_pages(size: usize, page: usize) -> Option<usize> {
    size.checked_next_multiple_of(page)
}

/// Requests huge pages if some fit that did not fit in `before` bytes.
fn prefer_huge(mapping: &mut Mapping, before: usize) {
    if before < HUGE && mapping.len() >= HUGE {
        // If the kernel has no huge pages, small pages do.
        let _ = mapping.advise(.., Advice::HugePage);
    }
}

impl PageAllocator {
    /// Returns the mapping of a block.
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator, and `layout` fits it.
    /// 2. The layout's size is not zero.
    /// 3. Nothing uses the block as long as the mapping exists, and the mapping is not dropped
    ///    unless the block is freed.
    unsafe fn mapping(block: NonNull<u8>, layout: Layout) -> Mapping {
        // The length is the same for every layout that fits, and did not overflow when the block
        // was made.
        let len = whole_pages(layout.size(), page_size()).unwrap_or(layout.size());
        let pages = NonNull::slice_from_raw_parts(block, len);
        // SAFETY: `Mapping::into_raw` gave these pages (1, 2), of a mapping without options. They
        // are taken over once, as nothing else takes them over (3).
        unsafe { Mapping::from_raw(pages) }
    }

    /// Resizes a block in place or by moving its pages. Returns `None`, and changes nothing, if
    /// that is not possible.
    ///
    /// # Safety
    ///
    /// As 1 and 2 of [`mapping`](Self::mapping), and `new` is not zero-sized. On success the old
    /// pointer is not used again.
    unsafe fn resize(block: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        if new.align() > page_size() {
            return None;
        }
        // SAFETY: 1 and 2 are the caller's; 3, the block is used only here, and no path drops the
        // mapping.
        let mut mapping = core::mem::ManuallyDrop::new(unsafe { Self::mapping(block, old) });
        let before = mapping.len();
        mapping.resize(new.size()).ok()?;
        prefer_huge(&mut mapping, before);
        Some(core::mem::ManuallyDrop::into_inner(mapping).into_raw())
    }
}

// SAFETY: a block is a mapping that stays mapped until the block is freed, whatever happens to this
// zero-sized value. Mappings are disjoint, whole pages, and aligned to a page. A zero-sized block
// is dangling and aligned, and is never unmapped. Nothing here panics.
unsafe impl Allocator for PageAllocator {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(empty(layout), 0));
        }
        if layout.align() > page_size() {
            return Err(AllocError);
        }
        let mut mapping = Mapping::new(layout.size()).map_err(|_| AllocError)?;
        prefer_huge(&mut mapping, 0);
        Ok(mapping.into_raw())
    }

    /// New pages are zero, so no page is touched.
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate(layout)
    }

    // A call is nothing beside the system call. Inlined, it would cost every block of a heap that
    // is freed in the same function a few registers.
    #[inline(never)]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: 1 is the caller's promise; 2 was just checked; 3, the block is freed.
            drop(unsafe { Self::mapping(block, layout) });
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        if old.size() > 0
            // SAFETY: the caller's promises; no size is zero, as `new` is not below `old`.
            && let Some(grown) = unsafe { Self::resize(block, old, new) }
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
        let grown = unsafe { self.grow(block, old, new) }?;
        // The bytes behind the old size, on its last page, may have been written to. Pages behind
        // that page are new.
        let dirty = whole_pages(old.size(), page_size()).unwrap_or(grown.len()).min(grown.len());
        // SAFETY: the offset lies within the block, which is not shorter than the old one.
        let rest = unsafe { grown.cast::<u8>().add(old.size()) };
        // SAFETY: the block is valid for writes up to its end.
        unsafe { rest.write_bytes(0, dirty - old.size()) };
        Ok(grown)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        if new.size() > 0
            // SAFETY: the caller's promises; no size is zero, as `old` is not below `new`.
            && let Some(shrunk) = unsafe { Self::resize(block, old, new) }
        {
            return Ok(shrunk);
        }
        // SAFETY: the caller's promises.
        unsafe { move_to_new(self, block, old, new) }
    }
}

forward_to_allocator_api2!(impl[] for PageAllocator);

/// Returns a null pointer for a block that is aligned to more than a page.
// SAFETY: blocks are those of the `Allocator` implementation, which neither unwinds nor allocates.
// They go back to it with the layout that they have.
unsafe impl GlobalAlloc for PageAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        as_pointer(self.allocate(layout))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        as_pointer(self.allocate_zeroed(layout))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: a block of this allocator, with its layout, as the caller says.
            unsafe { self.deallocate(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let new = Layout::from_size_align(size, layout.align());
        let (Some(block), Ok(new)) = (NonNull::new(block), new) else { return ptr::null_mut() };
        as_pointer(if size >= layout.size() {
            // SAFETY: a block of this allocator, with its layout, as the caller says, and `new` is
            // not smaller.
            unsafe { self.grow(block, layout, new) }
        } else {
            // SAFETY: as above, and `new` is smaller.
            unsafe { self.shrink(block, layout, new) }
        })
    }
}

/// Returns a block as `GlobalAlloc` does: as a pointer that may be null.
fn as_pointer(block: Result<NonNull<[u8]>, AllocError>) -> *mut u8 {
    block.map_or(ptr::null_mut(), |block| block.cast().as_ptr())
}
