//! Allocators that are as awkward as their contract permits.

use nebula_memory::allocator::{AllocError, Allocator, SystemAllocator};
use std::{
    alloc::Layout,
    cell::{Cell, RefCell},
    collections::HashMap,
    ptr::NonNull,
};

/// Implements `allocate` and `deallocate` alone. Blocks are longer than requested, never zero when they are
/// new, and never aligned to more than requested. Requests above a limit fail, and so does a chosen call. A
/// test fails if it frees a block twice or with a layout that does not fit.
pub(crate) struct Awkward {
    slack: usize,
    /// The most bytes of one block.
    pub(crate) most: Cell<usize>,
    /// The number of calls until one fails, including that one. With zero no call fails.
    pub(crate) fails_in: Cell<usize>,
    /// The requested layout, and the underlying block, by address.
    live: RefCell<HashMap<usize, Live>>,
}

struct Live {
    asked: Layout,
    below: (NonNull<u8>, Layout),
}

impl Awkward {
    pub(crate) fn new(slack: usize) -> Self {
        Self { slack, most: Cell::new(1 << 20), fails_in: Cell::new(0), live: RefCell::default() }
    }

    /// The layouts of all allocated blocks.
    pub(crate) fn live(&self) -> Vec<Layout> {
        self.live.borrow().values().map(|live| live.asked).collect()
    }
}

// SAFETY: each block lies within one of `SystemAllocator`'s, at the distance of its alignment from an address
// of twice that alignment, and is at least as long as requested; the underlying block is freed with the
// layout that it was allocated with. The only panics are failed assertions, which end a test that has already
// shown a contract to be broken.
unsafe impl Allocator for Awkward {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // Adds at least one byte, so that each block has an address of its own.
        let size = layout.size().checked_add(self.slack.max(1)).ok_or(AllocError)?;
        let fails_in = self.fails_in.get();
        self.fails_in.set(fails_in.saturating_sub(1));
        if size > self.most.get() || fails_in == 1 {
            return Err(AllocError);
        }
        let align = layout.align();
        let below = Layout::from_size_align(size + align, align * 2).map_err(|_| AllocError)?;
        let whole = SystemAllocator.allocate(below)?.cast::<u8>();
        // SAFETY: the underlying block is longer by `align`.
        let start = unsafe { whole.add(align) };
        // SAFETY: the rest of the underlying block is `size` bytes.
        unsafe { start.write_bytes(0xA5, size) };
        let live = Live { asked: layout, below: (whole, below) };
        let known = self.live.borrow_mut().insert(start.addr().get(), live);
        assert!(known.is_none(), "a block was given out twice");
        Ok(NonNull::slice_from_raw_parts(start, size))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        let live = self.live.borrow_mut().remove(&block.addr().get()).expect("a block");
        let (whole, below) = live.below;
        let sizes = live.asked.size()..=below.size() - layout.align();
        assert_eq!(layout.align(), live.asked.align(), "the layout does not fit");
        assert!(sizes.contains(&layout.size()), "the size does not fit");
        // SAFETY: the block came from there with this layout, and was in the table until now.
        unsafe { SystemAllocator.deallocate(whole, below) };
    }
}
