//! The error of allocators.

use crate::core::error::Exhausted;
use core::alloc::Layout;

/// The error of an allocator that has no memory for a layout, or does not support the layout.
///
/// It carries no data, like the standard library's error of the same name, so the hot path returns
/// a single word. [`for_layout`](Self::for_layout) adds the allocator's name and the requested
/// size.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use nebula_memory::allocator::AllocError;
///
/// let error = AllocError.for_layout("frame stack", Layout::new::<[u64; 4]>());
/// assert_eq!(error.to_string(), "frame stack cannot give 32 B");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the allocator has no memory for this layout")]
pub struct AllocError;

impl AllocError {
    /// Converts this error into one that names `component` and the requested size.
    #[must_use]
    pub const fn for_layout(self, component: &'static str, layout: Layout) -> Exhausted {
        Exhausted::new(component, layout.size(), None)
    }
}
