//! The errors of pools.
#![forbid(unsafe_code)]

use crate::core::{
    Label, MemoryError,
    error::{ConfigError, NoObject, Refused, SOON},
};
use core::{convert::Infallible, fmt, panic::Location, time::Duration};
use std::{thread, time::Instant, vec::Vec};

/// The error of a pool that gave no object.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, pool::{Pool, PoolError}};
///
/// let budget = Budget::root("process").limit(100).build()?;
/// let pool = Pool::options("big").budget(&budget).build(|| vec![0u8; 4096])?;
/// assert!(matches!(pool.try_get(), Err(PoolError::Refused(_))));
///
/// let pool = Pool::options("one").max_objects(1).build(String::new)?;
/// let held = pool.try_get()?;
/// let error = pool.try_get().unwrap_err();
/// assert_eq!(error.to_string(), "pool `one`: no object is free; its maximum is 1");
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError<E> {
    /// The ledger has no room for a new object.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The factory failed to make the object.
    #[error("the object could not be made")]
    Create(#[source] E),
    /// The factory did not make the object within the time limit.
    #[error("the object was not made within {limit:?}")]
    CreateTimedOut {
        /// The [limit](super::PoolOptions::create_timeout).
        limit: Duration,
        /// The pool.
        error: NoObject,
    },
    /// As many objects are in use as the pool may have, or the pool is closed.
    #[error("{error}{}", Held(holders))]
    NoObject {
        /// The pool, and why.
        #[source]
        error: NoObject,
        /// The holders of the objects, in the order in which they took them. Empty unless they are
        /// [recorded](super::PoolOptions::record_holders).
        holders: Vec<Holder>,
    },
    /// An object cannot be added: as many are in the pool, or idle, as may be.
    #[error("pool `{}`: full, its maximum is {}", .0.pool, .0.max)]
    Full(NoObject),
}

impl<E> PoolError<E> {
    /// Returns whether the same call may succeed later without a change by the caller. That of a factory's own error is
    /// not known: it counts as retryable.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refused) => refused.is_retryable(),
            Self::Create(_) | Self::CreateTimedOut { .. } => true,
            Self::NoObject { error, .. } | Self::Full(error) => error.is_retryable(),
        }
    }

    /// Returns the HTTP status of the answer to a request that got no object: 503 Service Unavailable, or what
    /// [`Refused::http_status`] says.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Refused(refused) => refused.http_status(),
            Self::Create(_)
            | Self::CreateTimedOut { .. }
            | Self::NoObject { .. }
            | Self::Full(_) => 503,
        }
    }

    /// Returns the time that a client should wait before it sends the request again. `None` if the request is
    /// [not retryable](Self::is_retryable). See [`Refused::retry_after`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after(),
            Self::Create(_) => Some(SOON),
            Self::CreateTimedOut { error, .. }
            | Self::NoObject { error, .. }
            | Self::Full(error) => error.retry_after(),
        }
    }
}

/// The most holders in the text of an error.
const NAMED: usize = 3;

/// The holders in the text of an error.
struct Held<'e>(&'e [Holder]);

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for holder in self.0.iter().take(NAMED) {
            write!(f, "; {holder}")?;
        }
        match self.0.len().checked_sub(NAMED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "; and {more} more"),
        }
    }
}

/// The holder of an object of a pool; from [`Pool::holders`](super::Pool::holders).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name of the thread that took the object, cut if it is long; empty if it has none.
    pub thread: Label,
    /// The line that took the object.
    pub place: &'static Location<'static>,
    /// When the object was taken.
    pub since: Instant,
}

impl Holder {
    pub(super) fn new(place: &'static Location<'static>, now: Instant) -> Self {
        let thread = Label::new(thread::current().name().unwrap_or(""));
        Self { thread, place, since: now }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, place, since } = self;
        write!(f, "taken {:?} ago at {place}", since.elapsed())?;
        if thread.as_str().is_empty() { Ok(()) } else { write!(f, " by thread `{thread}`") }
    }
}

/// The error as one of this crate, or the factory's own.
fn refusal<E>(error: PoolError<E>) -> Result<MemoryError, E> {
    Ok(match error {
        PoolError::Refused(refused) => refused.into(),
        PoolError::Create(error) => return Err(error),
        PoolError::CreateTimedOut { error, .. }
        | PoolError::NoObject { error, .. }
        | PoolError::Full(error) => error.into(),
    })
}

impl From<PoolError<ConfigError>> for MemoryError {
    fn from(error: PoolError<ConfigError>) -> Self {
        refusal(error).unwrap_or_else(Into::into)
    }
}

impl From<PoolError<Infallible>> for MemoryError {
    fn from(error: PoolError<Infallible>) -> Self {
        match refusal(error) {
            Ok(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PoolError, SOON};
    use crate::{advanced::budget::Budget, core::error::RefusedReason};

    #[test]
    fn a_pools_error_has_the_answer_of_its_reason() {
        let root = Budget::root("root").limit(100).build().unwrap();
        for bytes in [100, 1000] {
            let _held = root.try_reserve(10).unwrap();
            let refused = root.try_reserve(bytes).unwrap_err();
            let error = PoolError::<()>::from(refused);
            assert_eq!(error.http_status(), refused.http_status());
            assert_eq!(error.retry_after(), refused.retry_after());
            assert_eq!(error.is_retryable(), refused.reason == RefusedReason::OverLimit);
        }
        let error = PoolError::Create(());
        assert_eq!((error.http_status(), error.retry_after()), (503, Some(SOON)));
    }
}
