use crate::core::{error::RefusedReason, types::Label};
use core::{fmt, time::Duration};

/// The error of a pool whose objects are all in use, or that is closed. It is `Copy` and owns no heap memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct NoObject {
    /// The pool's name, cut if it is long.
    pub pool: Label,
    /// The reason. [`OverLimit`](RefusedReason::OverLimit) if the caller did not wait.
    pub reason: RefusedReason,
    /// The largest number of objects that the pool, or the pool above it, may have.
    pub max: usize,
    /// The time that the request has waited.
    pub waited: Duration,
}

impl NoObject {
    /// `pool` is the pool's name.
    #[cfg(feature = "std")]
    pub(crate) fn new(pool: &str, reason: RefusedReason, max: usize, waited: Duration) -> Self {
        Self { pool: Label::new(pool), reason, max, waited }
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.reason {
            RefusedReason::TooLarge => "MEM:POOL:TOO_MANY",
            RefusedReason::Closed => "MEM:POOL:CLOSED",
            RefusedReason::TimedOut => "MEM:POOL:TIMED_OUT",
            RefusedReason::Cancelled => "MEM:POOL:CANCELLED",
            _ => "MEM:POOL:IN_USE",
        }
    }

    /// Returns whether the same request may succeed later, when others have returned objects.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(
            self.reason,
            RefusedReason::TooLarge | RefusedReason::Closed | RefusedReason::Cancelled
        )
    }
}

impl fmt::Display for NoObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, reason, max, waited } = self;
        write!(f, "pool `{pool}`: ")?;
        match reason {
            RefusedReason::Closed => write!(f, "closed"),
            RefusedReason::TooLarge => {
                write!(f, "more objects were requested than its maximum of {max}")
            }
            RefusedReason::Cancelled => write!(f, "cancelled after {waited:.1?}"),
            RefusedReason::TimedOut => {
                write!(f, "no object became free within {waited:.1?}; its maximum is {max}")
            }
            RefusedReason::Waiting => {
                write!(f, "the free objects are for requests that wait; its maximum is {max}")
            }
            _ => write!(f, "no object is free; its maximum is {max}"),
        }
    }
}
