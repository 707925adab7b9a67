//! Translates errors of this crate into HTTP answers.

use super::{AllocationError, MemoryError, NoObject, Refused, RefusedReason};
use core::time::Duration;

/// The delay before a client tries again after most errors. The ledger does not know when holders will release bytes.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// The delay before a client tries again after its request waited until the deadline.
const LATER: Duration = Duration::from_secs(5);

/// The answers over HTTP.
///
/// | reason | status | retry |
/// |---|---|---|
/// | [`OverLimit`](RefusedReason::OverLimit), [`Waiting`](RefusedReason::Waiting), [`Deadlock`](RefusedReason::Deadlock) | 503 Service Unavailable | after 1 s |
/// | [`OverShare`](RefusedReason::OverShare) | 429 Too Many Requests | after 1 s |
/// | [`TimedOut`](RefusedReason::TimedOut) | 503 Service Unavailable | after 5 s |
/// | [`TooLarge`](RefusedReason::TooLarge) | 413 Content Too Large | never |
/// | [`Closed`](RefusedReason::Closed), [`Cancelled`](RefusedReason::Cancelled) | 503 Service Unavailable | never from this process |
///
/// If the [node](Self::node) without room is a tenant's own node, and not the process's root, a service may answer
/// 429 instead of 503.
impl Refused {
    /// Returns the HTTP status of the answer to the refused request.
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

    /// Returns the time that a client should wait before it sends the request again, for example for a `Retry-After`
    /// header. `None` if the request is [not retryable](Self::is_retryable). Add a random delay, so that not all
    /// clients come back at once.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            RefusedReason::TimedOut => Some(LATER),
            _ if self.is_retryable() => Some(SOON),
            _ => None,
        }
    }
}

/// The answers over HTTP.
///
/// | error | status |
/// |---|---|
/// | [`Refused`], also for a guarantee | depends on its reason, see [there](Refused::http_status) |
/// | a context that was cancelled or is over its soft limit, an exhausted allocator, a pool whose objects are all in use | 503 Service Unavailable |
/// | a size beyond the address space | 413 Content Too Large |
/// | a failed system call, an invalid configuration | 500 Internal Server Error |
impl MemoryError {
    /// Returns the HTTP status of the answer.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Refused(error) | Self::Guarantee { refused: error, .. } => error.http_status(),
            Self::Interrupted(_) | Self::NoObject(_) => 503,
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

    /// Returns the time that a client should wait before it sends the request again. `None` if the request is
    /// [not retryable](Self::is_retryable). See [`Refused::retry_after`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(error)
            | Self::Guarantee { refused: error, .. }
            | Self::Allocation(AllocationError::Refused(error)) => error.retry_after(),
            Self::NoObject(error) => error.retry_after(),
            _ if self.is_retryable() => Some(SOON),
            _ => None,
        }
    }
}

impl NoObject {
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            RefusedReason::TimedOut => Some(LATER),
            _ if self.is_retryable() => Some(SOON),
            _ => None,
        }
    }
}

#[cfg(feature = "serde")]
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Serializes the fields of all errors: `code`, `message`, `retryable` and `retry_after_ms`.
#[cfg(feature = "serde")]
fn serialize_common<S: serde::ser::SerializeStruct>(
    answer: &mut S,
    error: &MemoryError,
) -> Result<(), S::Error> {
    answer.serialize_field("code", error.code())?;
    answer.serialize_field("message", &format_args!("{error}"))?;
    answer.serialize_field("retryable", &error.is_retryable())?;
    answer.serialize_field("retry_after_ms", &error.retry_after().map(milliseconds))
}

/// Serializes as an object with the stable `code`, the `message`, `retryable`, `retry_after_ms`, and the fields of this
/// type.
#[cfg(feature = "serde")]
impl serde::Serialize for Refused {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut answer = serializer.serialize_struct("Refused", 12)?;
        serialize_common(&mut answer, &Self::into(*self))?;
        self.serialize_fields(&mut answer)?;
        answer.end()
    }
}

#[cfg(feature = "serde")]
impl Refused {
    fn serialize_fields<S: serde::ser::SerializeStruct>(
        &self,
        answer: &mut S,
    ) -> Result<(), S::Error> {
        answer.serialize_field("node", &self.node)?;
        answer.serialize_field("name", &self.name)?;
        answer.serialize_field("reason", &self.reason)?;
        answer.serialize_field("requested", &self.requested)?;
        answer.serialize_field("available", &self.available)?;
        answer.serialize_field("limit", &self.limit)?;
        answer.serialize_field("waited_ms", &milliseconds(self.waited))?;
        answer.serialize_field("failure", &self.failure)
    }
}

/// Serializes as an object with the stable `code`, the `message`, `retryable` and `retry_after_ms`. A [`Refused`] has
/// its own fields too, also inside a [`Guarantee`](MemoryError::Guarantee).
#[cfg(feature = "serde")]
impl serde::Serialize for MemoryError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        if let Self::Refused(refused) = self {
            return refused.serialize(serializer);
        }
        if let Self::Guarantee { refused, .. } = self {
            let mut answer = serializer.serialize_struct("MemoryError", 12)?;
            serialize_common(&mut answer, self)?;
            refused.serialize_fields(&mut answer)?;
            return answer.end();
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
    use core::{num::NonZeroU64, time::Duration};

    fn refused(reason: RefusedReason) -> Refused {
        Refused {
            node: NodeId::new(NonZeroU64::MIN),
            name: Label::new("tenant"),
            reason,
            requested: 5,
            available: 3,
            limit: 10,
            waited: Duration::from_millis(20),
            failure: None,
        }
    }

    #[test]
    fn an_error_has_a_retry_time_exactly_if_it_is_retryable() {
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
            "waited_ms": 20,
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
