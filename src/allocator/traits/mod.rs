//! The contract of every allocator here.

mod boxed;
mod typed;

pub use self::{boxed::AllocBox, typed::TypedAllocator};

use crate::{allocator::AllocError, macros::forward_allocator};
use core::{alloc::Layout, ptr::NonNull};

/// Memory by [`Layout`], with the shape of the standard library's unstable trait of the same name.
///
/// A block is *currently allocated* by an allocator from the call that returned it until it is
/// passed to [`deallocate`](Self::deallocate), [`grow`](Self::grow) or [`shrink`](Self::shrink), or
/// the allocator and all its clones are gone. A layout *fits* a block if its alignment is the one
/// the block was asked with and its size lies between the size asked for and the size returned.
///
/// A request for zero bytes succeeds with a dangling, aligned pointer or a real block; either is
/// passed to `deallocate` like any other.
///
/// # Safety
///
/// - A returned block is valid for reads and writes of its length, aligned as its layout asks,
///   and disjoint from every other block that is currently allocated.
/// - It stays valid until it is deallocated or the allocator and all its clones are dropped;
///   moving or cloning the allocator does not invalidate it, and a clone behaves as the same
///   allocator.
/// - No method panics or unwinds.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::{Allocator, SystemAllocator};
///
/// let layout = Layout::new::<[u64; 4]>();
/// let block = SystemAllocator.allocate(layout)?;
/// assert!(block.len() >= 32);
/// // SAFETY: the block is currently allocated by this allocator and the layout fits it.
/// unsafe { SystemAllocator.deallocate(block.cast(), layout) };
/// # Ok::<(), nebula_memory::allocator::AllocError>(())
/// ```
pub unsafe trait Allocator {
    /// A block of at least `layout.size()` bytes, not initialised.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where there is no memory or the layout is not supported.
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError>;

    /// A block of at least `layout.size()` bytes, every one of them zero.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = self.allocate(layout)?;
        // SAFETY: the block is valid for writes of its whole length, and bytes need no alignment.
        unsafe { block.cast::<u8>().write_bytes(0, block.len()) };
        Ok(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `layout` fits it.
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout);

    /// A block of at least `new.size()` bytes that begins with the old block's first `old.size()`
    /// bytes; the rest is not initialised. The old block is no longer allocated, wherever the new
    /// one lies. On an error it still is, unchanged.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `old` fits it.
    /// 3. `new.size() >= old.size()`. The alignments may differ.
    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        // SAFETY: the caller's 1 and 2.
        unsafe { move_to_new(self, block, old, new) }
    }

    /// As [`grow`](Self::grow), with every byte from `old.size()` on zero.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Safety
    ///
    /// As [`grow`](Self::grow).
    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        let target = self.allocate_zeroed(new)?;
        // SAFETY: the caller's 1 to 3 are `relocate`'s, with `old.size()` within both blocks.
        unsafe { relocate(self, block, old, target, old.size()) };
        Ok(target)
    }

    /// A block of at least `new.size()` bytes that begins with the old block's first `new.size()`
    /// bytes. The old block is no longer allocated, wherever the new one lies. On an error it still
    /// is, unchanged.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `old` fits it.
    /// 3. `new.size() <= old.size()`. The alignments may differ.
    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        // SAFETY: the caller's 1 and 2.
        unsafe { move_to_new(self, block, old, new) }
    }

    /// Bytes beside the blocks, which an arena that owns the allocator begins in; none by default.
    ///
    /// They are valid for reads and writes as long as the allocator is not dropped, and whoever owns
    /// it has them to himself: an allocator that has any is not cloned.
    #[doc(hidden)]
    #[inline]
    fn home(&self) -> Option<NonNull<[u8]>> {
        None
    }

    /// The allocator by reference, for adapters that take one by value.
    fn by_ref(&self) -> &Self
    where
        Self: Sized,
    {
        self
    }
}

/// Another block for `new` in the place of `block`, with as many of its first bytes as both have. On an
/// error the old one is as it was.
///
/// # Safety
///
/// 1. `block` is currently allocated by `allocator`.
/// 2. `old` fits it.
pub(in crate::allocator) unsafe fn move_to_new<A: Allocator + ?Sized>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    let target = allocator.allocate(new)?;
    // SAFETY: 1 and 2, another block, and no more bytes than either has.
    unsafe { relocate(allocator, block, old, target, old.size().min(new.size())) };
    Ok(target)
}

/// As [`Allocator::grow_zeroed`], by the allocator's own `grow`.
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

/// Moves the first `len` bytes of `block` to `target` and deallocates `block`.
///
/// # Safety
///
/// 1. `block` is currently allocated by `allocator` and `old` fits it.
/// 2. `target` is another block that is currently allocated.
/// 3. `len` is at most the length of either.
pub(in crate::allocator) unsafe fn relocate<A: Allocator + ?Sized>(
    allocator: &A,
    block: NonNull<u8>,
    old: Layout,
    target: NonNull<[u8]>,
    len: usize,
) {
    // SAFETY: both are valid for `len` bytes (1 to 3) and disjoint, being two allocated blocks.
    unsafe { block.copy_to_nonoverlapping(target.cast(), len) };
    // SAFETY: 1 is what `deallocate` asks for.
    unsafe { allocator.deallocate(block, old) };
}

// A reference that is moved or copied refers to the same allocator, which outlives it.
forward_allocator!(impl[A: Allocator + ?Sized] for &A, |this| **this);

// The last clone takes the allocator with it.
#[cfg(feature = "alloc")]
forward_allocator!(impl[A: Allocator + ?Sized] for alloc::sync::Arc<A>, |this| **this);
