//! The list of chunks: how it grows, shrinks and is charged.

use super::{
    charge::Effort,
    chunk::{Chunk, UpTo},
    raw::{COMPONENT, RawArena},
    sizing::ChunkSize,
};
use crate::{
    allocator::{AllocError, Allocator, bump::Direction},
    core::{AllocationError, CapacityOverflow, Exhausted},
};
use core::{alloc::Layout, cell::Cell, mem, ptr::NonNull};

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// A new chunk behind the current one, with room for `layout`.
    pub(super) fn add_chunk(&self, layout: Layout) -> Result<Chunk, AllocationError> {
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
        self.insert(chunk);
        Ok(chunk)
    }

    /// Links a chunk that nothing lies in behind the current one.
    fn insert(&self, chunk: Chunk) {
        chunk.set_next(self.next_chunk());
        match self.current.get() {
            Some(current) => current.set_next(Some(chunk)),
            None => self.set_first(Some(chunk)),
        }
    }

    /// Makes `chunk` the first one, which is entered without a look at what lies before.
    fn set_first(&self, chunk: Option<Chunk>) {
        if let Some(first) = chunk {
            first.set_up_to(UpTo { held: first.bytes(), filled: first.space().1 });
        }
        self.first.set(chunk);
    }

    /// Lends the space of a whole chunk in which a block of `layout` fits; it goes out of the list
    /// until it is [taken back](Self::take_back_chunk).
    pub(super) fn lend_chunk(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocationError> {
        let chunk = match self.next_chunk().filter(|kept| Self::fits(*kept, layout)) {
            Some(kept) => kept,
            // Who borrows it has doubled the size already.
            None => {
                let too_large = CapacityOverflow::new(COMPONENT, 1, layout.size());
                let needed = ChunkSize::needed(layout).ok_or(too_large)?;
                self.try_chunk(needed, Effort::Spare)
                    .or_else(|_| self.try_chunk(needed, Effort::Reclaim))?
            }
        };
        match self.current.get() {
            Some(current) => current.set_next(chunk.next()),
            None => self.set_first(chunk.next()),
        }
        self.lent.set(self.lent.get() + chunk.bytes());
        self.note_high_water();
        let (start, len) = chunk.space();
        Ok(NonNull::slice_from_raw_parts(start, len))
    }

    /// Takes a chunk back, in which nothing lies.
    ///
    /// # Safety
    ///
    /// 1. `start` is that of a space that [`lend_chunk`](Self::lend_chunk) returned, and was not taken
    ///    back since.
    /// 2. Nothing in it is used again.
    pub(super) unsafe fn take_back_chunk(&self, start: NonNull<u8>) {
        // SAFETY: the space of a chunk of this arena (1), which stays while the arena does.
        let chunk = unsafe { Chunk::of_space(start) };
        self.lent.set(self.lent.get() - chunk.bytes());
        self.insert(chunk);
    }

    /// Bytes of chunks that something lies in.
    fn in_use(&self) -> usize {
        self.current.get().map_or(0, |current| current.up_to().held) + self.lent.get()
    }

    pub(super) fn note_high_water(&self) {
        self.high_water.set(self.high_water.get().max(self.in_use()));
    }

    /// Bytes for values in the chunk that is entered next, if one was kept.
    pub(super) fn next_space(&self) -> Option<usize> {
        self.next_chunk().map(|chunk| chunk.space().1)
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
                    None => self.set_first(Some(chunk)),
                }
            } else {
                freed += bytes;
                // SAFETY: the chunk is the base's (the invariants), is in the list no more, and no
                // block in it is borrowed, as the arena is borrowed uniquely.
                unsafe { chunk.free(&self.base) };
            }
        }
        self.held.set(self.held.get() - freed);
        self.charge.release(freed);
        // SAFETY: no block is borrowed, as the arena is borrowed uniquely.
        unsafe { self.clear() };
        freed
    }

    /// As [`trim`](Self::trim), keeping what was in use at once since the last time.
    pub(super) fn trim_to_high_water(&mut self) -> usize {
        let keep = self.high_water.replace(0).max(self.in_use());
        self.trim(keep)
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
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for RawArena<A, D, MIN_ALIGN> {
    /// Frees the memory before the charge, a field, gives its bytes back.
    #[inline]
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
