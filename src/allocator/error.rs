//! The error of allocators.

#[cfg(nebula_std_allocator)]
pub use core::alloc::AllocError;

/// The error of an allocator that has no memory for a layout, or does not support the layout.
///
/// It is like the unstable error of the same name in the standard library. It has no data, so that the
/// hot path returns a single word.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::{AllocError, Allocator, SystemAllocator};
///
/// let too_much = Layout::array::<u8>(isize::MAX as usize)?;
/// assert_eq!(SystemAllocator.allocate(too_much), Err(AllocError));
/// # Ok::<(), core::alloc::LayoutError>(())
/// ```
#[cfg(not(nebula_std_allocator))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the allocator has no memory for this layout")]
pub struct AllocError;
