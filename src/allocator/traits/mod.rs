//! The trait of all allocators, and values that are allocated with it.

#[cfg(not(nebula_std_allocator))]
mod allocator;
mod boxed;
mod typed;

// The standard library's trait, on a compiler that has it: `ci/std_allocator.sh`.
#[cfg(nebula_std_allocator)]
pub use core::alloc::Allocator;

#[cfg(not(nebula_std_allocator))]
pub use self::allocator::Allocator;
pub use self::{boxed::AllocBox, typed::TypedAllocator};

use crate::allocator::AllocError;
use core::{alloc::Layout, ptr::NonNull};

/// Allocates a block for `new`, copies the bytes that both blocks have room for, and frees `block`.
/// On an error `block` is unchanged.
///
/// # Safety
///
/// 1. `block` is currently allocated by `allocator`.
/// 2. `old` fits the block.
pub(in crate::allocator) unsafe fn move_to_new<A: Allocator + ?Sized>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    let target = allocator.allocate(new)?;
    // SAFETY: 1 is the caller's 1 and 2; 2, `target` is another block; 3, no more bytes than either
    // has.
    unsafe { relocate(allocator, block, old, target, old.size().min(new.size())) };
    Ok(target)
}

/// Implements [`Allocator::grow_zeroed`] with the allocator's own `grow`.
///
/// # Safety
///
/// As [`Allocator::grow`].
#[inline]
pub(crate) unsafe fn grow_then_zero<A: Allocator + ?Sized>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    // SAFETY: the caller's promises.
    let grown = unsafe { allocator.grow(block, old, new) }?;
    // SAFETY: the offset lies within the block, which is no shorter than the old one.
    let rest = unsafe { grown.cast::<u8>().add(old.size()) };
    // SAFETY: the block is valid for writes up to its end.
    unsafe { rest.write_bytes(0, grown.len() - old.size()) };
    Ok(grown)
}

/// Copies the first `len` bytes of `block` to `target`, and frees `block`.
///
/// # Safety
///
/// 1. `block` is currently allocated by `allocator` and `old` fits it.
/// 2. `target` is another block that is currently allocated.
/// 3. `len` is at most the length of either block.
pub(in crate::allocator) unsafe fn relocate<A: Allocator + ?Sized>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    target: NonNull<[u8]>,
    len: usize,
) {
    // SAFETY: both are valid for `len` bytes (1 to 3) and disjoint, being two allocated blocks.
    unsafe { block.copy_to_nonoverlapping(target.cast(), len) };
    // SAFETY: `deallocate` asks for 1.
    unsafe { allocator.deallocate(block, old) };
}
