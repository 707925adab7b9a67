//! One block of the base allocator: the only file that calls it.

use super::sizing::{CHUNK_ALIGN, ChunkSize, HEADER};
use crate::allocator::{AllocError, Allocator};
use core::{alloc::Layout, cell::Cell, ptr::NonNull};

/// What lies at a chunk's low end; the bytes for values follow.
#[repr(C, align(16))]
struct Header {
    next: Cell<Option<Chunk>>,
    /// The size, which is a multiple of 16, plus [`LENT`] for a buffer that somebody else owns.
    word: usize,
    /// See [`Chunk::up_to`].
    up_to: Cell<UpTo>,
}

/// The chunk is no block of the base allocator.
const LENT: usize = 1;

/// What lies in the chunks up to one, that one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpTo {
    /// Bytes of the chunks themselves, as far as they are the base allocator's.
    pub(super) held: usize,
    /// Bytes that blocks take, if nothing is free behind the bump pointer.
    pub(super) filled: usize,
}

const _: () = assert!(size_of::<Header>() <= HEADER && align_of::<Header>() <= CHUNK_ALIGN);

/// The chunk as the base allocator is asked for it.
fn layout(size: ChunkSize) -> Layout {
    debug_assert!(Layout::from_size_align(size.get(), CHUNK_ALIGN).is_ok());
    // SAFETY: the alignment is a power of two, and the size a multiple of it of at most `isize::MAX`
    // (the invariants of `ChunkSize`).
    unsafe { Layout::from_size_align_unchecked(size.get(), CHUNK_ALIGN) }
}

/// A handle to a chunk. Copies are the same chunk.
///
/// # Invariants
///
/// Points to the header, written by [`new`](Self::new) or [`in_buffer`](Self::in_buffer), of a block
/// that is currently allocated or lent, with provenance over the whole of it. Whoever calls
/// [`free`](Self::free) answers for there being no handle left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk(NonNull<Header>);

impl Chunk {
    /// Takes a chunk from `base`.
    pub(super) fn new<A: Allocator>(base: &A, size: ChunkSize) -> Result<Self, AllocError> {
        let block = base.allocate(layout(size))?.cast();
        // SAFETY: the block is valid for `size` bytes and aligned as its layout asks.
        Ok(unsafe { Self::begin(block, size, 0) })
    }

    /// Makes a chunk of a buffer that somebody else owns, as far as both its ends are aligned; `None`
    /// where it is too small for any.
    ///
    /// # Safety
    ///
    /// The bytes are valid for reads and writes, and nobody else uses them, as long as a handle to
    /// the chunk is used.
    #[inline]
    pub(super) unsafe fn in_buffer(start: NonNull<u8>, len: usize) -> Option<Self> {
        let gap = start.addr().get().wrapping_neg() & (CHUNK_ALIGN - 1);
        let size = ChunkSize::at_most(len.checked_sub(gap)?)?;
        // SAFETY: the offset lies within the buffer, which is at least a chunk longer.
        let start = unsafe { start.add(gap) };
        // SAFETY: the buffer is valid for as many bytes, and they are aligned.
        Some(unsafe { Self::begin(start, size, LENT) })
    }

    /// # Safety
    ///
    /// `block` is valid for reads and writes of `size` bytes, and aligned to [`CHUNK_ALIGN`].
    #[inline]
    unsafe fn begin(block: NonNull<u8>, size: ChunkSize, lent: usize) -> Self {
        let header = block.cast();
        let up_to = UpTo { held: 0, filled: 0 };
        let word = size.get() | lent;
        // SAFETY: a chunk is longer than a header and aligned as one, as the caller says.
        unsafe { header.write(Header { next: Cell::new(None), word, up_to: Cell::new(up_to) }) };
        Self(header)
    }

    /// The chunk whose [space](Self::space) begins at `start`.
    ///
    /// # Safety
    ///
    /// There is such a chunk, and it was not freed.
    pub(super) unsafe fn of_space(start: NonNull<u8>) -> Self {
        // SAFETY: the header lies before the space, in the same block.
        Self(unsafe { start.sub(HEADER) }.cast())
    }

    /// Gives the chunk back to whom it was taken from.
    ///
    /// # Safety
    ///
    /// 1. It was taken from `base`, or from an allocator that behaves as the same one, or is a buffer
    ///    that somebody else owns.
    /// 2. Neither this handle, nor a copy of it, nor any pointer into the chunk is used again.
    pub(super) unsafe fn free<A: Allocator>(self, base: &A) {
        if let Some(size) = ChunkSize::at_most(self.owned()) {
            let layout = layout(size);
            // SAFETY: the block is currently allocated (the invariants), by `base` (1), with this
            // layout (`new`), and goes unused from here on (2).
            unsafe { base.deallocate(self.0.cast(), layout) };
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariants the header is initialised and allocated; nobody makes a unique
        // reference to it, and the bytes for values do not overlap it.
        unsafe { self.0.as_ref() }
    }

    fn size(self) -> usize {
        self.header().word & !LENT
    }

    /// Bytes that were asked of the base allocator for it: its size, or none for a buffer.
    pub(super) fn owned(self) -> usize {
        if self.header().word & LENT == 0 { self.size() } else { 0 }
    }

    pub(super) fn next(self) -> Option<Self> {
        self.header().next.get()
    }

    pub(super) fn set_next(self, next: Option<Self>) {
        self.header().next.set(next);
    }

    /// What lies in the chunks up to this one; kept from when it becomes the current one.
    pub(super) fn up_to(self) -> UpTo {
        self.header().up_to.get()
    }

    pub(super) fn set_up_to(self, up_to: UpTo) {
        self.header().up_to.set(up_to);
    }

    /// The bytes for values: the first, valid for all of them, and how many.
    pub(super) fn space(self) -> (NonNull<u8>, usize) {
        let low = self.0.cast::<u8>();
        // SAFETY: the block is longer than a header.
        (unsafe { low.add(HEADER) }, self.size() - HEADER)
    }
}
