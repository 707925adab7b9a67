//! The bump pointer and the list of chunks, without types.

use super::{
    charge::Charge,
    chunk::{Chunk, UpTo},
    resize,
    sizing::{CHUNK_ALIGN, COMPONENT, Growth},
};
use crate::{
    allocator::{
        Allocator,
        bump::{Direction, Overdrawn, RawBump, empty},
    },
    core::{AllocationError, CapacityOverflow, Exhausted},
};
use core::{alloc::Layout, cell::Cell, ptr::NonNull};

/// # Invariants
///
/// - The chunks from `current` on, each the next of the one after it, have something in them or had;
///   those from `spare` on are empty; those from `lent` on are [lent](Self::lend_chunk), and are
///   together of `lent_bytes`. All are allocated by `base`, and of `held` bytes together, which
///   `charge` holds on the ledger (between calls; within [`try_chunk`](Self::try_chunk) both are
///   ahead).
/// - `fresh` is where an empty arena begins: all of the chunk `start`, which is the last one from
///   `current` on; or, where there is no such chunk, the base's [home](Allocator::home) without its
///   first byte, or nowhere.
/// - Between the bytes for blocks of two chunks, or of a chunk and the home, is a byte at least that is
///   in no block: of a header, or the home's first.
/// - The free bytes of `bump` are in a chunk from `current` on, or in the home, and no block was given
///   out of them. A [`Front`](super::front::Front) or a [`Cursor`](super::Cursor) has them meanwhile.
/// - The [`UpTo`] of all chunks from `current` on are right.
pub(super) struct RawArena<A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    pub(super) bump: RawBump<D, MIN_ALIGN>,
    pub(super) fresh: RawBump<D, MIN_ALIGN>,
    pub(super) current: Cell<Option<Chunk>>,
    pub(super) start: Cell<Option<Chunk>>,
    pub(super) spare: Cell<Option<Chunk>>,
    pub(super) held: Cell<usize>,
    pub(super) peak: Cell<usize>,
    pub(super) lent: Cell<Option<Chunk>>,
    pub(super) lent_bytes: Cell<usize>,
    /// The most bytes of chunks that something lay in at once, since the last trim to it.
    pub(super) high_water: Cell<usize>,
    pub(super) growth: Growth,
    pub(super) charge: Charge,
    pub(super) base: A,
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

/// `map_err(E::of)`, whose panic names the caller.
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

/// A place to go back to.
pub(super) struct Checkpoint<D: Direction, const MIN_ALIGN: usize> {
    chunk: Option<Chunk>,
    bump: RawBump<D, MIN_ALIGN>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// As most arenas are: on no budget.
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
        if self.base.home().is_some() {
            // One instruction more, but a difference of two places in one buffer is a constant.
            return Ok(self.alloc(Layout::new::<T>())?.cast());
        }
        match self.bump.alloc_sized() {
            Some(block) => Ok(block),
            None => Ok(self.alloc_in_next(Layout::new::<T>())?.cast()),
        }
    }

    /// A block from another chunk than the current one.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_in_next<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if let Some(block) = self.begin_with(layout) {
            return Ok(block);
        }
        self.alloc_in_other(layout).or_fail()
    }

    /// A block of `layout` that does not fit in `rest`, the arena's free bytes; and what they are then.
    ///
    /// They are passed by value: whoever takes no address of them has them in registers.
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

    /// Free bytes that a block of `layout` fits in, where `rest`, but for what is overdrawn, were too
    /// few; as [`alloc_behind`](Self::alloc_behind). The same `rest` where there is an error.
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

    /// As [`chunk_for`](Self::chunk_for), with `rest` the arena's free bytes afterwards, and nobody's
    /// until then: what is reclaimed for the chunk is foreign code, which may come back to this arena,
    /// and gets its bytes elsewhere.
    fn chunk_behind(
        &self,
        rest: &RawBump<D, MIN_ALIGN>,
        layout: Layout,
    ) -> Result<Chunk, AllocationError> {
        self.bump.leave();
        let chunk = self.chunk_for(layout);
        // SAFETY: 1. They are the arena's free bytes, as the caller says. 2. Nobody had them.
        unsafe { self.bump.restore(rest) };
        chunk
    }

    /// A block from a chunk that the arena has kept, if it fits, or from a new one.
    #[inline(never)]
    fn alloc_in_other(&self, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        self.alloc_in(self.chunk_for(layout)?, layout)
    }

    /// A block from `chunk`, which was made for it and becomes the current one.
    fn alloc_in(&self, chunk: Chunk, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        let no_more = Exhausted::new(COMPONENT, layout.size(), None);
        let (block, rest) = Self::cut(chunk, layout).ok_or(no_more)?;
        self.advance(chunk, &rest);
        Ok(block)
    }

    /// Makes sure that the next blocks, of `bytes` together with what their alignment costs, need no
    /// other chunk.
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

    /// What fits in a chunk that has so many bytes to reserve.
    pub(super) fn room_for(bytes: usize) -> Result<Layout, AllocationError> {
        let too_large = CapacityOverflow::new(COMPONENT, bytes, 1);
        Layout::from_size_align(bytes, CHUNK_ALIGN).map_err(|_| too_large.into())
    }

    /// A chunk in which nothing lies and a block of `layout` fits, for the arena to go on in.
    fn chunk_for(&self, layout: Layout) -> Result<Chunk, AllocationError> {
        self.take_spare(layout).map_or_else(|| self.add_chunk(layout), Ok)
    }

    /// Whether a block of `layout` fits in `chunk` when nothing lies in it.
    pub(super) fn fits(chunk: Chunk, layout: Layout) -> bool {
        Self::cut(chunk, layout).is_some()
    }

    /// All bytes of a chunk that nothing lies in.
    fn whole(chunk: Chunk) -> RawBump<D, MIN_ALIGN> {
        let bump = RawBump::nowhere();
        let (start, len) = chunk.space();
        // SAFETY: 1. The bytes are the chunk's for values, valid as long as the chunk is allocated.
        // Nobody else uses them: nothing lies in the chunk, and the caller makes the result the
        // arena's own free bytes, or only looks at it. 2. Chunks and headers are of whole units of
        // 16.
        unsafe { bump.enter_aligned(start, len) };
        bump
    }

    /// A block of `layout` from a chunk that nothing lies in, and what is left.
    fn cut(chunk: Chunk, layout: Layout) -> Option<(NonNull<u8>, RawBump<D, MIN_ALIGN>)> {
        let bump = Self::whole(chunk);
        Some((bump.alloc(layout)?, bump))
    }

    /// Makes `chunk` the current one, with `rest` left of it. Of what is left here and there the larger
    /// part is where blocks are cut from: a large block in a chunk of its own does not cost the rest of
    /// another.
    fn advance(&self, chunk: Chunk, rest: &RawBump<D, MIN_ALIGN>) {
        if rest.free() >= self.bump.free() {
            self.enter(chunk, rest);
        } else {
            self.make_current(chunk, self.filled() + chunk.space().1 - rest.free());
        }
    }

    /// As [`advance`](Self::advance), with blocks cut from `rest`.
    fn enter(&self, chunk: Chunk, rest: &RawBump<D, MIN_ALIGN>) {
        let filled = self.filled() + chunk.space().1 - rest.free();
        // SAFETY: 1. The rest of a chunk in which nothing else lies. 2. It is cut here alone.
        unsafe { self.bump.restore(rest) };
        self.make_current(chunk, filled);
    }

    /// `filled` is what blocks take then.
    fn make_current(&self, chunk: Chunk, filled: usize) {
        let held = self.current.get().map_or(0, |current| current.up_to().held) + chunk.bytes();
        chunk.set_up_to(UpTo { held, filled: filled + self.bump.free() });
        chunk.set_next(self.current.replace(Some(chunk)));
        self.note_high_water();
    }

    /// Bytes that blocks take, with what their alignment costs.
    pub(super) fn filled(&self) -> usize {
        let up_to = match self.current.get() {
            Some(current) => current.up_to().filled,
            None => self.fresh.free(),
        };
        up_to - self.bump.free()
    }

    /// Where the arena is now; `bump` has its free bytes.
    #[inline]
    pub(super) fn checkpoint(&self, bump: &RawBump<D, MIN_ALIGN>) -> Checkpoint<D, MIN_ALIGN> {
        Checkpoint { chunk: self.current.get(), bump: bump.copy() }
    }

    /// Goes back; the chunks that were added since are kept.
    ///
    /// # Safety
    ///
    /// 1. `to` is this arena's, and the arena has not gone back beyond it, nor been emptied, since.
    /// 2. No block that was given out since is used again, and no [`Cursor`](super::Cursor) either.
    #[inline]
    pub(super) unsafe fn rewind(&self, to: &Checkpoint<D, MIN_ALIGN>) {
        if !Chunk::is_same(to.chunk, self.current.get()) && !self.go_back_to(to.chunk) {
            return;
        }
        // SAFETY: 1. The free bytes were these when `to` was taken (1). 2. What was cut from them
        // since is unused (2).
        unsafe { self.bump.restore(&to.bump) };
    }

    /// Makes `chunk` the current one again. `false` where there was none, nor anything else: then the
    /// arena is empty, and begins in a chunk that it has by now.
    #[cold]
    #[inline(never)]
    fn go_back_to(&self, chunk: Option<Chunk>) -> bool {
        if chunk.is_none() && self.base.home().is_none() {
            // SAFETY: every block was given out since there was no chunk, and is unused, as the caller
            // of `rewind` says.
            unsafe { self.clear() };
            return false;
        }
        self.spare_down_to(chunk);
        true
    }

    /// Goes back to the beginning; all chunks are kept.
    ///
    /// # Safety
    ///
    /// No block that was given out is used again.
    #[inline]
    pub(super) unsafe fn clear(&self) {
        if !Chunk::is_same(self.current.get(), self.start.get()) {
            self.restart();
        }
        // SAFETY: 1. All bytes of a chunk of this arena, or of what it begins in. 2. As the caller
        // says.
        unsafe { self.bump.restore(&self.fresh) };
    }

    /// Puts aside all chunks but the newest, the largest as a rule, in which an empty arena begins:
    /// what has grown to that size once does so again without a copy.
    #[cold]
    #[inline(never)]
    fn restart(&self) {
        let newest = self.current.get().filter(|_| self.base.home().is_none());
        if let Some(newest) = newest {
            self.current.set(newest.next());
        }
        self.spare_down_to(None);
        if let Some(newest) = newest {
            newest.set_next(None);
            self.begin_in(newest);
        }
    }

    /// Makes `chunk`, in which nothing lies, the only one that is not spare.
    #[inline]
    pub(super) fn begin_in(&self, chunk: Chunk) {
        chunk.set_up_to(UpTo { held: chunk.bytes(), filled: chunk.space().1 });
        // SAFETY: 1. All bytes of a chunk of this arena. 2. It is empty, as the caller says.
        unsafe { self.fresh.restore(&Self::whole(chunk)) };
        self.start.set(Some(chunk));
        self.current.set(Some(chunk));
        self.note_high_water();
    }

    /// Begins in what the base allocator has for that. Only before there is any chunk.
    #[inline]
    pub(super) fn begin(&self) {
        let Some(home) = self.base.home() else { return };
        // A chunk may end where the home begins, as nobody's header lies between: without a gap a block at
        // the end of the one would border on free bytes of the other.
        let Some(len) = home.len().checked_sub(1) else { return };
        // SAFETY: the offset is at most the length.
        let start = unsafe { home.cast::<u8>().add(1) };
        // SAFETY: 1. Valid as long as the base. 2. The arena's, as the base is.
        unsafe { self.fresh.enter(start, len) };
        // SAFETY: 1. As above. 2. No block was given out.
        unsafe { self.bump.restore(&self.fresh) };
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
        #[cfg(debug_assertions)]
        self.check_block(block, old);
        // SAFETY: 1 to 3; a block of this arena's that borders on the free bytes is in their chunk, or in
        // the home as they are (the invariants).
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
        #[cfg(debug_assertions)]
        self.check_block(block, old);
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
        #[cfg(debug_assertions)]
        self.check_block(block, layout);
        // SAFETY: 1 and 2, and as in `grow`.
        unsafe { resize::free(&self.bump, block, layout) };
    }
}
