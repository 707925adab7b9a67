//! Small errors, one per kind of failure, summed in [`MemoryError`].
//!
//! Each names the component that failed, with the requested and the available bytes. None of them allocates,
//! except [`ConfigError`], which names the caller's key.

mod allocation;
#[cfg(feature = "alloc")]
mod config;
mod failure;
mod interrupted;
mod refused;
mod system;

#[cfg(feature = "alloc")]
pub use self::config::ConfigError;
pub use self::{
    allocation::{AllocationError, CapacityOverflow, Exhausted},
    failure::ReclaimFailure,
    interrupted::{InterruptReason, Interrupted},
    refused::{Refused, RefusedReason},
    system::SystemError,
};

/// Whatever can go wrong in this crate.
///
/// Functions return the small error of their own failure; this sum is for the caller's `?`.
///
/// It prints the small error's text and adds no link to the chain of sources: its `source()` is the small
/// error's. Only [`Refused`] has one: the [`ReclaimFailure`] because of which memory could not be reclaimed.
/// A caller's own error is the source of `PoolError::Create`, which is not part of this sum.
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
    /// A context is not to go on.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// An allocator or a bounded component has no more to give.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A size does not fit the address space.
    #[error(transparent)]
    CapacityOverflow(#[from] CapacityOverflow),
    /// A call to the operating system failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A configuration is not valid.
    #[cfg(feature = "alloc")]
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl MemoryError {
    /// A stable name of the failure, for logs and alerts: `MEM:<component>:<failure>`.
    ///
    /// Codes are never changed or used again for something else within a major version.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Interrupted(error) => error.code(),
            Self::Exhausted(error) => error.code(),
            Self::CapacityOverflow(error) => error.code(),
            Self::System(error) => error.code(),
            #[cfg(feature = "alloc")]
            Self::Config(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Interrupted(error) => error.is_retryable(),
            Self::Exhausted(error) => error.is_retryable(),
            Self::CapacityOverflow(error) => error.is_retryable(),
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
            AllocationError::Exhausted(error) => Self::Exhausted(error),
            AllocationError::CapacityOverflow(error) => Self::CapacityOverflow(error),
        }
    }
}
