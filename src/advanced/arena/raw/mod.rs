//! The untyped arena: its bump pointer and its list of chunks.

mod lists;
#[cfg(debug_assertions)]
mod misuse;
pub(super) mod resize;

use super::chunk::{
    Chunk, UpTo,
    charge::Charge,
    sizing::{CHUNK_ALIGN, COMPONENT, Growth},
};
use crate::{
    allocator::{
        Allocator,
        bump::{Direction, Overdrawn, RawBump, empty},
    },
    core::AllocationError,
    utils::align::is_usable,
};
use core::{alloc::Layout, cell::Cell, ptr::NonNull};

/// The bump pointer and the chunks of an arena, without the types of values.
///
/// # Invariants
///
/// - The list at `current` has the chunks that contain blocks or have contained some; each links to
///   the one that was entered before it. The list at `spare` has empty chunks. The list at `lent`
///   has the chunks that are [lent](Self::lend_chunk) to child arenas, of `lent_bytes` together.
///   All chunks are allocated by `base` and take `held` bytes together. `charge` holds as many
///   bytes on the ledger. (Within [`try_chunk`](Self::try_chunk) `held` and `charge` are ahead of
///   the lists.)
/// - `fresh` has the free bytes of an empty arena: all bytes of the chunk `start`, which is the
///   last one in the list at `current`. If there is no such chunk, they are bytes of the buffer in
///   which the arena starts, or no bytes.
/// - At least one byte that is in no block separates the bytes for blocks of two chunks, or of a
///   chunk and the buffer: a byte of a header, or the first byte of the buffer.
/// - The free bytes of `bump` are in a chunk of the list at `current`, or in the buffer, and no block
///   overlaps them. While a [`Registers`](super::scope::registers::Registers) or a [`Cursor`](super::Cursor) is used,
///   it has these free bytes instead.
/// - The [`UpTo`] of each chunk in the list at `current` is right.
pub(super) struct RawArena<A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    pub(super) bump: RawBump<D, MIN_ALIGN>,
    pub(super) fresh: RawBump<D, MIN_ALIGN>,
    pub(super) current: Cell<Option<Chunk>>,
    pub(super) start: Cell<Option<Chunk>>,
    pub(super) spare: Cell<Option<Chunk>>,
    pub(super) held: Cell<usize>,
    /// The most that `held` was, as recorded before it became less.
    pub(super) peak: Cell<usize>,
    pub(super) lent: Cell<Option<Chunk>>,
    pub(super) lent_bytes: Cell<usize>,
    /// The most bytes that chunks with blocks took at once since the last trim to this figure, as
    /// recorded before they became fewer.
    pub(super) high_water: Cell<usize>,
    pub(super) growth: Growth,
    pub(super) charge: Charge,
    pub(super) base: A,
}

// SAFETY: the chunks belong to the arena alone, and `base`, which frees them, moves with the arena.
// The ledger's handles are `Send`. Any remaining pointer into a chunk borrows the arena, which then
// does not move. The arena never reads or drops the values in its blocks.
unsafe impl<A: Allocator + Send, D: Direction, const MIN_ALIGN: usize> Send
    for RawArena<A, D, MIN_ALIGN>
{
}

/// The error type of an allocating method: a returned error, or a panic.
///
/// With [`Panic`], which has no value, a method returns the block in a register, and the caller
/// needs no stack space for an error.
pub(super) trait Failure: Sized {
    /// Converts the error, or panics with it.
    #[track_caller]
    fn of(error: AllocationError) -> Self;
}

impl Failure for AllocationError {
    #[inline(always)]
    fn of(error: AllocationError) -> Self {
        error
    }
}

/// The error type of a method that returns no `Result`. An error panics, so no value of this type
/// exists.
pub(super) enum Panic {}

impl Failure for Panic {
    #[cold]
    #[track_caller]
    fn of(error: AllocationError) -> Self {
        panic!("{error}")
    }
}

/// Does the same as `map_err(E::of)`, and a panic reports the caller's location.
pub(super) trait OrFail<T> {
    #[track_caller]
    fn or_fail<E: Failure>(self) -> Result<T, E>;
}

impl<T> OrFail<T> for Result<T, AllocationError> {
    #[inline(always)]
    fn or_fail<E: Failure>(self) -> Result<T, E> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(E::of(error)),
        }
    }
}

/// A position in the arena that it can rewind to.
pub(super) struct Checkpoint<D: Direction, const MIN_ALIGN: usize> {
    chunk: Option<Chunk>,
    bump: RawBump<D, MIN_ALIGN>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// Creates an arena with the default chunk sizes and no budget.
    pub(super) const fn unbounded(base: A) -> Self {
        Self::new(Growth::DEFAULT, Charge::nobody(), base)
    }

    pub(super) const fn new(growth: Growth, charge: Charge, base: A) -> Self {
        Self {
            bump: RawBump::nowhere(),
            fresh: RawBump::nowhere(),
            current: Cell::new(None),
            start: Cell::new(None),
            spare: Cell::new(None),
            held: Cell::new(0),
            peak: Cell::new(0),
            lent: Cell::new(None),
            lent_bytes: Cell::new(0),
            high_water: Cell::new(0),
            growth,
            charge,
            base,
        }
    }

    /// Allocates a block of `layout`, valid until the arena rewinds to a point before it.
    ///
    /// A block of no bytes takes no memory and may lie anywhere.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        match self.bump.alloc(layout) {
            Some(block) => Ok(block),
            None => self.alloc_in_next(layout),
        }
    }

    /// Allocates a block for a `T`.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        match self.bump.alloc_sized() {
            Some(block) => Ok(block),
            None => Ok(self.alloc_in_next(Layout::new::<T>())?.cast()),
        }
    }

    /// Allocates a block from another chunk than the current one.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_in_next<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if let Some(block) = self.begin_with(layout) {
            return Ok(block);
        }
        // A tail call: this function needs no stack space for an error.
        self.alloc_in_other(layout)
    }

    /// Allocates a block of `layout` that does not fit in `rest`, the arena's free bytes. Also
    /// returns the free bytes after the call.
    ///
    /// The free bytes are passed by value, so that a caller which never takes their address keeps
    /// them in registers.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn alloc_behind<E: Failure>(
        &self,
        rest: RawBump<D, MIN_ALIGN>,
        layout: Layout,
    ) -> (Result<NonNull<u8>, E>, RawBump<D, MIN_ALIGN>) {
        if layout.size() == 0 {
            return (Ok(empty(layout)), rest);
        }
        let chunk = self.chunk_behind(&rest, layout);
        let block = chunk.and_then(|chunk| self.alloc_in(chunk, layout)).or_fail();
        (block, self.bump.copy())
    }

    /// Returns free bytes with room for a block of `layout`, where `rest` has too few once
    /// `overdrawn` is paid back. On an error returns `rest`. The free bytes are passed by value, as
    /// for [`alloc_behind`](Self::alloc_behind).
    #[cold]
    #[inline(never)]
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a reference would put them into memory")]
    pub(super) fn refill<E: Failure>(
        &self,
        rest: RawBump<D, MIN_ALIGN>,
        overdrawn: Overdrawn,
        layout: Layout,
    ) -> (Result<(), E>, RawBump<D, MIN_ALIGN>) {
        rest.pay_back(overdrawn);
        let chunk = self.chunk_behind(&rest, layout).or_fail();
        (chunk.map(|chunk| self.enter(chunk, &Self::whole(chunk))), self.bump.copy())
    }

    /// Like [`chunk_for`](Self::chunk_for), with the arena's free bytes in `rest`.
    ///
    /// Reclaiming memory for the chunk runs user code, and that code may allocate from this arena.
    /// Until the chunk is there the arena has no free bytes, so that such an allocation uses
    /// another chunk. Then `rest` becomes the arena's free bytes.
    fn chunk_behind(
        &self,
        rest: &RawBump<D, MIN_ALIGN>,
        layout: Layout,
    ) -> Result<Chunk, AllocationError> {
        self.bump.leave();
        let chunk = self.chunk_for(layout);
        // SAFETY: 1. `rest` has the arena's free bytes, as the caller says. 2. No other code had
        // them meanwhile.
        unsafe { self.bump.restore(rest) };
        chunk
    }

    /// Allocates a block from a spare chunk, if it fits in one, or from a new chunk.
    #[inline(never)]
    #[track_caller]
    fn alloc_in_other<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        self.chunk_for(layout).and_then(|chunk| self.alloc_in(chunk, layout)).or_fail()
    }

    /// Allocates a block from `chunk`, which was made for it and becomes the current chunk.
    fn alloc_in(&self, chunk: Chunk, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        let no_more = AllocationError::exhausted(COMPONENT, layout.size(), None);
        let (block, rest) = Self::cut(chunk, layout).ok_or(no_more)?;
        self.advance(chunk, &rest);
        Ok(block)
    }

    /// Ensures that the next blocks, of `bytes` together including the padding for their alignment,
    /// need no other chunk.
    #[track_caller]
    pub(super) fn reserve<E: Failure>(&self, bytes: usize) -> Result<(), E> {
        if bytes <= self.bump.free() {
            return Ok(());
        }
        let chunk = Self::room_for(bytes).and_then(|layout| self.chunk_for(layout));
        let chunk = chunk.or_fail()?;
        self.enter(chunk, &Self::whole(chunk));
        Ok(())
    }

    /// Returns a layout that fits only in a chunk with at least `bytes` bytes for values.
    pub(super) fn room_for(bytes: usize) -> Result<Layout, AllocationError> {
        let too_large = AllocationError::capacity_overflow(COMPONENT, bytes, 1);
        Layout::from_size_align(bytes, CHUNK_ALIGN).map_err(|_| too_large)
    }

    /// Returns an empty chunk with room for a block of `layout`, to continue in.
    fn chunk_for(&self, layout: Layout) -> Result<Chunk, AllocationError> {
        self.take_spare(layout).map_or_else(|| self.add_chunk(layout), Ok)
    }

    /// Returns whether a block of `layout` fits in `chunk` when the chunk is empty.
    pub(super) fn fits(chunk: Chunk, layout: Layout) -> bool {
        Self::cut(chunk, layout).is_some()
    }

    /// Returns all bytes of an empty chunk.
    fn whole(chunk: Chunk) -> RawBump<D, MIN_ALIGN> {
        let bump = RawBump::nowhere();
        let (start, len) = chunk.space();
        // SAFETY: 1. The bytes are the chunk's for values, valid as long as the chunk is allocated.
        // No other code uses them: the chunk is empty, and the caller makes the result the arena's
        // own free bytes, or only looks at it. 2. The sizes of chunks and headers are multiples of
        // 16.
        unsafe { bump.enter_aligned(start, len) };
        bump
    }

    /// Allocates a block of `layout` from an empty chunk. Also returns the free bytes that remain.
    fn cut(chunk: Chunk, layout: Layout) -> Option<(NonNull<u8>, RawBump<D, MIN_ALIGN>)> {
        let bump = Self::whole(chunk);
        Some((bump.alloc(layout)?, bump))
    }

    /// Makes `chunk` the current chunk, in which `rest` is free. The arena then allocates from
    /// `rest` or from its present free bytes, whichever are more. A large block in a chunk of its
    /// own therefore does not waste the rest of another chunk.
    fn advance(&self, chunk: Chunk, rest: &RawBump<D, MIN_ALIGN>) {
        if rest.free() >= self.bump.free() {
            self.enter(chunk, rest);
        } else {
            self.make_current(chunk, self.filled() + chunk.space().1 - rest.free());
        }
    }

    /// Like [`advance`](Self::advance), but the arena always allocates from `rest`.
    fn enter(&self, chunk: Chunk, rest: &RawBump<D, MIN_ALIGN>) {
        let filled = self.filled() + chunk.space().1 - rest.free();
        // SAFETY: 1. `rest` is the rest of a chunk that has no other blocks. 2. Blocks are
        // allocated from it here alone.
        unsafe { self.bump.restore(rest) };
        self.make_current(chunk, filled);
    }

    /// Puts `chunk` at the head of the list. `filled` is the bytes that blocks take then.
    fn make_current(&self, chunk: Chunk, filled: usize) {
        let held = self.current.get().map_or(0, |current| current.up_to().held) + chunk.bytes();
        chunk.set_up_to(UpTo { held, filled: filled + self.bump.free() });
        chunk.set_next(self.current.replace(Some(chunk)));
    }

    /// Returns the bytes that blocks take, including the padding for their alignment.
    pub(super) fn filled(&self) -> usize {
        let up_to = match self.current.get() {
            Some(current) => current.up_to().filled,
            None => self.fresh.free(),
        };
        up_to - self.bump.free()
    }

    /// Returns the arena's present position; `bump` has its free bytes.
    #[inline]
    pub(super) fn checkpoint(&self, bump: &RawBump<D, MIN_ALIGN>) -> Checkpoint<D, MIN_ALIGN> {
        Checkpoint { chunk: self.current.get(), bump: bump.copy() }
    }

    /// Rewinds the arena to a checkpoint. Chunks that were added since are kept as spare ones.
    ///
    /// # Safety
    ///
    /// 1. `to` was taken from this arena. Since then the arena was not rewound to a point before
    ///    `to`, and was not emptied.
    /// 2. Neither a block nor a [`Cursor`](super::Cursor) that was made since then is used again.
    #[inline]
    pub(super) unsafe fn rewind(&self, to: &Checkpoint<D, MIN_ALIGN>) {
        if !Chunk::is_same(to.chunk, self.current.get()) && !self.go_back_to(to.chunk) {
            return;
        }
        // SAFETY: 1. The free bytes were these when `to` was taken (1). 2. Blocks that were
        // allocated from them since are unused (2).
        unsafe { self.bump.restore(&to.bump) };
    }

    /// Makes `chunk` the current chunk again, and returns `true`. If there was no chunk at the
    /// checkpoint and the arena has no buffer, empties the arena and returns `false`. The arena then
    /// starts in a chunk that was added since.
    #[cold]
    #[inline(never)]
    fn go_back_to(&self, chunk: Option<Chunk>) -> bool {
        if chunk.is_none() && !self.has_buffer() {
            // SAFETY: there was no chunk at the checkpoint, so every block was allocated since
            // then. The caller of `rewind` says that such blocks are unused.
            unsafe { self.clear() };
            return false;
        }
        self.note_high_water();
        self.spare_down_to(chunk);
        true
    }

    /// Empties the arena and keeps all chunks.
    ///
    /// # Safety
    ///
    /// No block that was allocated is used again.
    #[inline]
    pub(super) unsafe fn clear(&self) {
        if !Chunk::is_same(self.current.get(), self.start.get()) {
            self.restart();
        }
        // SAFETY: 1. `fresh` has all bytes of a chunk of this arena, or of its buffer. 2. As the
        // caller says.
        unsafe { self.bump.restore_by_words(&self.fresh) };
    }

    /// Makes all chunks spare except the newest, which becomes the start chunk. The newest chunk is
    /// usually the largest: a container that once grew to that size can grow to it again without a
    /// copy. If the arena has a buffer, the newest chunk becomes spare too.
    #[cold]
    #[inline(never)]
    fn restart(&self) {
        self.note_high_water();
        let newest = self.current.get().filter(|_| !self.has_buffer());
        if let Some(newest) = newest {
            self.current.set(newest.next());
        }
        self.spare_down_to(None);
        if let Some(newest) = newest {
            newest.set_next(None);
            self.begin_in(newest);
        }
    }

    /// Makes `chunk`, which is empty, the only chunk that is not spare.
    #[inline]
    pub(super) fn begin_in(&self, chunk: Chunk) {
        chunk.set_up_to(UpTo { held: chunk.bytes(), filled: chunk.space().1 });
        // SAFETY: 1. The bytes are all of a chunk of this arena. 2. The chunk is empty, as the
        // caller says.
        unsafe { self.fresh.restore(&Self::whole(chunk)) };
        self.start.set(Some(chunk));
        self.current.set(Some(chunk));
    }

    /// Makes the arena, which has no chunk yet, start in a buffer.
    ///
    /// # Safety
    ///
    /// The bytes are valid for reads and writes as long as the arena lives, and only the arena uses
    /// them.
    #[inline]
    pub(super) unsafe fn begin_in_buffer(&self, buffer: NonNull<[u8]>) {
        // A chunk may end where the buffer begins, and the buffer has no header. Without a gap a
        // block at the end of the chunk would be adjacent to the free bytes of the buffer.
        let Some(len) = buffer.len().checked_sub(1) else { return };
        if !is_usable(buffer.addr().get() + 1, len) {
            // The arena starts in a chunk instead.
            return;
        }
        // SAFETY: the offset is at most the length.
        let start = unsafe { buffer.cast::<u8>().add(1) };
        // SAFETY: 1 and 2. As the caller says.
        unsafe { self.fresh.enter(start, len) };
        // SAFETY: 1. As above. 2. No block was allocated yet.
        unsafe { self.bump.restore(&self.fresh) };
    }

    /// Returns whether the arena starts in a buffer.
    #[inline]
    fn has_buffer(&self) -> bool {
        self.start.get().is_none() && !self.fresh.is_nowhere()
    }

    /// Returns the bytes of the buffer for blocks, if there is one.
    #[inline]
    fn buffer(&self) -> Option<(NonNull<u8>, usize)> {
        self.has_buffer().then(|| self.fresh.range())
    }

    /// Returns the free bytes of the current chunk.
    pub(super) fn free(&self) -> usize {
        self.bump.free()
    }

    /// Grows `block` and keeps its contents. The newest block is adjacent to the free bytes and
    /// takes some of them; any other block is copied.
    ///
    /// # Errors
    ///
    /// The same as for [`alloc`](Self::alloc). The block is unchanged then.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated for `old`, and the arena was not rewound to a point before it.
    /// 2. `block` is not used again, unless this call fails.
    /// 3. `new.size() >= old.size()`.
    // A call costs less than the registers that an inlined body takes from the loop that grows a
    // container.
    #[inline(never)]
    pub(super) unsafe fn grow<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        #[cfg(debug_assertions)]
        self.check_block(block, old);
        // SAFETY: 1 to 3. A block of this arena that is adjacent to the free bytes is in the same
        // chunk as these bytes, or in the home if they are (the invariants).
        unsafe { resize::grow(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Shrinks `block` and keeps the beginning of its contents. If it is the newest block, the
    /// other bytes become free.
    ///
    /// # Errors
    ///
    /// The same as for [`alloc`](Self::alloc). This fails only if `block` does not have the new
    /// alignment.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated for `old`, and the arena was not rewound to a point before it.
    /// 2. `block` is not used again, unless this call fails.
    /// 3. `new.size() <= old.size()`.
    #[inline]
    pub(super) unsafe fn shrink<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        #[cfg(debug_assertions)]
        self.check_block(block, old);
        // SAFETY: as in `grow`.
        unsafe { resize::shrink(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Frees `block` if it is the newest. Any other block stays until the arena rewinds.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated for `layout`, and the arena was not rewound to a point before it.
    /// 2. `block` is not used again.
    #[inline]
    pub(super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(debug_assertions)]
        self.check_block(block, layout);
        // SAFETY: 1 and 2, and as in `grow`.
        unsafe { resize::free(&self.bump, block, layout) };
    }
}
