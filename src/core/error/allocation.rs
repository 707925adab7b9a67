use crate::core::{error::Refused, types::human};

/// The error of an allocation, in allocators, arenas and pools.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::AllocationError;
///
/// let error = AllocationError::Exhausted {
///     component: "frame stack",
///     requested: 8192,
///     available: Some(4096),
/// };
/// assert!(error.is_retryable());
/// assert_eq!(error.to_string(), "frame stack cannot give 8.0 KiB: 4.0 KiB left");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// The component's budget refused the request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The underlying allocator, or the component within its own bound, has too few bytes left.
    #[error("{component} cannot give {}{}", human(*requested), Left(*available))]
    Exhausted {
        /// The component that failed.
        component: &'static str,
        /// The requested bytes.
        requested: usize,
        /// The bytes that were left, if the component knows.
        available: Option<usize>,
    },
    /// The size exceeds `isize::MAX`, the largest size of one object.
    #[error(
        "{component}: {count} × {} exceed the {} of the largest object",
        human(*size),
        human(isize::MAX.unsigned_abs())
    )]
    CapacityOverflow {
        /// The component that failed.
        component: &'static str,
        /// The number of requested elements.
        count: usize,
        /// The bytes of one element.
        size: usize,
    },
}

impl AllocationError {
    /// Makes the error of `component`, which had `available` of `requested` bytes.
    pub(crate) const fn exhausted(
        component: &'static str,
        requested: usize,
        available: Option<usize>,
    ) -> Self {
        Self::Exhausted { component, requested, available }
    }

    /// Makes the error of `component` for `count` elements of `size` bytes.
    pub(crate) const fn capacity_overflow(
        component: &'static str,
        count: usize,
        size: usize,
    ) -> Self {
        Self::CapacityOverflow { component, count, size }
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Exhausted { .. } => "MEM:ALLOC:EXHAUSTED",
            Self::CapacityOverflow { .. } => "MEM:ALLOC:CAPACITY_OVERFLOW",
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller. `false` for a size that exceeds
    /// the largest object.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Exhausted { .. } => true,
            Self::CapacityOverflow { .. } => false,
        }
    }
}

/// Prints the bytes that were left, if the number is known.
struct Left(Option<usize>);

impl core::fmt::Display for Left {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |available| write!(f, ": {} left", human(available)))
    }
}
