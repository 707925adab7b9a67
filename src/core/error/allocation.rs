use crate::core::{error::Refused, types::human};
use core::fmt;

/// Why a component could not get memory.
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
    /// The component's budget refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The allocator below, or the component's own bound, has no more to give.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The size does not fit the address space.
    #[error(transparent)]
    CapacityOverflow(#[from] CapacityOverflow),
}

impl AllocationError {
    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Exhausted(error) => error.code(),
            Self::CapacityOverflow(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Exhausted(error) => error.is_retryable(),
            Self::CapacityOverflow(error) => error.is_retryable(),
        }
    }
}

/// A component has no more to give.
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
    /// The component that said no.
    pub component: &'static str,
    /// Bytes that were asked for.
    pub requested: usize,
    /// Bytes that were left, where the component knows.
    pub available: Option<usize>,
}

impl Exhausted {
    /// `component` was asked for `requested` bytes and had `available`.
    #[must_use]
    pub const fn new(component: &'static str, requested: usize, available: Option<usize>) -> Self {
        Self { component, requested, available }
    }

    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:ALLOC:EXHAUSTED"
    }

    /// Always `true`: what was given out may come back.
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

/// A size in bytes does not fit `isize`, the most that one object may have.
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
    /// The component that was asked.
    pub component: &'static str,
    /// How many elements were asked for.
    pub count: usize,
    /// Bytes of one element.
    pub size: usize,
}

impl CapacityOverflow {
    /// `component` was asked for `count` elements of `size` bytes.
    #[must_use]
    pub const fn new(component: &'static str, count: usize, size: usize) -> Self {
        Self { component, count, size }
    }

    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:ALLOC:CAPACITY_OVERFLOW"
    }

    /// Always `false`: the request can never be met.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
