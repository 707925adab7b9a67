//! The list of chunks: how it grows and shrinks, and how it is charged.

use super::RawArena;
use crate::{
    advanced::arena::chunk::{
        Chunk,
        charge::Effort,
        sizing::{COMPONENT, ChunkSize},
    },
    allocator::{AllocError, Allocator, bump::Direction},
    core::AllocationError,
    utils::poison::unpoison,
};
use core::{alloc::Layout, cell::Cell, mem, ptr::NonNull};

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// Allocates a small block from the first chunk of an arena, if the ledger has bytes to spare.
    /// This short path suffices for most arenas.
    #[inline(always)]
    pub(in super::super) fn begin_with(&self, layout: Layout) -> Option<NonNull<u8>> {
        // Without a chunk, only a buffer has bytes.
        if self.held.get() > 0 || !self.fresh.is_nowhere() {
            return None;
        }
        let size = self.growth.first_for(layout)?;
        if !self.charge.is_nobodys() {
            return self.begin_on_budget(size, layout);
        }
        let chunk = self.first_chunk(size)?;
        self.begin_with_in(chunk, layout)
    }

    #[inline(never)]
    fn begin_on_budget(&self, size: ChunkSize, layout: Layout) -> Option<NonNull<u8>> {
        let charged = self.charge.reserve(size.get(), Effort::Spare).ok()?;
        let chunk = self.first_chunk(size)?;
        self.charge.keep(charged);
        self.begin_with_in(chunk, layout)
    }

    #[inline(always)]
    fn first_chunk(&self, size: ChunkSize) -> Option<Chunk> {
        let claim = Claim::new(&self.held, size.get());
        let chunk = Chunk::new(&self.base, size).ok()?;
        mem::forget(claim);
        Some(chunk)
    }

    /// Allocates a block of `layout` from `chunk`, which is new, unless it is no longer the only
    /// chunk.
    #[inline(always)]
    fn begin_with_in(&self, chunk: Chunk, layout: Layout) -> Option<NonNull<u8>> {
        if self.held.get() > chunk.bytes() {
            // The base allocator has allocated from this arena in the meantime.
            chunk.set_next(self.spare.replace(Some(chunk)));
            return None;
        }
        self.begin_in(chunk);
        // SAFETY: 1. The bytes are all of a chunk of this arena. 2. The chunk is new.
        unsafe { self.bump.restore(&self.fresh) };
        self.bump.alloc(layout)
    }

    /// Adds a new chunk with room for `layout`.
    pub(in super::super) fn add_chunk(&self, layout: Layout) -> Result<Chunk, AllocationError> {
        let held = self.held.get();
        self.growth.seek(held, held, layout, |size, effort| self.try_chunk(size, effort))
    }

    /// Charges and allocates a chunk.
    ///
    /// The ledger and the base allocator may run user code, and that code may make this arena grow.
    /// The bytes therefore count as held before either is called.
    fn try_chunk(&self, size: ChunkSize, effort: Effort) -> Result<Chunk, AllocationError> {
        let room = self.growth.room(self.held.get());
        if size.get() > room {
            return Err(AllocationError::exhausted(COMPONENT, size.get(), Some(room)));
        }
        let claim = Claim::new(&self.held, size.get());
        let charged = self.charge.reserve(size.get(), effort)?;
        let chunk = Chunk::new(&self.base, size)
            .map_err(|AllocError| AllocationError::exhausted(COMPONENT, size.get(), None))?;
        self.charge.keep(charged);
        mem::forget(claim);
        Ok(chunk)
    }

    /// Takes a spare chunk with room for a block of `layout`. Looks only at the first few, as a
    /// longer search costs more than a new chunk.
    pub(in super::super) fn take_spare(&self, layout: Layout) -> Option<Chunk> {
        const FEW: usize = 8;
        let mut before = None::<Chunk>;
        for _ in 0..FEW {
            let chunk = before.map_or(self.spare.get(), Chunk::next)?;
            if Self::fits(chunk, layout) {
                match before {
                    Some(before) => before.set_next(chunk.next()),
                    None => self.spare.set(chunk.next()),
                }
                return Some(chunk);
            }
            before = Some(chunk);
        }
        None
    }

    /// Makes the chunks from the current one down to `stop` spare, but not `stop` itself. They keep
    /// their order: usually the largest is first.
    ///
    /// Linear in the number of these chunks. Each of them was entered once before, which pays for
    /// this.
    pub(in super::super) fn spare_down_to(&self, stop: Option<Chunk>) {
        let Some(newest) = self.current.get().filter(|newest| Some(*newest) != stop) else {
            return;
        };
        let mut oldest = newest;
        while let Some(older) = oldest.next().filter(|older| Some(*older) != stop) {
            oldest = older;
        }
        oldest.set_next(self.spare.replace(Some(newest)));
        self.current.set(stop);
    }

    /// Lends the space of a whole chunk with room for a block of `layout` to a child arena, until
    /// it is [taken back](Self::take_back_chunk).
    pub(in super::super) fn lend_chunk(
        &self,
        layout: Layout,
    ) -> Result<NonNull<[u8]>, AllocationError> {
        let chunk = match self.take_spare(layout) {
            Some(spare) => spare,
            // The child arena has doubled the size already.
            None => {
                let too_large = AllocationError::capacity_overflow(COMPONENT, 1, layout.size());
                let needed = ChunkSize::needed(layout).ok_or(too_large)?;
                self.try_chunk(needed, Effort::Spare)
                    .or_else(|_| self.try_chunk(needed, Effort::Reclaim))?
            }
        };
        chunk.push_lent(&self.lent);
        self.lent_bytes.set(self.lent_bytes.get() + chunk.bytes());
        let (start, len) = chunk.space();
        unpoison(start, len);
        Ok(NonNull::slice_from_raw_parts(start, len))
    }

    /// Takes back a chunk that a child arena no longer uses.
    ///
    /// # Safety
    ///
    /// 1. `start` is the start of a space that [`lend_chunk`](Self::lend_chunk) returned, and the
    ///    space was not taken back since.
    /// 2. Nothing in the space is used again.
    pub(in super::super) unsafe fn take_back_chunk(&self, start: NonNull<u8>) {
        // SAFETY: `start` is the space of a chunk of this arena (1), which stays while the arena
        // does.
        let chunk = unsafe { Chunk::of_space(start) };
        // SAFETY: 1. The chunk was lent, and not taken back since (1). 2. Chunks are freed only
        // when the arena is borrowed uniquely, and outside their list.
        unsafe { chunk.remove_lent(&self.lent) };
        self.note_high_water();
        self.lent_bytes.set(self.lent_bytes.get() - chunk.bytes());
        chunk.set_next(self.spare.replace(Some(chunk)));
    }

    /// Takes back all chunks that are still lent. Their child arenas were leaked: any other child
    /// has returned its chunks before the arena is borrowed uniquely.
    fn take_back_all(&mut self) {
        while let Some(chunk) = self.lent.get() {
            self.lent.set(chunk.next());
            chunk.set_next(self.spare.replace(Some(chunk)));
        }
        self.lent_bytes.set(0);
    }

    /// Returns the bytes of chunks that contain blocks.
    fn in_use(&self) -> usize {
        self.current.get().map_or(0, |current| current.up_to().held) + self.lent_bytes.get()
    }

    /// Records the bytes in use if they are the most so far. Called before they become fewer.
    pub(in super::super) fn note_high_water(&self) {
        self.high_water.set(self.high_water.get().max(self.in_use()));
    }

    /// Returns the bytes for values in the spare chunk that is taken next, if there is one.
    pub(in super::super) fn next_space(&self) -> Option<usize> {
        self.spare.get().map(|chunk| chunk.space().1)
    }

    /// Empties the arena and frees chunks until the remaining ones take at most `keep` bytes.
    /// Returns the freed bytes.
    pub(in super::super) fn trim(&mut self, keep: usize) -> usize {
        self.note_high_water();
        self.trim_to(keep)
    }

    fn trim_to(&mut self, keep: usize) -> usize {
        self.take_back_all();
        self.spare_down_to(None);
        if self.start.take().is_some() {
            self.fresh.leave();
        }
        // SAFETY: the arena is borrowed uniquely, so no block is borrowed.
        unsafe { self.clear() };

        let mut list = self.spare.take();
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
                    None => self.spare.set(Some(chunk)),
                }
            } else {
                freed += bytes;
                // SAFETY: the chunk is the base's (the invariants) and no longer in the list. No
                // block in it is borrowed, as the arena is borrowed uniquely.
                unsafe { chunk.free(&self.base) };
            }
        }
        self.peak.set(self.peak());
        self.held.set(self.held.get() - freed);
        self.charge.release(freed);
        freed
    }

    /// Like [`trim`](Self::trim), but keeps the most bytes that were in use at once since the last
    /// call.
    pub(in super::super) fn trim_to_high_water(&mut self) -> usize {
        let keep = self.high_water.replace(0).max(self.in_use());
        self.trim_to(keep)
    }

    /// Returns the bytes of all chunks.
    pub(in super::super) fn held(&self) -> usize {
        self.held.get()
    }

    /// Returns the most bytes that [`held`](Self::held) has returned.
    pub(in super::super) fn peak(&self) -> usize {
        self.peak.get().max(self.held.get())
    }

    pub(in super::super) fn max_bytes(&self) -> Option<usize> {
        self.growth.max_bytes()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for RawArena<A, D, MIN_ALIGN> {
    /// Frees the chunks. The field `charge` is dropped after this, and releases their bytes then.
    #[inline]
    fn drop(&mut self) {
        if let Some((start, len)) = self.buffer() {
            unpoison(start, len);
        }
        if self.held.get() > 0 {
            self.free_chunks();
        }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// Frees all chunks, when the arena is dropped.
    ///
    /// This function is not inlined, so that the compiler can see through the whole life of an
    /// arena without chunks.
    #[inline(never)]
    fn free_chunks(&self) {
        match self.current.get() {
            // Most arenas have a single chunk: it takes all bytes.
            Some(only) if only.bytes() == self.held.get() => {
                // SAFETY: as in `free_lists`.
                unsafe { only.free(&self.base) };
            }
            _ => self.free_lists(),
        }
    }

    #[inline(never)]
    fn free_lists(&self) {
        // Child arenas that have lent chunks at this point were leaked.
        for list in [&self.current, &self.spare, &self.lent] {
            let mut list = list.get();
            while let Some(chunk) = list {
                list = chunk.next();
                // SAFETY: 1. The chunk is the base's (the invariants). 2. Its handles go with the
                // arena, and no block in it is borrowed, as the arena is borrowed uniquely.
                unsafe { chunk.free(&self.base) };
            }
        }
    }
}

/// Bytes that count as held while a chunk is being made. They no longer count if that fails.
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
