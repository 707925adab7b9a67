//! Blocks that grow, shrink and go, where they are or as copies.
//!
//! All that counts is whether a block borders on the free bytes of the bump pointer at hand: whoever
//! gives such a block up extends them, whichever pointer once gave it out.

use crate::{
    allocator::bump::{Direction, RawBump, empty},
    core::AllocationError,
};
use core::{alloc::Layout, ptr::NonNull};

/// A larger block in the place of `block`, with its contents.
///
/// # Safety
///
/// 1. `block` is in use, as a block of `old` of the same arena as `bump`, so that one that borders on
///    the free bytes of `bump` is one that it is valid for.
/// 2. Unless this fails it is not used again.
/// 3. `new.size() >= old.size()`.
/// 4. `alloc` returns blocks of the layout asked for that overlap no other.
#[inline(always)]
pub(super) unsafe fn grow<D: Direction, const MIN_ALIGN: usize>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocationError>,
) -> Result<NonNull<u8>, AllocationError> {
    debug_assert!(new.size() >= old.size(), "grow to a smaller size");
    if old.size() > 0 && bump.is_newest(block, old.size()) {
        // SAFETY: 1, 2, just checked, and sizes that are not zero.
        if let Some(grown) = unsafe { bump.resize_newest(block, old, new) } {
            return Ok(grown);
        }
    }
    let target = alloc(new)?;
    // SAFETY: two blocks that are in use do not overlap (4); both are valid for the old size.
    unsafe { block.copy_to_nonoverlapping(target, old.size()) };
    Ok(target)
}

/// A smaller block in the place of `block`, with the beginning of its contents.
///
/// # Safety
///
/// As for [`grow`], but 3. `new.size() <= old.size()`.
#[inline(always)]
pub(super) unsafe fn shrink<D: Direction, const MIN_ALIGN: usize>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocationError>,
) -> Result<NonNull<u8>, AllocationError> {
    debug_assert!(new.size() <= old.size(), "shrink to a larger size");
    if new.size() == 0 {
        // SAFETY: 1 and 2.
        unsafe { free(bump, block, old) };
        return Ok(empty(new));
    }
    if bump.is_newest(block, old.size()) {
        // SAFETY: 1, 2, just checked, and sizes that are not zero.
        if let Some(shrunk) = unsafe { bump.resize_newest(block, old, new) } {
            return Ok(shrunk);
        }
    }
    if block.addr().get().is_multiple_of(new.align()) {
        return Ok(block);
    }
    let target = alloc(new)?;
    // SAFETY: two blocks that are in use do not overlap (4); both are valid for the new size.
    unsafe { block.copy_to_nonoverlapping(target, new.size()) };
    Ok(target)
}

/// Takes back a block that borders on the free bytes; any other stays as it is.
///
/// # Safety
///
/// 1. As for [`grow`].
/// 2. The block is not used again.
#[inline(always)]
pub(super) unsafe fn free<D: Direction, const MIN_ALIGN: usize>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    layout: Layout,
) {
    if layout.size() > 0 && bump.is_newest(block, layout.size()) {
        // SAFETY: 1, 2, and just checked.
        unsafe { bump.free_newest(block, layout.size()) };
    }
}
