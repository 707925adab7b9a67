//! A chunk: one block of the base allocator. Only this file calls the base allocator.

pub(super) mod charge;
pub(super) mod sizing;

use self::sizing::{CHUNK_ALIGN, ChunkSize, HEADER};
use crate::{
    allocator::{AllocError, Allocator},
    utils::{align::is_usable, poison::unpoison},
};
use core::{
    alloc::Layout,
    cell::Cell,
    ptr::{self, NonNull},
};

/// The header at the low end of a chunk. The bytes for values follow it.
#[repr(C, align(16))]
struct Header {
    next: Cell<Option<Chunk>>,
    size: ChunkSize,
    /// For a chunk that the arena allocates from: [`UpTo::held`] as a number, see [`Chunk::up_to`].
    ///
    /// # Invariants
    ///
    /// For a chunk that is [lent](Chunk::push_lent): the chunk before it in the list, or null.
    held_or_before: Cell<*mut Header>,
    /// For a chunk of an arena: see [`Chunk::up_to`]. For a chunk of a shared arena: see
    /// [`Chunk::set_entered`].
    filled: Cell<usize>,
}

/// The totals of a chunk and all chunks that were entered before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpTo {
    /// Bytes of the chunks.
    pub(super) held: usize,
    /// Bytes that blocks take when the bump pointer has no free bytes left.
    pub(super) filled: usize,
}

const _: () = assert!(size_of::<Header>() <= HEADER && align_of::<Header>() <= CHUNK_ALIGN);

/// Returns the layout that the base allocator is asked for.
fn layout(size: ChunkSize) -> Layout {
    debug_assert!(Layout::from_size_align(size.get(), CHUNK_ALIGN).is_ok());
    // SAFETY: the alignment is a power of two, and the size a multiple of it of at most `isize::MAX`
    // (the invariants of `ChunkSize`).
    unsafe { Layout::from_size_align_unchecked(size.get(), CHUNK_ALIGN) }
}

/// Frees a block of `base` that lies where an arena [cannot use it](is_usable).
#[cold]
#[inline(never)]
fn unusable<A: Allocator>(base: &A, block: NonNull<u8>, size: ChunkSize) -> AllocError {
    // SAFETY: the block was just allocated by `base` with this layout, and is not used.
    unsafe { base.deallocate(block, layout(size)) };
    AllocError
}

/// A handle to a chunk. A copy of a handle refers to the same chunk.
///
/// # Invariants
///
/// Points to the header, written by [`new`](Self::new), of a block that is currently allocated,
/// with provenance over the whole block. The caller of [`free`](Self::free) ensures that no handle
/// is left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk(NonNull<Header>);

impl Chunk {
    /// Allocates a chunk from `base`.
    #[inline]
    pub(super) fn new<A: Allocator>(base: &A, size: ChunkSize) -> Result<Self, AllocError> {
        let header = base.allocate(layout(size))?.cast::<Header>();
        if !is_usable(header.addr().get() + HEADER, size.get() - HEADER) {
            return Err(unusable(base, header.cast(), size));
        }
        let (held_or_before, filled) = (Cell::new(ptr::null_mut()), Cell::new(0));
        // SAFETY: the block is valid for writes of `size` bytes, which are more than a header, and
        // has the alignment of a header.
        unsafe { header.write(Header { next: Cell::new(None), size, held_or_before, filled }) };
        Ok(Self(header))
    }

    /// Returns the chunk whose [space](Self::space) begins at `start`.
    ///
    /// # Safety
    ///
    /// There is such a chunk, and it was not freed.
    pub(super) unsafe fn of_space(start: NonNull<u8>) -> Self {
        // SAFETY: the header lies before the space, in the same block.
        Self(unsafe { start.sub(HEADER) }.cast())
    }

    /// Frees the chunk.
    ///
    /// # Safety
    ///
    /// 1. The chunk was allocated from `base`, or from an allocator that behaves as the same one.
    /// 2. Neither this handle, nor a copy of it, nor any pointer into the chunk is used again.
    #[inline]
    pub(super) unsafe fn free<A: Allocator>(self, base: &A) {
        let layout = layout(self.header().size);
        let (space, len) = self.space();
        unpoison(space, len);
        // SAFETY: the block is currently allocated (the invariants), by `base` (1), with this
        // layout (`new`), and is not used from here on (2).
        unsafe { base.deallocate(self.0.cast(), layout) };
    }

    /// Returns whether both are the same chunk, or both are `None`.
    #[inline]
    pub(super) fn is_same(one: Option<Self>, other: Option<Self>) -> bool {
        let address = |chunk: Option<Self>| chunk.map_or(0, |chunk| chunk.0.addr().get());
        address(one) == address(other)
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariants the header is initialised and allocated. No code makes a unique
        // reference to it, and the bytes for values do not overlap it.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn bytes(self) -> usize {
        self.header().size.get()
    }

    pub(super) fn next(self) -> Option<Self> {
        self.header().next.get()
    }

    pub(super) fn set_next(self, next: Option<Self>) {
        self.header().next.set(next);
    }

    /// Returns the totals up to this chunk, as recorded when it became the current chunk.
    pub(super) fn up_to(self) -> UpTo {
        let header = self.header();
        UpTo { held: header.held_or_before.get().addr(), filled: header.filled.get() }
    }

    pub(super) fn set_up_to(self, up_to: UpTo) {
        self.header().held_or_before.set(ptr::without_provenance_mut(up_to.held));
        self.header().filled.set(up_to.filled);
    }

    /// Records whether a shared arena has taken bytes from the chunk. Returns the previous record.
    #[cfg(feature = "std")]
    pub(super) fn set_entered(self, entered: bool) -> bool {
        self.header().filled.replace(usize::from(entered)) != 0
    }

    /// Puts the chunk at the head of a list of lent chunks.
    pub(super) fn push_lent(self, list: &Cell<Option<Self>>) {
        let behind = list.replace(Some(self));
        self.set_next(behind);
        self.header().held_or_before.set(ptr::null_mut());
        if let Some(behind) = behind {
            behind.header().held_or_before.set(self.0.as_ptr());
        }
    }

    /// Removes the chunk from anywhere in the list.
    ///
    /// # Safety
    ///
    /// 1. The chunk was [put](Self::push_lent) into this list, and not removed since.
    /// 2. No chunk of the list was freed.
    pub(super) unsafe fn remove_lent(self, list: &Cell<Option<Self>>) {
        let (before, behind) = (self.header().held_or_before.get(), self.next());
        match NonNull::new(before) {
            // The chunk before this one is allocated (1, 2, and the invariants of the field).
            Some(before) => Self(before).set_next(behind),
            None => list.set(behind),
        }
        if let Some(behind) = behind {
            behind.header().held_or_before.set(before);
        }
    }

    /// Returns the bytes for values: a pointer to the first, valid for all of them, and their
    /// number.
    pub(super) fn space(self) -> (NonNull<u8>, usize) {
        let low = self.0.cast::<u8>();
        // SAFETY: the block is longer than a header.
        (unsafe { low.add(HEADER) }, self.bytes() - HEADER)
    }
}
