//! Small errors, one for each kind of failure, and [`MemoryError`] for all of them.
//!
//! Each error names the component that failed, with the requested and the available bytes. None allocates, except
//! [`ConfigError`], which stores the caller's key.

mod allocation;
mod answer;
#[cfg(feature = "alloc")]
mod config;
mod failure;
mod interrupted;
mod parse;
mod refused;
mod system;

#[cfg(feature = "alloc")]
pub use self::config::ConfigError;
pub use self::{
    allocation::AllocationError,
    failure::ReclaimFailure,
    interrupted::Interrupted,
    parse::ParseError,
    refused::{Refused, RefusedReason},
    system::SystemError,
};

/// Any error of this crate. Use it as the error type of a function that uses `?` on several of them.
///
/// It prints the text of the error inside. Its `source()` is the `source()` of the error inside, so it adds no link
/// to the chain. Only [`Refused`] has a source: the [`ReclaimFailure`] of a manager. `PoolError::Create`, whose
/// source is a caller's own error, is not part of this type.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, MemoryError};
///
/// fn work(budget: &Budget) -> Result<(), MemoryError> {
///     let scratch = budget.try_reserve(4096)?;
///     drop(scratch);
///     Ok(())
/// }
///
/// let budget = Budget::root("process").limit(1024).build()?;
/// let error = work(&budget).unwrap_err();
/// assert_eq!(error.code(), "MEM:BUDGET:TOO_LARGE");
/// assert!(!error.is_retryable());
/// # Ok::<(), MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A budget refused a reservation.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A context must stop: it was cancelled, or is over its soft limit.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// An allocator or a bounded component has too little left, or a size exceeds the largest object. A refusal of
    /// its budget becomes `Refused`.
    #[error(transparent)]
    Allocation(AllocationError),
    /// A call to the operating system failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A configuration is invalid.
    #[cfg(feature = "alloc")]
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl MemoryError {
    /// Returns the stable name of the failure for logs and alerts: `MEM:<component>:<failure>`.
    ///
    /// Within a major version, codes are not changed and not reused for other failures.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Interrupted(error) => error.code(),
            Self::Allocation(error) => error.code(),
            Self::System(error) => error.code(),
            #[cfg(feature = "alloc")]
            Self::Config(error) => error.code(),
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Interrupted(error) => error.is_retryable(),
            Self::Allocation(error) => error.is_retryable(),
            Self::System(error) => error.is_retryable(),
            #[cfg(feature = "alloc")]
            Self::Config(error) => error.is_retryable(),
        }
    }
}

impl From<AllocationError> for MemoryError {
    fn from(error: AllocationError) -> Self {
        match error {
            AllocationError::Refused(error) => Self::Refused(error),
            error => Self::Allocation(error),
        }
    }
}
