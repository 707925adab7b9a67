//! Growing, shrinking and freeing blocks of a shared arena.

use super::{lease::Cursor, raw::RawShared};
use crate::{
    advanced::arena::raw::{Failure, resize},
    allocator::{
        Allocator,
        bump::{Direction, RawBump},
    },
    utils::sync::lock,
};
use core::{alloc::Layout, ptr::NonNull};

/// The fewest bytes of a block that are used again after it has outgrown them.
const OUTGROWN_LEAST: usize = 1 << 10;

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawShared<A, D, MIN_ALIGN> {
    /// Grows `block` and keeps its contents. A block that is adjacent to the free bytes of the
    /// calling thread grows in place; any other block is copied.
    ///
    /// # Errors
    ///
    /// The same as for [`alloc`](Self::alloc). The block is unchanged then.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated by the arena for `old`, and the arena was not emptied since.
    /// 2. `block` is not used again, unless this call fails.
    /// 3. `new.size() >= old.size()`.
    #[inline]
    pub(super) unsafe fn grow<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        let nowhere = RawBump::nowhere();
        let bump = self.lease().map_or(&nowhere, |lease| lease.cursor.bump());
        // SAFETY: 1 to 3.
        unsafe { self.grow_beside(bump, block, [old, new], |layout| self.alloc(layout)) }
    }

    /// Shrinks `block` and keeps the beginning of its contents.
    ///
    /// # Errors
    ///
    /// The same as for [`alloc`](Self::alloc). This fails only if `block` does not have the new
    /// alignment.
    ///
    /// # Safety
    ///
    /// The same as for [`grow`](Self::grow), but 3. `new.size() <= old.size()`.
    #[inline]
    pub(super) unsafe fn shrink<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        let nowhere = RawBump::nowhere();
        let bump = self.lease().map_or(&nowhere, |lease| lease.cursor.bump());
        // SAFETY: as in `grow`.
        unsafe { resize::shrink(bump, block, old, new, |layout| self.alloc(layout)) }
    }

    /// Frees a block that is adjacent to the free bytes of the calling thread. Any other block
    /// stays until the arena is emptied.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated by the arena for `layout`, and the arena was not emptied since.
    /// 2. `block` is not used again.
    #[inline]
    pub(super) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        if let Some(lease) = self.lease() {
            // SAFETY: 1 and 2, and as in `grow`.
            unsafe { resize::free(lease.cursor.bump(), block, layout) };
        }
    }

    /// Frees a block wherever it lies.
    ///
    /// # Safety
    ///
    /// The same as for [`free_block`](Self::free_block).
    #[cold]
    pub(super) unsafe fn reclaim_block(&self, block: NonNull<u8>, layout: Layout) {
        let cursor = self.lease().map(|lease| &lease.cursor);
        // SAFETY: 1 and 2.
        unsafe { self.reclaim_beside(cursor, block, layout) };
    }

    /// Like [`reclaim_block`](Self::reclaim_block), with the cursor of the caller.
    ///
    /// # Safety
    ///
    /// The same as for [`free_block`](Self::free_block).
    pub(super) unsafe fn reclaim_beside(
        &self,
        cursor: Option<&Cursor<D, MIN_ALIGN>>,
        block: NonNull<u8>,
        layout: Layout,
    ) {
        let bump = cursor.map(Cursor::bump);
        if layout.size() == 0 {
        } else if let Some(bump) = bump.filter(|bump| bump.is_newest(block, layout.size())) {
            // SAFETY: 1 and 2, and as in `grow`.
            unsafe { resize::free(bump, block, layout) };
        } else {
            // SAFETY: 1 and 2.
            unsafe { lock(&self.store).reclaim(cursor, block, layout.size()) };
        }
    }

    /// Frees a block that was copied to a larger one, if it is the newest or its bytes are worth
    /// the lock.
    ///
    /// # Safety
    ///
    /// The same as for [`free_block`](Self::free_block). `bump` is the caller's.
    unsafe fn reclaim_outgrown(
        &self,
        bump: &RawBump<D, MIN_ALIGN>,
        block: NonNull<u8>,
        layout: Layout,
    ) {
        let size = layout.size();
        if size > 0 && bump.is_newest(block, size) {
            // SAFETY: 1 and 2, and as in `grow`.
            unsafe { resize::free(bump, block, layout) };
        } else if size >= OUTGROWN_LEAST {
            // SAFETY: 1 and 2.
            unsafe { lock(&self.store).keep_outgrown(block, size) };
        }
    }

    /// Like [`grow`](Self::grow), with the bump pointer of the caller, and blocks of `alloc`.
    ///
    /// # Safety
    ///
    /// The same as for [`grow`](Self::grow). `alloc` returns blocks of the arena.
    #[inline]
    pub(super) unsafe fn grow_beside<E>(
        &self,
        bump: &RawBump<D, MIN_ALIGN>,
        block: NonNull<u8>,
        [old, new]: [Layout; 2],
        alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, E>,
    ) -> Result<NonNull<u8>, E> {
        let mut is_copied = false;
        let alloc = |layout| {
            is_copied = true;
            alloc(layout)
        };
        // SAFETY: 1 to 3. A header lies between two chunks, so a block that is adjacent to the free
        // bytes lies in their chunk.
        let grown = unsafe { resize::grow(bump, block, old, new, alloc) }?;
        if is_copied {
            // SAFETY: 1 and 2.
            unsafe { self.reclaim_outgrown(bump, block, old) };
        }
        Ok(grown)
    }
}
