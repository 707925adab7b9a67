//! Macros that several modules share.

/// Makes a type that is an [`Allocator`](crate::allocator::Allocator) one of `allocator_api2` too, in
/// the versions that are enabled. Every method is forwarded: a container whose `grow` is not loses
/// growth in place.
macro_rules! forward_to_allocator_api2 {
    (impl[$($generics:tt)*] for $type:ty) => {
        #[cfg(feature = "allocator-api2-02")]
        $crate::macros::forward_allocator!(
            @trait ::allocator_api2_02::alloc::Allocator, ::allocator_api2_02::alloc::AllocError,
            [$($generics)*], $type, |this| *this
        );
        #[cfg(feature = "allocator-api2-04")]
        $crate::macros::forward_allocator!(
            @trait ::allocator_api2_04::alloc::Allocator, ::allocator_api2_04::alloc::AllocError,
            [$($generics)*], $type, |this| *this
        );
    };
}
pub(crate) use forward_to_allocator_api2;

/// Makes a type an [`Allocator`](crate::allocator::Allocator) by passing every call to another one,
/// which the expression finds. Whoever uses it says why that is the same one for as long as its
/// blocks live.
macro_rules! forward_allocator {
    (impl[$($generics:tt)*] for $type:ty, |$this:ident| $inner:expr) => {
        $crate::macros::forward_allocator!(
            @trait $crate::allocator::Allocator, $crate::allocator::AllocError,
            [$($generics)*], $type, |$this| $inner
        );
    };

    (
        @trait $trait:path, $error:path,
        [$($generics:tt)*], $type:ty, |$this:ident| $inner:expr
    ) => {
        // SAFETY: the contract of either trait is the same one in the same words, and every call is
        // passed on unchanged, to one allocator.
        unsafe impl<$($generics)*> $trait for $type {
            #[inline]
            fn allocate(
                &self,
                layout: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $error> {
                let $this = self;
                $crate::allocator::Allocator::allocate(&$inner, layout).map_err(|_| $error)
            }

            #[inline]
            fn allocate_zeroed(
                &self,
                layout: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $error> {
                let $this = self;
                $crate::allocator::Allocator::allocate_zeroed(&$inner, layout).map_err(|_| $error)
            }

            #[inline]
            unsafe fn deallocate(
                &self,
                block: ::core::ptr::NonNull<u8>,
                layout: ::core::alloc::Layout,
            ) {
                let $this = self;
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::deallocate(&$inner, block, layout) }
            }

            #[inline]
            unsafe fn grow(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $error> {
                let $this = self;
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::grow(&$inner, block, old, new) }
                    .map_err(|_| $error)
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $error> {
                let $this = self;
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::grow_zeroed(&$inner, block, old, new) }
                    .map_err(|_| $error)
            }

            #[inline]
            unsafe fn shrink(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<[u8]>, $error> {
                let $this = self;
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $crate::allocator::Allocator::shrink(&$inner, block, old, new) }
                    .map_err(|_| $error)
            }
        }
    };
}
pub(crate) use forward_allocator;
