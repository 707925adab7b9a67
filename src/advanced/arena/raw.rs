//! The bump pointer and the list of chunks, without types.

use super::{
    charge::{Charge, Effort},
    chunk::Chunk,
    resize,
    sizing::{ChunkSize, Growth},
};
use crate::{
    allocator::{
        AllocError, Allocator,
        bump::{Direction, RawBump, empty},
    },
    core::{AllocationError, Exhausted},
};
use core::{alloc::Layout, cell::Cell, mem, ptr::NonNull};

/// What errors call an arena.
pub(super) const COMPONENT: &str = "arena";

/// # Invariants
///
/// - The chunks from `first` on, each the next of the one before, are allocated by `base`, and are
///   of `held` bytes together, which `charge` holds on the ledger (between calls; within
///   [`add_chunk`](Self::add_chunk) both are ahead).
/// - `current` is one of them; those before it are full, those behind it are empty. Without a
///   current chunk all are empty.
/// - The free bytes of `bump` are those of the current chunk that no block was given out of; without
///   a current chunk there are none.
pub(super) struct RawArena<A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    bump: RawBump<D, MIN_ALIGN>,
    current: Cell<Option<Chunk>>,
    first: Cell<Option<Chunk>>,
    held: Cell<usize>,
    peak: Cell<usize>,
    growth: Growth,
    charge: Charge,
    base: A,
}

// SAFETY: the chunks belong to the arena alone, and `base`, which frees them, is sent along. The
// ledger's handles are `Send`. Whatever still points into a chunk borrows the arena, which then does
// not move; what was written there is never read or dropped by the arena.
unsafe impl<A: Allocator + Send, D: Direction, const MIN_ALIGN: usize> Send
    for RawArena<A, D, MIN_ALIGN>
{
}

/// What becomes of an error: a result's, or the end.
///
/// Where there can be none after a call, a block comes back in a register, and the caller needs no
/// frame for an error.
pub(super) trait Failure: Sized {
    /// The error as this.
    #[track_caller]
    fn of(error: AllocationError) -> Self;
}

impl Failure for AllocationError {
    #[inline(always)]
    fn of(error: AllocationError) -> Self {
        error
    }
}

/// The failure of a method that has no `Result` to say it with: it panics, so that there is none.
pub(super) enum Panic {}

impl Failure for Panic {
    #[cold]
    #[track_caller]
    fn of(error: AllocationError) -> Self {
        panic!("{error}")
    }
}

/// A place to go back to.
#[derive(Clone, Copy)]
pub(super) struct Checkpoint {
    chunk: Option<Chunk>,
    pos: NonNull<u8>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// As most arenas are: on no budget.
    pub(super) const fn unbounded(base: A) -> Self {
        Self::new(Growth::DEFAULT, Charge::nobody(), base)
    }

    pub(super) const fn new(growth: Growth, charge: Charge, base: A) -> Self {
        Self {
            bump: RawBump::nowhere(),
            current: Cell::new(None),
            first: Cell::new(None),
            held: Cell::new(0),
            peak: Cell::new(0),
            growth,
            charge,
            base,
        }
    }

    /// A block of `layout`, valid until the arena goes back to before it.
    ///
    /// A block of no bytes is no place: nothing is taken for it.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        match self.bump.alloc(layout) {
            Some(block) => Ok(block),
            None => self.alloc_in_next(layout),
        }
    }

    /// A block for a `T`.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        match self.bump.alloc_sized::<T>() {
            Some(block) => Ok(block),
            None => Ok(self.alloc_in_next(Layout::new::<T>())?.cast()),
        }
    }

    /// A block from another chunk than the current one.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_in_next<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        self.alloc_in_other(layout).map_err(E::of)
    }

    /// A block from a chunk that the arena has kept, if it fits, or from a new one.
    fn alloc_in_other(&self, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        let chunk = match self.next_chunk().filter(|kept| Self::fits(*kept, layout)) {
            Some(kept) => kept,
            // Goes before a kept one that is too small, which stays for later.
            None => self.add_chunk(layout)?,
        };
        self.enter(chunk);
        self.bump.alloc(layout).ok_or_else(|| Exhausted::new(COMPONENT, layout.size(), None).into())
    }

    /// Whether a block of `layout` fits into `chunk` when it is empty.
    fn fits(chunk: Chunk, layout: Layout) -> bool {
        let bump = RawBump::<D, MIN_ALIGN>::nowhere();
        let (start, len) = chunk.space();
        // SAFETY: what is taken from this bump pointer is only looked at.
        unsafe { bump.enter(start, len) };
        bump.alloc(layout).is_some()
    }

    fn next_chunk(&self) -> Option<Chunk> {
        self.current.get().map_or(self.first.get(), Chunk::next)
    }

    /// Makes all of `chunk`, which nothing lies in, the free bytes.
    #[inline]
    fn enter(&self, chunk: Chunk) {
        let (start, len) = chunk.space();
        // SAFETY: 1. The bytes are the chunk's for values, valid as long as the chunk is allocated,
        // and nothing that is in use lies in them. 2. Chunks and headers are of whole units of 16.
        unsafe { self.bump.enter_aligned(start, len) };
        self.current.set(Some(chunk));
    }

    /// A new chunk behind the current one, with room for `layout`.
    fn add_chunk(&self, layout: Layout) -> Result<Chunk, AllocationError> {
        self.growth.seek(self.held.get(), layout, |size, effort| self.try_chunk(size, effort))
    }

    /// Charges, allocates and links a chunk.
    ///
    /// The ledger and the base allocator are foreign code, which may come back to this arena and
    /// make it grow in between: the bytes count as held before either is called, and what is
    /// current is read after both.
    fn try_chunk(&self, size: ChunkSize, effort: Effort) -> Result<Chunk, AllocationError> {
        let room = self.growth.room(self.held.get());
        if size.get() > room {
            return Err(Exhausted::new(COMPONENT, size.get(), Some(room)).into());
        }
        let claim = Claim::new(&self.held, size.get());
        let charged = self.charge.reserve(size.get(), effort)?;
        let chunk = Chunk::new(&self.base, size)
            .map_err(|AllocError| Exhausted::new(COMPONENT, size.get(), None))?;
        self.charge.keep(charged);
        mem::forget(claim);
        self.peak.set(self.peak.get().max(self.held.get()));

        chunk.set_next(self.next_chunk());
        match self.current.get() {
            Some(current) => current.set_next(Some(chunk)),
            None => self.first.set(Some(chunk)),
        }
        Ok(chunk)
    }

    #[inline]
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { chunk: self.current.get(), pos: self.bump.pos() }
    }

    /// Goes back; the chunks that were added since are kept.
    ///
    /// # Safety
    ///
    /// 1. `to` is this arena's, and the arena has not gone back beyond it, nor been emptied, since.
    /// 2. No block that was given out since is used again.
    #[inline]
    pub(super) unsafe fn rewind(&self, to: Checkpoint) {
        if to.chunk != self.current.get() {
            match to.chunk {
                Some(chunk) => self.enter(chunk),
                // SAFETY: there was no chunk then, so that every block was given out since (2).
                None => return unsafe { self.clear() },
            }
        }
        // SAFETY: the chunk is that of `to`, which was taken from it (1); and 2.
        unsafe { self.bump.go_back(to.pos) };
    }

    /// Goes back to the beginning; all chunks are kept.
    ///
    /// # Safety
    ///
    /// No block that was given out is used again.
    #[inline]
    pub(super) unsafe fn clear(&self) {
        if let Some(first) = self.first.get() {
            self.enter(first);
        }
    }

    /// Empties the arena and frees chunks until those that stay are of at most `keep` bytes. Returns
    /// the bytes freed.
    pub(super) fn trim(&mut self, keep: usize) -> usize {
        let mut list = self.first.take();
        self.current.set(None);
        self.bump.leave();

        let (mut kept, mut last) = (0, None::<Chunk>);
        let mut freed = 0;
        while let Some(chunk) = list {
            list = chunk.next();
            let bytes = chunk.bytes();
            if bytes <= keep - kept {
                kept += bytes;
                chunk.set_next(None);
                match last.replace(chunk) {
                    Some(before) => before.set_next(Some(chunk)),
                    None => self.first.set(Some(chunk)),
                }
            } else {
                freed += bytes;
                // SAFETY: the chunk is the base's (the invariants), is in the list no more, and no
                // block in it is borrowed, as the arena is borrowed uniquely.
                unsafe { chunk.free(&self.base) };
            }
        }
        self.held.set(kept);
        self.charge.release(freed);
        // SAFETY: no block is borrowed, as the arena is borrowed uniquely.
        unsafe { self.clear() };
        freed
    }

    /// Bytes of all chunks.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// The most that [`held`](Self::held) has been.
    pub(super) fn peak(&self) -> usize {
        self.peak.get()
    }

    pub(super) fn max_bytes(&self) -> Option<usize> {
        self.growth.max_bytes
    }

    /// Bytes that are free in the current chunk.
    pub(super) fn free(&self) -> usize {
        self.bump.free()
    }

    /// A larger block in the place of `block`, with its contents: the newest borders on the free
    /// bytes, and takes some of them; any other is copied.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); the block is as it was.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `old`, and the arena has not gone back to before it.
    /// 2. Unless this fails it is not used again.
    /// 3. `new.size() >= old.size()`.
    #[inline]
    pub(super) unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        // SAFETY: 1 to 3; a block of this arena's that borders on the free bytes is in their chunk.
        unsafe { resize::grow(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// A smaller block in the place of `block`, with the beginning of its contents. The rest of the
    /// newest goes back to the free bytes.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc), where the new alignment is one that the block does not have.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `old`, and the arena has not gone back to before it.
    /// 2. Unless this fails it is not used again.
    /// 3. `new.size() <= old.size()`.
    #[inline]
    pub(super) unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        // SAFETY: as in `grow`.
        unsafe { resize::shrink(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Gives the newest block back; any other stays until the arena goes back.
    ///
    /// # Safety
    ///
    /// 1. `block` was given out for `layout`, and the arena has not gone back to before it.
    /// 2. It is not used again.
    #[inline]
    pub(super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: 1 and 2, and as in `grow`.
        unsafe { resize::free(&self.bump, block, layout) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for RawArena<A, D, MIN_ALIGN> {
    /// Frees the memory before the charge, a field, gives its bytes back.
    fn drop(&mut self) {
        let mut list = self.first.get();
        while let Some(chunk) = list {
            list = chunk.next();
            // SAFETY: the chunk is the base's (the invariants), its handles go with the arena, and no
            // block in it is borrowed, as the arena is borrowed uniquely.
            unsafe { chunk.free(&self.base) };
        }
    }
}

/// Bytes that count as held until the chunk is there, or fails.
struct Claim<'a> {
    held: &'a Cell<usize>,
    bytes: usize,
}

impl<'a> Claim<'a> {
    fn new(held: &'a Cell<usize>, bytes: usize) -> Self {
        held.set(held.get() + bytes);
        Self { held, bytes }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.bytes);
    }
}
