//! Growing, shrinking and freeing blocks, in place or by copying.
//!
//! A block can be resized in place or freed if it is adjacent to the free bytes of the present bump
//! pointer. The block may have been allocated through another bump pointer.

use crate::{
    allocator::bump::{Direction, RawBump, empty},
    utils::align::is_aligned,
};
use core::{alloc::Layout, ptr::NonNull};

/// Grows `block` and keeps its contents.
///
/// # Safety
///
/// 1. `block` is in use, was allocated for `old`, and is of the same arena as `bump`. If it is
///    adjacent to the free bytes of `bump`, the pointer of `bump` is therefore valid for it.
/// 2. `block` is not used again, unless this call fails.
/// 3. `new.size() >= old.size()`.
/// 4. `alloc` returns blocks of the requested layout that overlap no other.
#[inline(always)]
pub(in super::super) unsafe fn grow<D: Direction, const MIN_ALIGN: usize, E>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, E>,
) -> Result<NonNull<u8>, E> {
    debug_assert!(new.size() >= old.size(), "grow to a smaller size");
    if old.size() > 0 && bump.is_newest(block, old.size()) {
        // SAFETY: 1 and 2, the check just above, and sizes that are not zero.
        if let Some(grown) = unsafe { bump.resize_newest(block, old, new) } {
            return Ok(grown);
        }
    }
    let target = alloc(new)?;
    // SAFETY: two blocks that are in use do not overlap (4); both are valid for the old size.
    unsafe { block.copy_to_nonoverlapping(target, old.size()) };
    Ok(target)
}

/// Shrinks `block` and keeps the beginning of its contents.
///
/// # Safety
///
/// The same as for [`grow`], but 3. `new.size() <= old.size()`.
#[inline(always)]
pub(in super::super) unsafe fn shrink<D: Direction, const MIN_ALIGN: usize, E>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, E>,
) -> Result<NonNull<u8>, E> {
    debug_assert!(new.size() <= old.size(), "shrink to a larger size");
    if new.size() == 0 {
        // SAFETY: 1 and 2.
        unsafe { free(bump, block, old) };
        return Ok(empty(new));
    }
    if bump.is_newest(block, old.size()) {
        // SAFETY: 1 and 2, the check just above, and sizes that are not zero.
        if let Some(shrunk) = unsafe { bump.resize_newest(block, old, new) } {
            return Ok(shrunk);
        }
    }
    if is_aligned(block.addr().get(), new) {
        return Ok(block);
    }
    let target = alloc(new)?;
    // SAFETY: two blocks that are in use do not overlap (4); both are valid for the new size.
    unsafe { block.copy_to_nonoverlapping(target, new.size()) };
    Ok(target)
}

/// Frees a block if it is adjacent to the free bytes. Any other block stays as it is.
///
/// # Safety
///
/// 1. The same as for [`grow`].
/// 2. The block is not used again.
#[inline(always)]
pub(in super::super) unsafe fn free<D: Direction, const MIN_ALIGN: usize>(
    bump: &RawBump<D, MIN_ALIGN>,
    block: NonNull<u8>,
    layout: Layout,
) {
    if layout.size() > 0 && bump.is_newest(block, layout.size()) {
        // SAFETY: 1 and 2, and the check just above.
        unsafe { bump.free_newest(block, layout.size()) };
    }
}
