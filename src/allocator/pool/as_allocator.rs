//! The `Allocator` implementation of pools, for every layout that fits a block.

use core::alloc::Layout;

/// Returns whether a block has room for `layout`.
#[inline(always)]
pub(super) const fn fits(block: Layout, layout: Layout) -> bool {
    layout.size() <= block.size() && layout.align() <= block.align()
}

/// Implements `Allocator` for references to a pool. The pool has `take_block`, `free_block` and
/// `block_layout`.
macro_rules! allocate_by_blocks {
    ($pool:ident, $whose:expr) => {
        // SAFETY: a block is cut from a slab that stays until the pool is dropped. It is handed out
        // again only after it was freed. Blocks are disjoint. Nothing unwinds, except for misuse
        // with debug assertions.
        unsafe impl<A: Allocator> Allocator for &$pool<A> {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                if layout.size() == 0 {
                    return Ok(NonNull::slice_from_raw_parts(empty(layout), 0));
                }
                if !fits(self.block_layout(), layout) {
                    return Err(AllocError);
                }
                Ok(NonNull::slice_from_raw_parts(self.take_block()?, self.block_layout().size()))
            }

            #[inline]
            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                if layout.size() > 0 {
                    check_layout($whose, layout, self.block_layout());
                    // SAFETY: the caller's promises; the size is not zero, so the block is one of a
                    // slab.
                    unsafe { self.free_block(block) };
                }
            }

            unsafe fn grow(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                debug_assert!(new.size() >= old.size(), "grow to a smaller size");
                if old.size() == 0 {
                    return self.allocate(new);
                }
                check_layout($whose, old, self.block_layout());
                if !fits(self.block_layout(), new) {
                    return Err(AllocError);
                }
                Ok(NonNull::slice_from_raw_parts(block, self.block_layout().size()))
            }

            unsafe fn grow_zeroed(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promises.
                unsafe { $crate::allocator::grow_then_zero(self, block, old, new) }
            }

            unsafe fn shrink(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                debug_assert!(new.size() <= old.size(), "shrink to a larger size");
                check_layout($whose, old, self.block_layout());
                if !fits(self.block_layout(), new) {
                    return Err(AllocError);
                }
                if new.size() == 0 {
                    // SAFETY: the caller's promises.
                    unsafe { self.deallocate(block, old) };
                    return self.allocate(new);
                }
                Ok(NonNull::slice_from_raw_parts(block, self.block_layout().size()))
            }
        }

        $crate::macros::forward_to_allocator_api2!(impl[A: Allocator] for &$pool<A>);
    };
}
pub(super) use allocate_by_blocks;
