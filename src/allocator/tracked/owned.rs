//! An allocator that stores with each block the context that allocated it.
//!
//! ```text
//!  the inner allocator's block               the caller's block
//!  │                                         │
//!  ▼                                         ▼
//!  ┌──────────────────┬──────────────────────┬───────────────────────────────┐
//!  │ padding, if the  │ header: one pointer  │ the block                     │
//!  │ alignment is > 8 │ to the owner's meter │                               │
//!  └──────────────────┴──────────────────────┴───────────────────────────────┘
//!  ◄───────── max(alignment, 8) bytes ──────►
//! ```
//!
//! The header is only one pointer. So most blocks stay in their size class, or move to one that is as
//! fast. A block of 64 bytes takes 72, and glibc's chunk for 64 bytes has room for 72. In mimalloc, 72
//! bytes with an alignment of 8 are on the fast path, and 80 bytes with an alignment of 16 are not:
//! they cost 5 ns more for an allocation and its free.

use crate::integration::traits::context::meter::{self, Meter};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

/// Wraps an allocator, and counts every block to the [context](crate::integration::traits::Context)
/// that allocated the block, until the block is freed, on any thread and in any context. A pointer
/// in front of each block names its context.
///
/// Use it as the `#[global_allocator]`: it never locks, allocates, logs or panics. To count totals
/// too, wrap it in a [`TrackedAllocator`](super::TrackedAllocator), which counts the requested bytes.
///
/// It counts by context only on platforms whose thread-locals need no allocation: Linux, Android,
/// `FreeBSD`, Apple's systems and Windows (MSVC). On other platforms no block belongs to a context.
///
/// # Complexity
///
/// A block takes one more pointer (8 bytes), or as much as its alignment if that is larger. In a
/// context a call costs a few instructions and no read-modify-write. If more than four threads are in
/// the context, or if the block is freed outside of the context, the call costs an atomic addition.
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
/// assert!(tenant.usage().used >= buffer.len());
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

/// The header in front of each block.
struct Header {
    owner: Option<&'static Meter>,
}

const HEADER: usize = size_of::<Header>();

/// The layout that is requested from the inner allocator, and the offset of the block in it.
///
/// # Invariants
///
/// `offset` is a multiple of the block's alignment and of `HEADER`, and at least `HEADER`. `outer` has room
/// for the block behind `offset`, and is aligned for the block and the header.
struct Placed {
    outer: Layout,
    offset: usize,
}

impl Placed {
    /// Returns the layout and the offset for a block of `layout`, or `None` if the sum is too large
    /// for a layout.
    #[inline]
    fn of(layout: Layout) -> Option<Self> {
        let offset = layout.align().max(HEADER);
        // The largest size for this alignment, without the offset.
        let most = (isize::MAX.unsigned_abs() - (offset - 1)).checked_sub(offset)?;
        if layout.size() > most {
            return None;
        }
        // SAFETY: 1. A power of two, as alignments and `HEADER` are. 2. With the offset the size is
        // still valid for this alignment.
        let outer = unsafe { Layout::from_size_align_unchecked(layout.size() + offset, offset) };
        Some(Self { outer, offset })
    }

    /// Like [`of`](Self::of), for a layout for which `of` has succeeded.
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

/// Returns whether a block has no padding in front of its header. Callers check this first, so that
/// the offset and the alignment are constants for most calls.
#[inline(always)]
const fn is_plain(layout: Layout) -> bool {
    layout.align() <= HEADER
}

impl<A> ContextAllocator<A> {
    /// Creates an allocator that counts the blocks of `inner`.
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }
}

/// Writes the header of a new block, which belongs to the current context, and counts the block.
///
/// # Safety
///
/// `outer` is null, or an unused block of `placed.outer`.
#[inline]
unsafe fn begin(outer: *mut u8, placed: &Placed, bytes: usize) -> *mut u8 {
    if outer.is_null() {
        return outer;
    }
    // SAFETY: the offset is within the layout (the invariants), which is the layout of `outer`.
    let block = unsafe { outer.add(placed.offset) };
    // SAFETY: `offset` is `HEADER` at least, so the header lies behind `outer`.
    let header = unsafe { block.sub(HEADER) }.cast::<Header>();
    // SAFETY: 1. Within the block. 2. Aligned, as `outer` and the offset are multiples of `HEADER`.
    unsafe { header.write(Header { owner: meter::made(bytes) }) };
    block
}

/// Returns the meter of the context that a block belongs to.
///
/// The header is read through the pointer that the caller passes back. That pointer may come from a
/// box, and then covers only the bytes of the value. Tree Borrows (Villani et al., 2025) allows
/// this read. Stacked Borrows does not, in any allocator that has headers.
///
/// # Safety
///
/// `block` was returned by [`begin`], or moved together with its header, and is not freed.
#[inline]
unsafe fn owner_of(block: *mut u8) -> Option<&'static Meter> {
    // SAFETY: the header lies in front of every block.
    let header = unsafe { block.sub(HEADER) }.cast::<Header>();
    // SAFETY: 1. Valid, aligned and written by `begin`; nothing writes there while the block lives.
    unsafe { header.read() }.owner
}

/// The calls, each for every alignment.
impl<A: GlobalAlloc> ContextAllocator<A> {
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[inline(always)]
    unsafe fn make(&self, layout: Layout) -> *mut u8 {
        let Some(placed) = Placed::of(layout) else { return ptr::null_mut() };
        // SAFETY: the size is not zero, as the layout includes a header.
        let outer = unsafe { self.inner.alloc(placed.outer) };
        // SAFETY: the allocator returned `outer` for this layout.
        unsafe { begin(outer, &placed, layout.size()) }
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::dealloc`].
    #[inline(always)]
    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is of this allocator and this layout, and is live (the caller's
        // promise).
        let placed = unsafe { Placed::of_block(layout) };
        // Counted before another thread can get the block.
        // SAFETY: as above.
        meter::gone(unsafe { owner_of(block) }, layout.size());
        // SAFETY: the block lies at this offset in the allocation.
        let outer = unsafe { block.sub(placed.offset) };
        // SAFETY: 1. Allocated with this layout. 2. The caller does not use the block again.
        unsafe { self.inner.dealloc(outer, placed.outer) };
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`].
    #[inline(always)]
    unsafe fn resize(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block is of this allocator and this layout, and is live (the caller's
        // promise).
        let placed = unsafe { Placed::of_block(layout) };
        // The offset depends only on the alignment, which stays.
        let new = Layout::from_size_align(new_size, layout.align()).ok().and_then(Placed::of);
        let Some(new) = new else { return ptr::null_mut() };
        // SAFETY: the block lies at this offset in the allocation.
        let outer = unsafe { block.sub(placed.offset) };
        // SAFETY: 1. Allocated with this layout. 2. The new size fits a layout with the same alignment, and is
        // not 0.
        let moved = unsafe { self.inner.realloc(outer, placed.outer, new.outer.size()) };
        let Some(moved) = NonNull::new(moved) else { return ptr::null_mut() };
        // SAFETY: both sizes are at least the offset.
        let block = unsafe { moved.as_ptr().add(placed.offset) };
        // SAFETY: the header has moved along with the block.
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

// SAFETY: blocks are parts of the inner allocator's blocks, at an offset that keeps their alignment
// and leaves room for their size. They are freed there with the layout that they were allocated
// with. Counting only adds to numbers, so nothing here unwinds.
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
        // SAFETY: the size is not zero, as the layout includes a header.
        let outer = unsafe { self.inner.alloc_zeroed(placed.outer) };
        // SAFETY: the allocator returned `outer` for this layout. Only the header is written, so
        // the block stays zeroed.
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

// The documentation states this size.
const _: () = assert!(HEADER == size_of::<usize>() && align_of::<Header>() == HEADER);
