#![forbid(unsafe_code)]

use crate::core::error::{Refused, RefusedReason};
use core::{error::Error, fmt};

/// The error of a push into a [`WeightedQueue`](super::WeightedQueue). It returns the value.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::WeightedQueue;
///
/// let queue: WeightedQueue<String> =
///     WeightedQueue::options("lines").max_bytes(100).weigher(String::capacity).build()?;
/// let error = queue.try_push("x".repeat(200)).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "not pushed: budget `lines` (#1) refused 200 B: larger than its limit of 100 B"
/// );
/// assert!(!error.is_retryable());
/// assert_eq!(error.value.len(), 200);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[non_exhaustive]
pub struct PushError<T> {
    /// The value that was not pushed.
    pub value: T,
    /// The reason: [`OverLimit`](RefusedReason::OverLimit) if there was no room and the push did not wait.
    pub reason: RefusedReason,
    /// The refusal of the value's bytes. `None` if there was no slot, or if the queue is closed.
    pub refused: Option<Refused>,
}

impl<T> PushError<T> {
    /// Returns whether a push of the same value may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        is_retryable(self.reason)
    }
}

const fn is_retryable(reason: RefusedReason) -> bool {
    !matches!(reason, RefusedReason::TooLarge | RefusedReason::Closed | RefusedReason::Cancelled)
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError")
            .field("reason", &self.reason)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not pushed: ")?;
        match (&self.refused, self.reason) {
            (Some(refused), _) => refused.fmt(f),
            (None, RefusedReason::Closed) => f.write_str("the queue is closed"),
            (None, RefusedReason::Cancelled) => f.write_str("cancelled while it waited for a slot"),
            (None, RefusedReason::TimedOut) => f.write_str("no slot became vacant in time"),
            (None, _) => f.write_str("each slot has a value"),
        }
    }
}

impl<T> Error for PushError<T> {}

/// Why there is no room.
pub(super) enum Cause {
    Slot(Refused),
    Bytes(Refused),
}

impl Cause {
    /// Whether there may be room later.
    pub(super) const fn may_pass(&self) -> bool {
        let (Self::Slot(refused) | Self::Bytes(refused)) = self;
        is_retryable(refused.reason)
    }

    pub(super) fn of<T>(self, value: T) -> PushError<T> {
        let (reason, refused) = match self {
            Self::Slot(refused) => (refused.reason, None),
            // The queue's own node is closed with the queue, and one above by itself: both are closed for ever.
            Self::Bytes(refused) => (refused.reason, Some(refused)),
        };
        PushError { value, reason, refused }
    }
}
