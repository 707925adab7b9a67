//! The allocators' own error.

use crate::core::error::Exhausted;
use core::alloc::Layout;

/// An allocator has no memory for a layout, or does not support the layout.
///
/// The shape of the standard library's error of the same name: it carries nothing, so that the
/// hot path returns a single word. [`for_layout`](Self::for_layout) makes it say more.
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
    /// The same failure with what was asked and who was asked.
    #[must_use]
    pub const fn for_layout(self, component: &'static str, layout: Layout) -> Exhausted {
        Exhausted::new(component, layout.size(), None)
    }
}
