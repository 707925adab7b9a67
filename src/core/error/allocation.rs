use crate::core::{error::Refused, types::human};
use core::fmt;

/// The error of an allocation, in allocators, arenas and pools.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::{AllocationError, Exhausted};
///
/// let error = AllocationError::from(Exhausted::new("frame stack", 8192, Some(4096)));
/// assert!(error.is_retryable());
/// assert_eq!(error.to_string(), "frame stack cannot give 8.0 KiB: 4.0 KiB left");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// The component's budget refused the request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The underlying allocator, or the component's own bound, has too little left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The size does not fit the address space.
    #[error(transparent)]
    CapacityOverflow(#[from] CapacityOverflow),
}

impl AllocationError {
    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Exhausted(error) => error.code(),
            Self::CapacityOverflow(error) => error.code(),
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Exhausted(error) => error.is_retryable(),
            Self::CapacityOverflow(error) => error.is_retryable(),
        }
    }
}

/// The error of a component that has too little left.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::Exhausted;
///
/// let error = Exhausted::new("arena", 4096, Some(100));
/// assert_eq!(error.to_string(), "arena cannot give 4.0 KiB: 100 B left");
/// assert_eq!(error.code(), "MEM:ALLOC:EXHAUSTED");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Exhausted {
    /// The component that failed.
    pub component: &'static str,
    /// The requested bytes.
    pub requested: usize,
    /// The bytes that were left, if the component knows.
    pub available: Option<usize>,
}

impl Exhausted {
    /// Makes the error of `component`, which had `available` of `requested` bytes.
    #[must_use]
    pub const fn new(component: &'static str, requested: usize, available: Option<usize>) -> Self {
        Self { component, requested, available }
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:ALLOC:EXHAUSTED"
    }

    /// Returns `true`: memory may be freed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        true
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot give {}", self.component, human(self.requested))?;
        match self.available {
            Some(available) => write!(f, ": {} left", human(available)),
            None => Ok(()),
        }
    }
}

/// The error for a size above `isize::MAX`, the largest size of one object.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::CapacityOverflow;
///
/// let error = CapacityOverflow::new("arena", usize::MAX, 8);
/// assert_eq!(error.code(), "MEM:ALLOC:CAPACITY_OVERFLOW");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{component}: {count} × {size} bytes exceed the {} bytes of the largest object",
    isize::MAX
)]
#[non_exhaustive]
pub struct CapacityOverflow {
    /// The component that failed.
    pub component: &'static str,
    /// The number of requested elements.
    pub count: usize,
    /// The bytes of one element.
    pub size: usize,
}

impl CapacityOverflow {
    /// Makes the error of `component` for `count` elements of `size` bytes.
    #[must_use]
    pub const fn new(component: &'static str, count: usize, size: usize) -> Self {
        Self { component, count, size }
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:ALLOC:CAPACITY_OVERFLOW"
    }

    /// Returns `false`: the request can never succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
