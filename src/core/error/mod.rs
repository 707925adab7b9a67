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
mod no_object;
mod refused;
mod system;

#[cfg(feature = "alloc")]
pub use self::config::ConfigError;
pub use self::{
    allocation::AllocationError,
    failure::ReclaimFailure,
    interrupted::Interrupted,
    no_object::NoObject,
    refused::{Refused, RefusedReason},
    system::SystemError,
};

#[cfg(feature = "std")]
pub(crate) use self::answer::SOON;

use self::refused::Reason;
use crate::core::types::{Label, human};

/// Any error of this crate. Use it as the error type of a function that uses `?` on several of them.
///
/// It prints the text of the error inside, and its `source()` is the `source()` of the error inside. Only a [`Refused`]
/// has one, the [`ReclaimFailure`] of a manager, and a `Guarantee`, the refusal of the node above. `PoolError::Create` is
/// not part of this type, because its source is a caller's own error.
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
    /// The guarantee of a node exceeds the free bytes of a node above it.
    #[error(
        "guarantee of `{node}` ({}) exceeds what is left of `{}` ({}): {}",
        human(*bytes),
        refused.name,
        refused.node,
        Reason(refused)
    )]
    Guarantee {
        /// The node's name, cut if it is long.
        node: Label,
        /// The guarantee in bytes.
        bytes: usize,
        /// The refusal of the node above that has no room for the guarantee: the parent, or a node above it.
        #[source]
        refused: Refused,
    },
    /// A context must stop: it was cancelled, or is over its soft limit.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// An allocator or a bounded component has too few bytes left, or a size exceeds the largest object. If a budget
    /// refused the allocation, the error is `Refused` instead.
    #[error(transparent)]
    Allocation(AllocationError),
    /// A pool has no object to give out.
    #[error(transparent)]
    NoObject(#[from] NoObject),
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
            Self::Refused(error) | Self::Guarantee { refused: error, .. } => error.code(),
            Self::Interrupted(error) => error.code(),
            Self::Allocation(error) => error.code(),
            Self::NoObject(error) => error.code(),
            Self::System(error) => error.code(),
            #[cfg(feature = "alloc")]
            Self::Config(error) => error.code(),
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) | Self::Guarantee { refused: error, .. } => error.is_retryable(),
            Self::Interrupted(error) => error.is_retryable(),
            Self::Allocation(error) => error.is_retryable(),
            Self::NoObject(error) => error.is_retryable(),
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
