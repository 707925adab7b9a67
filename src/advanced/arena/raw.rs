//! The bump pointer and the list of chunks, without types.

use super::{
    charge::{Charge, Effort},
    chunk::Chunk,
    sizing::{CHUNK_ALIGN, ChunkSize, Growth},
};
use crate::{
    allocator::{AllocError, Allocator},
    core::{AllocationError, CapacityOverflow, Exhausted},
    utils::align::bump_down,
};
use core::{alloc::Layout, cell::Cell, mem, num::NonZero, ptr::NonNull};

/// What errors call an arena.
pub(super) const COMPONENT: &str = "arena";

/// Where an arena without a chunk stands: no bytes are free between an address and itself.
const NOWHERE: NonNull<u8> = NonNull::<Unit>::dangling().cast();

#[repr(align(16))]
struct Unit;

/// # Invariants
///
/// - The chunks from `first` on, each the next of the one before, are allocated by `base`, and are
///   of `held` bytes together, which `charge` holds on the ledger (between calls; within
///   [`add_chunk`](Self::add_chunk) both are ahead).
/// - `current` is one of them; those before it are full, those behind it are empty. Without a
///   current chunk all are empty.
/// - `start..pos` are the free bytes of the current chunk, which no block that was given out
///   overlaps, and `pos` is valid for all of them; without a current chunk both are [`NOWHERE`].
pub(super) struct RawArena<A: Allocator> {
    start: Cell<usize>,
    pos: Cell<NonNull<u8>>,
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
unsafe impl<A: Allocator + Send> Send for RawArena<A> {}

/// A place to go back to.
#[derive(Clone, Copy)]
pub(super) struct Checkpoint {
    chunk: Option<Chunk>,
    pos: NonNull<u8>,
}

impl<A: Allocator> RawArena<A> {
    pub(super) const fn new(growth: Growth, charge: Charge, base: A) -> Self {
        Self {
            start: Cell::new(CHUNK_ALIGN),
            pos: Cell::new(NOWHERE),
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
    #[inline]
    pub(super) fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            let somewhere = NonZero::new(layout.align()).unwrap_or(NonZero::<usize>::MIN);
            return Ok(NonNull::without_provenance(somewhere));
        }
        match self.bump(layout) {
            Some(block) => Ok(block),
            None => self.alloc_in_next(layout),
        }
    }

    /// A block from the current chunk.
    #[inline]
    fn bump(&self, layout: Layout) -> Option<NonNull<u8>> {
        let pos = self.pos.get();
        let new = bump_down(self.start.get(), pos.addr().get(), layout)?;
        let down = pos.addr().get() - new;
        // SAFETY: `new` lies in `start..=pos`, the free bytes, all of which `pos` is valid for (the
        // invariants; without a chunk there are none, and no block of a byte or more fits).
        let block = unsafe { pos.sub(down) };
        self.pos.set(block);
        Some(block)
    }

    /// A block from a chunk that the arena has kept, if it fits, or from a new one.
    #[cold]
    #[inline(never)]
    fn alloc_in_next(&self, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        let chunk = match self.next_chunk().filter(|kept| fits(*kept, layout)) {
            Some(kept) => kept,
            // Goes before a kept one that is too small, which stays for later.
            None => self.add_chunk(layout)?,
        };
        self.enter(chunk);
        self.bump(layout).ok_or_else(|| unreachable!("the chunk was chosen to fit"))
    }

    fn next_chunk(&self) -> Option<Chunk> {
        self.current.get().map_or(self.first.get(), Chunk::next)
    }

    /// Makes all of `chunk`, which nothing lies in, the free bytes.
    fn enter(&self, chunk: Chunk) {
        let (start, end) = chunk.space();
        self.start.set(start);
        self.pos.set(end);
        self.current.set(Some(chunk));
    }

    /// A new chunk behind the current one, with room for `layout`.
    fn add_chunk(&self, layout: Layout) -> Result<Chunk, AllocationError> {
        let too_large = CapacityOverflow::new(COMPONENT, 1, layout.size());
        let needed = ChunkSize::needed(layout).ok_or(too_large)?;
        let held = self.held.get();
        let ladder = self
            .growth
            .ladder(held, needed)
            .ok_or_else(|| Exhausted::new(COMPONENT, needed.get(), Some(self.growth.room(held))))?;

        let [doubled, modest, needed] = ladder;
        self.try_chunk(doubled, Effort::Spare)
            .or_else(|_| self.try_chunk(modest, Effort::Reclaim))
            .or_else(|error| {
                if modest > needed { self.try_chunk(needed, Effort::Spare) } else { Err(error) }
            })
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

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { chunk: self.current.get(), pos: self.pos.get() }
    }

    /// Goes back; the chunks that were added since are kept.
    ///
    /// # Safety
    ///
    /// 1. `to` is this arena's, and the arena has not gone back beyond it, nor been emptied, since.
    /// 2. No block that was given out since is used again.
    pub(super) unsafe fn rewind(&self, to: Checkpoint) {
        match to.chunk {
            Some(chunk) => {
                self.start.set(chunk.space().0);
                self.pos.set(to.pos);
                self.current.set(Some(chunk));
            }
            // SAFETY: there was no chunk then, so that every block was given out since (2).
            None => unsafe { self.clear() },
        }
    }

    /// Goes back to the beginning; all chunks are kept.
    ///
    /// # Safety
    ///
    /// No block that was given out is used again.
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
        self.start.set(CHUNK_ALIGN);
        self.pos.set(NOWHERE);

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

    /// Where the next block would end, if it is to lie in the current chunk, and the bytes below.
    pub(super) fn free(&self) -> (NonNull<u8>, usize) {
        let pos = self.pos.get();
        (pos, pos.addr().get() - self.start.get())
    }

    /// Gives the lowest `len` bytes of the newest block back.
    ///
    /// # Safety
    ///
    /// 1. `block` is the newest block, at least `len` bytes long.
    /// 2. Its first `len` bytes are not used again.
    pub(super) unsafe fn give_back(&self, block: NonNull<u8>, len: usize) {
        debug_assert_eq!(self.pos.get(), block);
        // SAFETY: by 1 the offset stays within the block.
        self.pos.set(unsafe { block.add(len) });
    }

    /// Whether `block` is the newest, so that it borders on the free bytes.
    pub(super) fn is_newest(&self, block: NonNull<u8>) -> bool {
        self.pos.get() == block
    }
}

impl<A: Allocator> Drop for RawArena<A> {
    /// Frees the memory before the charge, a field, gives its bytes back.
    fn drop(&mut self) {
        self.trim(0);
    }
}

/// Whether a block of `layout` fits into `chunk` when it is empty.
fn fits(chunk: Chunk, layout: Layout) -> bool {
    let (start, end) = chunk.space();
    bump_down(start, end.addr().get(), layout).is_some()
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
