//! Blocks that know whose they are.

use crate::integration::traits::context::meter::{self, Meter};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

/// Counts every block to the [context](crate::integration::traits::Context) that made it, until it is freed,
/// wherever that is: 16 bytes in front of the block say whose it is.
///
/// For a `#[global_allocator]`: it neither locks, allocates, logs nor panics. Where that also counts totals,
/// it stands below a [`TrackedAllocator`](super::TrackedAllocator), which counts the bytes that were asked
/// for.
///
/// Counted are contexts where a thread-local is a place in memory: on Linux, Android, `FreeBSD`, Apple's
/// systems and Windows (MSVC). Elsewhere all blocks are nobody's.
///
/// # Complexity
///
/// 16 bytes for a block, or its alignment where that is more. In a context it costs a few instructions and no
/// read-modify-write, unless more than four threads are in it, or the block is freed elsewhere: that takes
/// an atomic addition.
///
/// # Examples
///
/// ```
/// use nebula_memory::{allocator::ContextAllocator, integration::traits::Context};
/// use std::alloc::System;
///
/// #[global_allocator]
/// static HEAP: ContextAllocator<System> = ContextAllocator::new(System);
///
/// let tenant = Context::root("tenant-a").build();
/// let run = tenant.child("run-7").soft_limit(1 << 20).build();
/// let buffer = run.run(|| vec![0_u8; 2 << 20]);
/// assert!(tenant.usage().used >= buffer.len(), "whoever has allocated it for the tenant");
/// run.checkpoint().unwrap_err();
///
/// std::thread::spawn(move || drop(buffer)).join().unwrap();
/// assert!(run.usage().used < 1 << 20);
/// run.checkpoint()?;
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Debug, Default)]
pub struct ContextAllocator<A> {
    inner: A,
}

/// What stands in front of a block.
#[repr(C, align(16))]
struct Header {
    owner: Option<&'static Meter>,
}

const HEADER: usize = size_of::<Header>();

/// Where a block begins in what the allocator below has given for it, and the layout of that.
///
/// # Invariants
///
/// `offset` is a multiple of the block's alignment and of `HEADER`, and at least `HEADER`. `outer` has room
/// for the block behind it, and is aligned for both.
struct Placed {
    outer: Layout,
    offset: usize,
}

impl Placed {
    /// `None` where the sum is too large for a layout.
    #[inline]
    fn of(layout: Layout) -> Option<Self> {
        let offset = layout.align().max(HEADER);
        // The largest size for this alignment, without the offset.
        let most = (isize::MAX.unsigned_abs() - (offset - 1)).checked_sub(offset)?;
        if layout.size() > most {
            return None;
        }
        // SAFETY: 1. A power of two, as alignments and `HEADER` are. 2. With the offset the size is valid
        // for this alignment still.
        let outer = unsafe { Layout::from_size_align_unchecked(layout.size() + offset, offset) };
        Some(Self { outer, offset })
    }

    /// As [`of`](Self::of), for a layout that it has succeeded for.
    ///
    /// # Safety
    ///
    /// A block of `layout` was allocated.
    #[inline]
    unsafe fn of_block(layout: Layout) -> Self {
        let offset = layout.align().max(HEADER);
        // SAFETY: 1. A power of two, as alignments and `HEADER` are. 2. `of` has found the size valid for
        // this alignment, when the block was allocated.
        let outer = unsafe { Layout::from_size_align_unchecked(layout.size() + offset, offset) };
        Self { outer, offset }
    }
}

/// Whether a block has nothing but the header in front of it. Asked first, so that most calls have constants
/// for offset and alignment.
#[inline(always)]
const fn is_plain(layout: Layout) -> bool {
    layout.align() <= HEADER
}

impl<A> ContextAllocator<A> {
    /// Counts what `inner` gives out.
    ///
    /// # Examples
    ///
    /// See [`ContextAllocator`].
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }
}

/// Makes what the allocator below gave a block of the current context's.
///
/// # Safety
///
/// `outer` is null, or an unused block of `placed.outer`.
#[inline]
unsafe fn begin(outer: *mut u8, placed: &Placed, bytes: usize) -> *mut u8 {
    if outer.is_null() {
        return outer;
    }
    // SAFETY: the offset is within the layout (the invariants), of which the block is.
    let block = unsafe { outer.add(placed.offset) };
    // SAFETY: `offset` is `HEADER` at least, so the header lies behind `outer`.
    let header = unsafe { block.sub(HEADER) }.cast::<Header>();
    // SAFETY: 1. Within the block. 2. Aligned: `outer` is, to a multiple of 16, and so is the offset.
    unsafe { header.write(Header { owner: meter::made(bytes) }) };
    block
}

/// Whose a block is.
///
/// The header is reached through the pointer that comes back with the block, which may be that of a box, for
/// the bytes of its value. Tree Borrows (Villani et al., 2025) allows that, Stacked Borrows would not, of this
/// allocator or of any other that has headers.
///
/// # Safety
///
/// `block` was returned by [`begin`], or moved along with its header, and is not freed.
#[inline]
unsafe fn owner_of(block: *mut u8) -> Option<&'static Meter> {
    // SAFETY: the header lies in front of every block.
    let header = unsafe { block.sub(HEADER) }.cast::<Header>();
    // SAFETY: 1. Valid, aligned and written by `begin`; nobody writes there while the block lives.
    unsafe { header.read() }.owner
}

/// The calls, whatever the alignment.
impl<A: GlobalAlloc> ContextAllocator<A> {
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[inline(always)]
    unsafe fn make(&self, layout: Layout) -> *mut u8 {
        let Some(placed) = Placed::of(layout) else { return ptr::null_mut() };
        // SAFETY: the layout is not of no bytes, as it has a header.
        let outer = unsafe { self.inner.alloc(placed.outer) };
        // SAFETY: what the allocator gave for this layout.
        unsafe { begin(outer, &placed, layout.size()) }
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::dealloc`].
    #[inline(always)]
    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is of this allocator and this layout, and lives (the caller's promise).
        let placed = unsafe { Placed::of_block(layout) };
        // Before the block can be anyone else's.
        // SAFETY: likewise.
        meter::gone(unsafe { owner_of(block) }, layout.size());
        // SAFETY: the block lies so far behind what the allocator gave.
        let outer = unsafe { block.sub(placed.offset) };
        // SAFETY: 1. Given for this layout. 2. The caller does not use it again.
        unsafe { self.inner.dealloc(outer, placed.outer) };
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`].
    #[inline(always)]
    unsafe fn resize(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block is of this allocator and this layout, and lives (the caller's promise).
        let placed = unsafe { Placed::of_block(layout) };
        // The offset depends on the alignment alone, which stays.
        let new = Layout::from_size_align(new_size, layout.align()).ok().and_then(Placed::of);
        let Some(new) = new else { return ptr::null_mut() };
        // SAFETY: the block lies so far behind what the allocator gave.
        let outer = unsafe { block.sub(placed.offset) };
        // SAFETY: 1. Given for this layout. 2. The new size is that of a layout with the same alignment, and
        // is not 0.
        let moved = unsafe { self.inner.realloc(outer, placed.outer, new.outer.size()) };
        let Some(moved) = NonNull::new(moved) else { return ptr::null_mut() };
        // SAFETY: both sizes are at least the offset.
        let block = unsafe { moved.as_ptr().add(placed.offset) };
        // SAFETY: the header has moved along.
        let owner = unsafe { owner_of(block) };
        match new_size.checked_sub(layout.size()) {
            Some(more) => meter::grown(owner, more),
            None => meter::gone(owner, layout.size() - new_size),
        }
        block
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[cold]
    #[inline(never)]
    unsafe fn make_aligned(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { self.make(layout) }
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::dealloc`].
    #[cold]
    #[inline(never)]
    unsafe fn free_aligned(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { self.free(block, layout) }
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`].
    #[cold]
    #[inline(never)]
    unsafe fn resize_aligned(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { self.resize(block, layout, new_size) }
    }
}

// SAFETY: blocks are parts of the inner allocator's, at an offset that keeps their alignment and leaves
// their size, and go back to it with the layout that they were allocated with. Counting only adds to
// numbers, so nothing here unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ContextAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_plain(layout) {
            // SAFETY: the caller's promises.
            unsafe { self.make(layout) }
        } else {
            // SAFETY: the caller's promises.
            unsafe { self.make_aligned(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(placed) = Placed::of(layout) else { return ptr::null_mut() };
        // SAFETY: the layout is not of no bytes, as it has a header.
        let outer = unsafe { self.inner.alloc_zeroed(placed.outer) };
        // SAFETY: what the allocator gave for this layout. Only the header, which is not the block's, is
        // written.
        unsafe { begin(outer, &placed, layout.size()) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_plain(layout) {
            // SAFETY: the caller's promises.
            unsafe { self.free(block, layout) }
        } else {
            // SAFETY: the caller's promises.
            unsafe { self.free_aligned(block, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if is_plain(layout) {
            // SAFETY: the caller's promises.
            unsafe { self.resize(block, layout, new_size) }
        } else {
            // SAFETY: the caller's promises.
            unsafe { self.resize_aligned(block, layout, new_size) }
        }
    }
}

// What the documentation states.
const _: () = assert!(HEADER == 16 && align_of::<Header>() == 16);
