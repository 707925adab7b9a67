//! Arenas as allocators, for containers that keep their elements in an arena.

use super::{Arena, Scope, raw::Failure};
use crate::{
    allocator::{AllocError, Allocator, bump::Direction},
    core::AllocationError,
};
use core::ptr::NonNull;

/// Drops the reason of a failure. A result with this error fits in a register.
impl Failure for AllocError {
    #[inline(always)]
    fn of(_: AllocationError) -> Self {
        Self
    }
}

#[inline]
pub(super) fn sized(
    block: Result<NonNull<u8>, AllocError>,
    size: usize,
) -> Result<NonNull<[u8]>, AllocError> {
    Ok(NonNull::slice_from_raw_parts(block?, size))
}

/// Implements `Allocator` over `self.raw`, and the traits of `allocator_api2`.
macro_rules! allocate_in_the_arena {
    ($type:ty) => {
        $crate::macros::forward_to_allocator_api2!(
            impl[A: Allocator, D: Direction, const MIN_ALIGN: usize] for $type
        );

        // SAFETY: blocks come from chunks. The arena keeps a chunk until it is rewound to a point
        // before the block. For that it is borrowed uniquely, so that no reference to it is left,
        // copies included, nor any other share of it. Blocks are disjoint, aligned and long enough,
        // as the methods of the raw arenas say. None of these methods unwinds: base allocators, and
        // managers that are asked to give memory up, must not unwind.
        unsafe impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Allocator for $type {
            #[inline]
            fn allocate(&self, layout: ::core::alloc::Layout) -> Result<::core::ptr::NonNull<[u8]>, $crate::allocator::AllocError> {
                $crate::advanced::arena::as_allocator::sized(self.raw.alloc(layout), layout.size())
            }

            #[inline]
            unsafe fn deallocate(&self, block: ::core::ptr::NonNull<u8>, layout: ::core::alloc::Layout) {
                // SAFETY: the caller's promises: the block was allocated here, and is not used from
                // now on.
                unsafe { self.raw.free_block(block, layout) }
            }

            #[inline]
            unsafe fn grow(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $crate::allocator::AllocError> {
                // SAFETY: the caller's promises.
                $crate::advanced::arena::as_allocator::sized(unsafe { self.raw.grow(block, old, new) }, new.size())
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $crate::allocator::AllocError> {
                // SAFETY: the caller's promises.
                unsafe { $crate::allocator::grow_then_zero(self, block, old, new) }
            }

            #[inline]
            unsafe fn shrink(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $crate::allocator::AllocError> {
                // SAFETY: the caller's promises.
                $crate::advanced::arena::as_allocator::sized(unsafe { self.raw.shrink(block, old, new) }, new.size())
            }
        }
    };
}
#[cfg(feature = "std")]
pub(super) use allocate_in_the_arena;

allocate_in_the_arena!(&Arena<A, D, MIN_ALIGN>);
allocate_in_the_arena!(&Scope<'_, A, D, MIN_ALIGN>);
