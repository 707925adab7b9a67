//! Arenas as allocators, for containers that live in them.

use super::{Arena, Scope};
use crate::{
    allocator::{AllocError, Allocator, bump::Direction},
    macros::forward_to_allocator_api2,
};
use core::{alloc::Layout, ptr::NonNull};

fn sized(
    block: Result<NonNull<u8>, crate::core::AllocationError>,
    size: usize,
) -> Result<NonNull<[u8]>, AllocError> {
    match block {
        Ok(block) => Ok(NonNull::slice_from_raw_parts(block, size)),
        Err(_) => Err(AllocError),
    }
}

/// Writes the methods over `self.raw`.
macro_rules! allocate_in_the_arena {
    ($type:ty) => {
        // SAFETY: blocks come from chunks that the arena keeps until it goes back to before them,
        // for which it is borrowed uniquely, so that no reference to it is left, copies included.
        // They are disjoint, aligned and long enough, as `RawArena`'s methods say, none of which
        // unwinds: a base allocator and managers that are asked to give memory up may not.
        unsafe impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Allocator for $type {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                sized(self.raw.alloc(layout), layout.size())
            }

            #[inline]
            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promises: the block is allocated here, and unused from now on.
                unsafe { self.raw.free_block(block, layout) }
            }

            #[inline]
            unsafe fn grow(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promises.
                sized(unsafe { self.raw.grow(block, old, new) }, new.size())
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promises.
                let grown = unsafe { self.grow(block, old, new) }?;
                // SAFETY: the offset lies within the block.
                let rest = unsafe { grown.cast::<u8>().add(old.size()) };
                // SAFETY: the block is valid for writes up to its end.
                unsafe { rest.write_bytes(0, new.size() - old.size()) };
                Ok(grown)
            }

            #[inline]
            unsafe fn shrink(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promises.
                sized(unsafe { self.raw.shrink(block, old, new) }, new.size())
            }
        }

        forward_to_allocator_api2!(
            impl[A: Allocator, D: Direction, const MIN_ALIGN: usize] for $type
        );
    };
}

allocate_in_the_arena!(&Arena<A, D, MIN_ALIGN>);
allocate_in_the_arena!(&Scope<'_, A, D, MIN_ALIGN>);
