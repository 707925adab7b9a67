//! The free bytes of an arena as a value that can stay in registers.

use crate::advanced::arena::{
    raw::{Failure, OrFail as _, RawArena, resize},
    values::blocks_of,
};
use crate::allocator::{
    Allocator,
    bump::{Direction, Overdrawn, RawBump},
};
use core::{alloc::Layout, ptr::NonNull};

/// The largest value, in bytes, for which the rest of a full chunk is left unused. A larger value
/// may get a chunk of its own.
const SMALL: usize = 256;

/// The arena's free bytes, as held by a scope that allocates from them.
///
/// The compiler keeps this value in machine registers unless the address of the scope is taken. An arena, in
/// contrast, loads and stores its bump pointer for every value.
///
/// # Invariants
///
/// The free bytes of `bump` lie in a chunk of `raw`, as the invariants of [`RawArena`] require of
/// the arena's own. No other code allocates blocks from them while the registers are used.
pub(in super::super) struct Registers<'r, A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    pub(in super::super) bump: RawBump<D, MIN_ALIGN>,
    pub(in super::super) raw: &'r RawArena<A, D, MIN_ALIGN>,
}

impl<'r, A: Allocator, D: Direction, const MIN_ALIGN: usize> Registers<'r, A, D, MIN_ALIGN> {
    /// Takes a copy of the free bytes of `bump`.
    ///
    /// # Safety
    ///
    /// 1. `bump` is `raw`'s own, or that of other registers of `raw`.
    /// 2. Until the result is dropped, or its free bytes are [given back](Self::give_back), blocks
    ///    are allocated from the result alone.
    #[inline]
    pub(in super::super) unsafe fn new(
        raw: &'r RawArena<A, D, MIN_ALIGN>,
        bump: &RawBump<D, MIN_ALIGN>,
    ) -> Self {
        Self { bump: bump.copy(), raw }
    }

    /// Makes the remaining free bytes the arena's own again.
    #[inline]
    pub(in super::super) fn give_back(&self) {
        if !self.bump.is_nowhere() {
            // SAFETY: 1 and 2. By the invariants.
            unsafe { self.raw.bump.restore(&self.bump) };
        }
    }

    #[inline(always)]
    #[track_caller]
    pub(in super::super) fn alloc<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if let Some(block) = self.bump.alloc(layout) {
            return Ok(block);
        }
        // If the call panics, no free bytes are left here.
        let (block, bump) = self.raw.alloc_behind(self.bump.take(), layout);
        // SAFETY: 1 and 2. `bump` has the arena's free bytes, and the arena does not use them
        // meanwhile.
        unsafe { self.bump.restore(&bump) };
        block
    }

    #[inline(always)]
    #[track_caller]
    fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        let layout = Layout::new::<T>();
        if layout.size() > SMALL || layout.size() == 0 {
            // A large block may get a chunk of its own; a block of no bytes needs no chunk.
            return Ok(self.alloc(layout)?.cast());
        }
        loop {
            match self.bump.overdraw() {
                Ok(block) => return Ok(block),
                // A retry leaves one code path that produces the block.
                Err(overdrawn) => {
                    let (room, bump) = self.raw.refill(self.bump.take(), overdrawn, layout);
                    // SAFETY: as in `alloc`.
                    unsafe { self.bump.restore(&bump) };
                    room?;
                }
            }
        }
    }

    /// Returns the free bytes; see [`RawArena::free`].
    pub(in super::super) fn free(&self) -> usize {
        self.bump.free()
    }

    /// Reserves bytes; see [`RawArena::reserve`].
    #[track_caller]
    pub(in super::super) fn reserve<E: Failure>(&self, bytes: usize) -> Result<(), E> {
        if bytes <= self.bump.free() {
            return Ok(());
        }
        let layout = RawArena::<A, D, MIN_ALIGN>::room_for(bytes).or_fail()?;
        let (room, bump) = self.raw.refill(self.bump.take(), Overdrawn::NONE, layout);
        // SAFETY: as in `alloc`.
        unsafe { self.bump.restore(&bump) };
        room
    }

    /// Grows `block`; see [`RawArena::grow`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawArena::grow`].
    #[inline]
    pub(in super::super) unsafe fn grow<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, old);
        // SAFETY: as in `RawArena::grow`.
        unsafe { resize::grow(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Shrinks `block`; see [`RawArena::shrink`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawArena::shrink`].
    #[inline]
    pub(in super::super) unsafe fn shrink<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, old);
        // SAFETY: as in `RawArena::shrink`.
        unsafe { resize::shrink(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Frees `block` if it is the newest; see [`RawArena::free_block`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawArena::free_block`].
    #[inline]
    pub(in super::super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, layout);
        // SAFETY: as in `RawArena::free_block`.
        unsafe { resize::free(&self.bump, block, layout) };
    }
}

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for Registers<'b, A, D, MIN_ALIGN> as Registers of Registers<'b, A, D, MIN_ALIGN>, freed by free_block
);
