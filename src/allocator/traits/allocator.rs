//! A copy of the standard library's `Allocator` trait, which is not stable yet.

use super::{move_to_new, relocate};
use crate::{allocator::AllocError, macros::forward_allocator};
use core::{alloc::Layout, ptr::NonNull};

/// Allocates, resizes and frees blocks of memory by [`Layout`]. Its methods are those of the
/// standard library's unstable trait of the same name.
///
/// A block is *currently allocated* by an allocator from the call that returned it until it is
/// passed to [`deallocate`](Self::deallocate), [`grow`](Self::grow) or [`shrink`](Self::shrink), or
/// until the allocator and all its clones are dropped. A layout *fits* a block if its alignment is
/// the one that the block was requested with, and its size lies between the requested size and the
/// returned size.
///
/// A request for zero bytes succeeds. It returns a dangling, aligned pointer or a real block. The
/// caller passes either of them to `deallocate`, like any other block.
///
/// # Safety
///
/// - A returned block is valid for reads and writes of its length, is aligned as its layout asks,
///   and is disjoint from every other block that is currently allocated.
/// - The block stays valid until it is deallocated, or until the allocator and all its clones are
///   dropped. Moving or cloning the allocator does not invalidate the block. A clone behaves as the
///   same allocator.
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
    /// Allocates a block of at least `layout.size()` bytes. The bytes are not initialised.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if there is no memory, or if the allocator does not support the layout.
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError>;

    /// Allocates a block of at least `layout.size()` bytes. All bytes of the block are zero.
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

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `layout` fits the block.
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout);

    /// Makes a block larger. The new block has at least `new.size()` bytes, and begins with the
    /// first `old.size()` bytes of the old block. Its other bytes are not initialised.
    ///
    /// On success the old block is no longer allocated, even if the new block has the same address.
    /// On an error the old block is unchanged and still allocated.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `old` fits the block.
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

    /// Makes a block larger like [`grow`](Self::grow), and sets every byte from `old.size()` on to
    /// zero.
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
        // SAFETY: 1 is the caller's 1 and 2; 2, `target` was just allocated; 3, `old.size()` lies
        // within both blocks (the caller's 3).
        unsafe { relocate(self, block, old, target, old.size()) };
        Ok(target)
    }

    /// Makes a block smaller. The new block has at least `new.size()` bytes, and begins with the
    /// first `new.size()` bytes of the old block.
    ///
    /// On success the old block is no longer allocated, even if the new block has the same address.
    /// On an error the old block is unchanged and still allocated.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Safety
    ///
    /// 1. `block` is currently allocated by this allocator.
    /// 2. `old` fits the block.
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

    /// Returns a reference to the allocator, for adapters that take an allocator by value.
    fn by_ref(&self) -> &Self
    where
        Self: Sized,
    {
        self
    }
}

// A reference that is moved or copied refers to the same allocator, which outlives it.
forward_allocator!(impl[A: Allocator + ?Sized] for &A, |this| **this);

// All clones share one allocator, which the last clone drops.
#[cfg(feature = "alloc")]
forward_allocator!(impl[A: Allocator + ?Sized] for alloc::sync::Arc<A>, |this| **this);
