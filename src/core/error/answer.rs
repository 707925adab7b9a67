//! How a service answers a request that failed with an error of this crate.

use super::{AllocationError, MemoryError, Refused, RefusedReason};
use core::time::Duration;

/// How long a client waits that others hold up. The ledger does not know when they will be done.
const SOON: Duration = Duration::from_secs(1);

/// How long a client waits whose request has waited until its deadline already.
const LATER: Duration = Duration::from_secs(5);

/// As HTTP answers.
///
/// | reason | status | retry |
/// |---|---|---|
/// | [`OverLimit`](RefusedReason::OverLimit), [`Waiting`](RefusedReason::Waiting), [`Deadlock`](RefusedReason::Deadlock) | 503 Service Unavailable | after 1 s |
/// | [`OverShare`](RefusedReason::OverShare) | 429 Too Many Requests | after 1 s |
/// | [`TimedOut`](RefusedReason::TimedOut) | 503 Service Unavailable | after 5 s |
/// | [`TooLarge`](RefusedReason::TooLarge) | 413 Content Too Large | never |
/// | [`Closed`](RefusedReason::Closed), [`Cancelled`](RefusedReason::Cancelled) | 503 Service Unavailable | not here |
///
/// A refusal tells the [node](Self::node) that had no room. Where that is a tenant's own node and
/// not the process, a service may answer 429 instead of 503.
impl Refused {
    /// Returns the HTTP status of the answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let held = process.try_reserve(900)?;
    /// let refused = process.try_reserve(200).unwrap_err();
    /// assert_eq!((refused.http_status(), refused.retry_after().unwrap().as_secs()), (503, 1));
    /// let refused = process.try_reserve(2000).unwrap_err();
    /// assert_eq!((refused.http_status(), refused.retry_after()), (413, None));
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self.reason {
            RefusedReason::TooLarge => 413,
            RefusedReason::OverShare => 429,
            RefusedReason::OverLimit
            | RefusedReason::Closed
            | RefusedReason::Waiting
            | RefusedReason::TimedOut
            | RefusedReason::Cancelled
            | RefusedReason::Deadlock => 503,
        }
    }

    /// Returns how long a client should wait before it sends the request again, for example as
    /// `Retry-After`. `None` if the request is [not retryable](Self::is_retryable). Add some
    /// jitter, so that not all clients come back at once.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            RefusedReason::TimedOut => Some(LATER),
            _ if self.is_retryable() => Some(SOON),
            _ => None,
        }
    }
}

/// As HTTP answers. A [`Refused`] is answered by its reason. A context that is over its soft limit,
/// or that was cancelled, is 503 Service Unavailable; so is an allocator that has too little left.
/// A size beyond the address space is 413 Content Too Large. A failed system call and an invalid
/// configuration are 500 Internal Server Error.
impl MemoryError {
    /// Returns the HTTP status of the answer.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Refused(error) => error.http_status(),
            Self::Interrupted(_) => 503,
            Self::Allocation(error) => match error {
                AllocationError::Refused(error) => error.http_status(),
                AllocationError::Exhausted { .. } => 503,
                AllocationError::CapacityOverflow { .. } => 413,
            },
            Self::System(_) => 500,
            #[cfg(feature = "alloc")]
            Self::Config(_) => 500,
        }
    }

    /// Returns how long a client should wait before it sends the request again. `None` if the
    /// request is [not retryable](Self::is_retryable). See [`Refused::retry_after`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(error) | Self::Allocation(AllocationError::Refused(error)) => {
                error.retry_after()
            }
            _ if self.is_retryable() => Some(SOON),
            _ => None,
        }
    }
}

/// The fields that all errors have: `code`, `message`, `retryable` and `retry_after_ms`.
#[cfg(feature = "serde")]
fn serialize_common<S: serde::ser::SerializeStruct>(
    answer: &mut S,
    error: &MemoryError,
) -> Result<(), S::Error> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    answer.serialize_field("code", error.code())?;
    answer.serialize_field("message", &format_args!("{error}"))?;
    answer.serialize_field("retryable", &error.is_retryable())?;
    answer.serialize_field("retry_after_ms", &error.retry_after().map(milliseconds))
}

/// As an object: the stable `code`, the `message`, whether it is `retryable` and after how many
/// milliseconds; then the fields.
#[cfg(feature = "serde")]
impl serde::Serialize for Refused {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut answer = serializer.serialize_struct("Refused", 11)?;
        serialize_common(&mut answer, &Self::into(*self))?;
        answer.serialize_field("node", &self.node)?;
        answer.serialize_field("name", &self.name)?;
        answer.serialize_field("reason", &self.reason)?;
        answer.serialize_field("requested", &self.requested)?;
        answer.serialize_field("available", &self.available)?;
        answer.serialize_field("limit", &self.limit)?;
        answer.serialize_field("failure", &self.failure)?;
        answer.end()
    }
}

/// As an object: the stable `code`, the `message`, whether it is `retryable` and after how many
/// milliseconds. A [`Refused`] has its own fields too.
#[cfg(feature = "serde")]
impl serde::Serialize for MemoryError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        if let Self::Refused(refused) = self {
            return refused.serialize(serializer);
        }
        let mut answer = serializer.serialize_struct("MemoryError", 4)?;
        serialize_common(&mut answer, self)?;
        answer.end()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{MemoryError, Refused, RefusedReason};
    use crate::core::{
        error::AllocationError,
        types::{Label, NodeId},
    };
    use core::num::NonZeroU64;

    fn refused(reason: RefusedReason) -> Refused {
        Refused {
            node: NodeId::new(NonZeroU64::MIN),
            name: Label::new("tenant"),
            reason,
            requested: 5,
            available: 3,
            limit: 10,
            failure: None,
        }
    }

    #[test]
    fn what_is_retryable_says_when() {
        for (reason, status) in [
            (RefusedReason::OverLimit, 503),
            (RefusedReason::TooLarge, 413),
            (RefusedReason::Closed, 503),
            (RefusedReason::Waiting, 503),
            (RefusedReason::OverShare, 429),
            (RefusedReason::TimedOut, 503),
            (RefusedReason::Cancelled, 503),
            (RefusedReason::Deadlock, 503),
        ] {
            let refused = refused(reason);
            assert_eq!(refused.http_status(), status, "{reason:?}");
            assert_eq!(refused.is_retryable(), refused.retry_after().is_some(), "{reason:?}");
            let error = MemoryError::from(refused);
            assert_eq!((error.http_status(), error.retry_after()), (status, refused.retry_after()));
        }
        for (error, status) in [
            (MemoryError::from(AllocationError::exhausted("arena", 5, None)), 503),
            (MemoryError::from(AllocationError::capacity_overflow("arena", usize::MAX, 8)), 413),
        ] {
            assert_eq!(error.http_status(), status);
            assert_eq!(error.is_retryable(), error.retry_after().is_some(), "{error}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_refusal_is_an_object_with_its_figures() {
        let refused = refused(RefusedReason::OverLimit);
        let expected = serde_json::json!({
            "code": "MEM:BUDGET:REFUSED",
            "message": "budget `tenant` (#1) refused 5 B: 3 B free of a limit of 10 B",
            "retryable": true,
            "retry_after_ms": 1000,
            "node": 1,
            "name": "tenant",
            "reason": "over_limit",
            "requested": 5,
            "available": 3,
            "limit": 10,
            "failure": null,
        });
        assert_eq!(serde_json::to_value(refused).unwrap(), expected);
        assert_eq!(serde_json::to_value(MemoryError::from(refused)).unwrap(), expected);
        let error = MemoryError::from(AllocationError::capacity_overflow("arena", usize::MAX, 8));
        let object = serde_json::to_value(&error).unwrap();
        assert_eq!(object["code"], error.code());
        assert_eq!(
            (&object["retryable"], &object["retry_after_ms"]),
            (&false.into(), &serde_json::Value::Null)
        );
    }
}
