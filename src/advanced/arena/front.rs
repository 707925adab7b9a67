//! The free bytes of an arena as a value.

use super::{
    raw::{Failure, OrFail as _, RawArena},
    resize,
    values::blocks_of,
};
use crate::{
    allocator::{
        Allocator,
        bump::{Direction, Overdrawn, RawBump},
    },
    core::AllocationError,
};
use core::{alloc::Layout, ptr::NonNull};

/// Bytes of a value for which the rest of a chunk is given up.
const SMALL: usize = 256;

/// What a scope cuts its blocks from: the arena's free bytes, in registers as long as nobody takes the
/// scope's address, where the arena would load and store them for every value.
///
/// # Invariants
///
/// `bump` is of chunks of `raw`, as [`RawArena`] says of its own, from which nobody cuts blocks as long
/// as the front is used.
pub(super) struct Front<'r, A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    pub(super) bump: RawBump<D, MIN_ALIGN>,
    pub(super) raw: &'r RawArena<A, D, MIN_ALIGN>,
}

impl<'r, A: Allocator, D: Direction, const MIN_ALIGN: usize> Front<'r, A, D, MIN_ALIGN> {
    /// # Safety
    ///
    /// 1. `bump` is `raw`'s own, or that of another front of it.
    /// 2. Until the result is dropped, or what comes of it [goes back](Self::give_back), blocks are
    ///    cut from it alone.
    #[inline]
    pub(super) unsafe fn new(
        raw: &'r RawArena<A, D, MIN_ALIGN>,
        bump: &RawBump<D, MIN_ALIGN>,
    ) -> Self {
        Self { bump: bump.copy(), raw }
    }

    /// Makes what is left the arena's own free bytes again.
    #[inline]
    pub(super) fn give_back(&self) {
        if !self.bump.is_nowhere() {
            // SAFETY: 1 and 2. The invariants.
            unsafe { self.raw.bump.restore(&self.bump) };
        }
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if let Some(block) = self.bump.alloc(layout) {
            return Ok(block);
        }
        // Nothing is left here if there is a panic.
        let (block, bump) = self.raw.alloc_behind(self.bump.take(), layout);
        // SAFETY: 1 and 2. They are the arena's free bytes, which it does not use meanwhile.
        unsafe { self.bump.restore(&bump) };
        block
    }

    #[inline(always)]
    #[track_caller]
    fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        let layout = Layout::new::<T>();
        if layout.size() > SMALL || layout.size() == 0 {
            // Perhaps in a chunk of its own, or in none.
            return Ok(self.alloc(layout)?.cast());
        }
        loop {
            match self.bump.overdraw() {
                Ok(block) => return Ok(block),
                // To do it again leaves one place for the block to come from.
                Err(overdrawn) => {
                    let (room, bump) = self.raw.refill(self.bump.take(), overdrawn, layout);
                    // SAFETY: as in `alloc`.
                    unsafe { self.bump.restore(&bump) };
                    room?;
                }
            }
        }
    }

    /// As [`RawArena::free`].
    pub(super) fn free(&self) -> usize {
        self.bump.free()
    }

    /// As [`RawArena::reserve`].
    #[track_caller]
    pub(super) fn reserve<E: Failure>(&self, bytes: usize) -> Result<(), E> {
        if bytes <= self.bump.free() {
            return Ok(());
        }
        let layout = RawArena::<A, D, MIN_ALIGN>::room_for(bytes).or_fail()?;
        let (room, bump) = self.raw.refill(self.bump.take(), Overdrawn::NONE, layout);
        // SAFETY: as in `alloc`.
        unsafe { self.bump.restore(&bump) };
        room
    }

    /// # Safety
    ///
    /// As [`RawArena::grow`].
    #[inline]
    pub(super) unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, old);
        // SAFETY: as in `RawArena::grow`.
        unsafe { resize::grow(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// # Safety
    ///
    /// As [`RawArena::shrink`].
    #[inline]
    pub(super) unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, old);
        // SAFETY: as in `RawArena::shrink`.
        unsafe { resize::shrink(&self.bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// # Safety
    ///
    /// As [`RawArena::free_block`].
    #[inline]
    pub(super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        #[cfg(debug_assertions)]
        self.raw.check_block(block, layout);
        // SAFETY: as in `RawArena::free_block`.
        unsafe { resize::free(&self.bump, block, layout) };
    }
}

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for Front<'b, A, D, MIN_ALIGN> as Front of Front<'b, A, D, MIN_ALIGN>
);
