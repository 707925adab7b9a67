//! Macros that several modules share.

/// Makes a type that is an [`Allocator`](crate::allocator::Allocator) one of `allocator_api2` too, in
/// the versions that are enabled. Every method is forwarded: a container whose `grow` is not loses
/// growth in place.
macro_rules! forward_to_allocator_api2 {
    (impl[$($generics:tt)*] for $type:ty) => {
        #[cfg(feature = "allocator-api2-02")]
        $crate::macros::forward_to_allocator_api2!(
            @version allocator_api2_02, [$($generics)*], $type
        );
        #[cfg(feature = "allocator-api2-04")]
        $crate::macros::forward_to_allocator_api2!(
            @version allocator_api2_04, [$($generics)*], $type
        );
    };

    (@version $api:ident, [$($generics:tt)*], $type:ty) => {
        // SAFETY: the contract is the same one in the same words, and every method is this crate's.
        unsafe impl<$($generics)*> ::$api::alloc::Allocator for $type {
            #[inline]
            fn allocate(
                &self,
                layout: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, ::$api::alloc::AllocError> {
                $crate::allocator::Allocator::allocate(self, layout)
                    .map_err(|_| ::$api::alloc::AllocError)
            }

            #[inline]
            fn allocate_zeroed(
                &self,
                layout: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, ::$api::alloc::AllocError> {
                $crate::allocator::Allocator::allocate_zeroed(self, layout)
                    .map_err(|_| ::$api::alloc::AllocError)
            }

            #[inline]
            unsafe fn deallocate(
                &self,
                block: ::core::ptr::NonNull<u8>,
                layout: ::core::alloc::Layout,
            ) {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::deallocate(self, block, layout) }
            }

            #[inline]
            unsafe fn grow(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, ::$api::alloc::AllocError> {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::grow(self, block, old, new) }
                    .map_err(|_| ::$api::alloc::AllocError)
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, ::$api::alloc::AllocError> {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::grow_zeroed(self, block, old, new) }
                    .map_err(|_| ::$api::alloc::AllocError)
            }

            #[inline]
            unsafe fn shrink(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, ::$api::alloc::AllocError> {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::shrink(self, block, old, new) }
                    .map_err(|_| ::$api::alloc::AllocError)
            }
        }
    };
}
pub(crate) use forward_to_allocator_api2;
