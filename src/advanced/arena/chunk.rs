//! One block of the base allocator: the only file that calls it.

use super::sizing::{CHUNK_ALIGN, ChunkSize, HEADER};
use crate::{
    allocator::{AllocError, Allocator},
    utils::poison::unpoison,
};
use core::{
    alloc::Layout,
    cell::Cell,
    ptr::{self, NonNull},
};

/// What lies at a chunk's low end; the bytes for values follow.
#[repr(C, align(16))]
struct Header {
    next: Cell<Option<Chunk>>,
    size: ChunkSize,
    /// Of a chunk that the arena cuts blocks from, as a number: see [`Chunk::up_to`].
    ///
    /// # Invariants
    ///
    /// Of a chunk that is [lent](Chunk::push_lent) the chunk before it in the list, or null.
    held_or_before: Cell<*mut Header>,
    /// See [`Chunk::up_to`]; of a shared arena's chunk, see [`Chunk::set_entered`].
    filled: Cell<usize>,
}

/// What lies in the chunks up to one, that one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpTo {
    /// Bytes of the chunks themselves.
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
/// Points to the header, written by [`new`](Self::new), of a block that is currently allocated, with
/// provenance over the whole of it. Whoever calls [`free`](Self::free) answers for there being no
/// handle left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk(NonNull<Header>);

impl Chunk {
    /// Takes a chunk from `base`.
    #[inline]
    pub(super) fn new<A: Allocator>(base: &A, size: ChunkSize) -> Result<Self, AllocError> {
        let header = base.allocate(layout(size))?.cast();
        let (held_or_before, filled) = (Cell::new(ptr::null_mut()), Cell::new(0));
        // SAFETY: the block is valid for writes of `size` bytes, which are more than a header, and
        // is aligned as a header is.
        unsafe { header.write(Header { next: Cell::new(None), size, held_or_before, filled }) };
        Ok(Self(header))
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

    /// Gives the chunk back.
    ///
    /// # Safety
    ///
    /// 1. It was taken from `base`, or from an allocator that behaves as the same one.
    /// 2. Neither this handle, nor a copy of it, nor any pointer into the chunk is used again.
    #[inline]
    pub(super) unsafe fn free<A: Allocator>(self, base: &A) {
        let layout = layout(self.header().size);
        let (space, len) = self.space();
        unpoison(space, len);
        // SAFETY: the block is currently allocated (the invariants), by `base` (1), with this
        // layout (`new`), and goes unused from here on (2).
        unsafe { base.deallocate(self.0.cast(), layout) };
    }

    /// Whether both are the same chunk, or neither is one.
    #[inline]
    pub(super) fn is_same(one: Option<Self>, other: Option<Self>) -> bool {
        let address = |chunk: Option<Self>| chunk.map_or(0, |chunk| chunk.0.addr().get());
        address(one) == address(other)
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariants the header is initialised and allocated; nobody makes a unique
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

    /// What lies in the chunks up to this one; kept from when it becomes the current one.
    pub(super) fn up_to(self) -> UpTo {
        let header = self.header();
        UpTo { held: header.held_or_before.get().addr(), filled: header.filled.get() }
    }

    pub(super) fn set_up_to(self, up_to: UpTo) {
        self.header().held_or_before.set(ptr::without_provenance_mut(up_to.held));
        self.header().filled.set(up_to.filled);
    }

    /// Whether a shared arena has cut anything from the chunk since this was last said.
    #[cfg(feature = "std")]
    pub(super) fn set_entered(self, entered: bool) -> bool {
        self.header().filled.replace(usize::from(entered)) != 0
    }

    /// Puts the chunk at the head of a list of chunks that are lent.
    pub(super) fn push_lent(self, list: &Cell<Option<Self>>) {
        let behind = list.replace(Some(self));
        self.set_next(behind);
        self.header().held_or_before.set(ptr::null_mut());
        if let Some(behind) = behind {
            behind.header().held_or_before.set(self.0.as_ptr());
        }
    }

    /// Takes the chunk out of the list, wherever it is in it.
    ///
    /// # Safety
    ///
    /// 1. It was [put](Self::push_lent) into this list, and not taken out since.
    /// 2. No chunk of the list was freed.
    pub(super) unsafe fn remove_lent(self, list: &Cell<Option<Self>>) {
        let (before, behind) = (self.header().held_or_before.get(), self.next());
        match NonNull::new(before) {
            // The chunk before it, which is there (1, 2, and the invariants of the field).
            Some(before) => Self(before).set_next(behind),
            None => list.set(behind),
        }
        if let Some(behind) = behind {
            behind.header().held_or_before.set(before);
        }
    }

    /// The bytes for values: the first, valid for all of them, and how many.
    pub(super) fn space(self) -> (NonNull<u8>, usize) {
        let low = self.0.cast::<u8>();
        // SAFETY: the block is longer than a header.
        (unsafe { low.add(HEADER) }, self.bytes() - HEADER)
    }
}
