use crate::core::{
    error::ReclaimFailure,
    types::{Label, NodeId, human},
};
use core::{
    fmt::{self, Write as _},
    time::Duration,
};

/// The error of a budget that refused a request. It is `Copy` and owns no heap memory.
///
/// It names the *binding node*, the node that had no room: the caller's own node or a node above it.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::RefusedReason};
///
/// let process = Budget::root("process").limit(1000).build()?;
/// let tenant = process.child("tenant-a").build()?;
/// let held = tenant.try_reserve(900)?;
///
/// let refused = tenant.try_reserve(200).unwrap_err();
/// assert_eq!(refused.name.as_str(), "process");
/// assert_eq!(refused.reason, RefusedReason::OverLimit);
/// assert_eq!((refused.requested, refused.available), (200, 100));
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Refused {
    /// The binding node.
    pub node: NodeId,
    /// The binding node's name, cut if it is long.
    pub name: Label,
    /// The reason why the node refused.
    pub reason: RefusedReason,
    /// Bytes that were requested from the binding node. They are fewer than the caller requested if a guarantee of a
    /// node below covers a part.
    pub requested: usize,
    /// Bytes that were free at the binding node at that moment.
    pub available: usize,
    /// The binding node's limit in bytes.
    pub limit: usize,
    /// The time that the request has waited; zero if it did not wait.
    pub waited: Duration,
    /// The I/O error of a manager that was asked to release memory for the request and failed, such as a spill store
    /// whose disk is full. It is the error's `source()`.
    #[source]
    pub failure: Option<ReclaimFailure>,
}

// Every charge returns this error by value, so it must be small.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Refused>() <= 88);

/// The reason why a node refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RefusedReason {
    /// The request fits the limit, but not in addition to the bytes that are reserved.
    OverLimit,
    /// The request is larger than the limit, so neither waiting nor a reclaim could help.
    TooLarge,
    /// The node was closed and admits no more requests.
    Closed,
    /// The free bytes are kept for an earlier request that waits and was overtaken too often or for too long.
    Waiting,
    /// The node would exceed its share while a sibling's request waits. Only if the parent's policy is
    /// [`FairAdmission`](crate::core::SharePolicy::FairAdmission).
    OverShare,
    /// The request waited until its deadline.
    TimedOut,
    /// The request was cancelled while it waited.
    Cancelled,
    /// All holders of the bytes that the request waited for also wait, and no manager had memory to reclaim.
    Deadlock,
}

impl Refused {
    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.reason {
            RefusedReason::OverLimit => "MEM:BUDGET:REFUSED",
            RefusedReason::TooLarge => "MEM:BUDGET:TOO_LARGE",
            RefusedReason::Closed => "MEM:BUDGET:CLOSED",
            RefusedReason::Waiting => "MEM:BUDGET:WAITING",
            RefusedReason::OverShare => "MEM:BUDGET:OVER_SHARE",
            RefusedReason::TimedOut => "MEM:BUDGET:TIMED_OUT",
            RefusedReason::Cancelled => "MEM:BUDGET:CANCELLED",
            RefusedReason::Deadlock => "MEM:BUDGET:DEADLOCK",
        }
    }

    /// Returns whether the same request may be admitted later, when other holders have released memory.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(
            self.reason,
            RefusedReason::TooLarge | RefusedReason::Closed | RefusedReason::Cancelled
        )
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, name, reason, requested, .. } = *self;
        if reason == RefusedReason::Closed && requested == 0 {
            return write!(f, "budget `{name}` ({node}) is closed");
        }
        let requested = self.figure(requested);
        write!(f, "budget `{name}` ({node}) refused {requested}: {}", Reason(self))
    }
}

impl Refused {
    /// Formats one of the figures: rounded, and with all digits if different figures are rounded to the same text.
    fn figure(&self, bytes: usize) -> Figure {
        let figures = [self.requested, self.available, self.limit];
        let is_hidden = figures.iter().any(|one| {
            figures.iter().any(|other| one != other && Rounded::of(*one) == Rounded::of(*other))
        });
        Figure { bytes, is_exact: is_hidden }
    }
}

struct Figure {
    bytes: usize,
    is_exact: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, is_exact } = *self;
        if is_exact { write!(f, "{bytes} B") } else { human(bytes).fmt(f) }
    }
}

/// The text of a rounded figure.
#[derive(PartialEq)]
struct Rounded {
    text: [u8; 16],
    len: usize,
}

impl Rounded {
    fn of(bytes: usize) -> Self {
        let mut rounded = Self { text: [0; 16], len: 0 };
        // A text that is longer is cut.
        let _ = write!(rounded, "{}", human(bytes));
        rounded
    }
}

impl fmt::Write for Rounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let place = self.text.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Prints the reason of a refusal, without the node and the requested bytes.
pub(super) struct Reason<'a>(pub(super) &'a Refused);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { reason, available, limit, waited, failure, .. } = *self.0;
        let (free, limit) = (self.0.figure(available), self.0.figure(limit));
        match reason {
            RefusedReason::OverLimit => write!(f, "{free} free of a limit of {limit}"),
            RefusedReason::Closed => write!(f, "closed"),
            RefusedReason::Waiting => {
                write!(f, "{free} free of a limit of {limit}, kept for an earlier request")
            }
            RefusedReason::OverShare => {
                write!(f, "beyond its share of the parent, and a sibling waits")
            }
            RefusedReason::TimedOut => {
                write!(f, "{free} free of a limit of {limit} after a wait of {waited:.1?}")
            }
            RefusedReason::Cancelled => write!(f, "cancelled after {waited:.1?}"),
            RefusedReason::Deadlock => {
                write!(f, "{free} free of a limit of {limit}, and all holders of the rest wait too")
            }
            RefusedReason::TooLarge => write!(f, "larger than its limit of {limit}"),
        }?;
        match failure {
            Some(failure) => write!(f, "; spilling failed: {failure}"),
            None => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{ReclaimFailure, Refused, RefusedReason};
    use crate::core::{
        error::MemoryError,
        types::{Label, NodeId},
    };
    use core::{error::Error, num::NonZeroU64, time::Duration};
    use std::{io, string::ToString};

    #[test]
    fn figures_that_differ_are_not_shown_as_equal() {
        let refused = |requested, available, limit| Refused {
            node: NodeId::new(NonZeroU64::MIN),
            name: Label::new("process"),
            reason: RefusedReason::OverLimit,
            requested,
            available,
            limit,
            waited: Duration::ZERO,
            failure: None,
        };
        let text = refused((1 << 20) + 90, (1 << 20) + 60, 2 << 20).to_string();
        let figures = "refused 1048666 B: 1048636 B free of a limit of 2097152 B";
        assert!(text.ends_with(figures), "{text}");
        let text = refused(3 << 20, 1 << 20, 2 << 20).to_string();
        assert!(text.ends_with("refused 3.0 MiB: 1.0 MiB free of a limit of 2.0 MiB"), "{text}");
        let text = refused(2 << 20, 2 << 20, 2 << 20).to_string();
        assert!(text.ends_with("refused 2.0 MiB: 2.0 MiB free of a limit of 2.0 MiB"), "{text}");
    }

    #[test]
    fn a_refusal_names_the_error_that_kept_memory_from_being_reclaimed() {
        let refused = Refused {
            node: NodeId::new(NonZeroU64::MIN),
            name: Label::new("process"),
            reason: RefusedReason::OverLimit,
            requested: 5,
            available: 0,
            limit: 10,
            waited: Duration::ZERO,
            failure: None,
        };
        assert!(refused.source().is_none());
        let without = refused.to_string();

        let disk = io::Error::from(io::ErrorKind::StorageFull);
        let refused = Refused { failure: Some(ReclaimFailure::from(&disk)), ..refused };
        let text = refused.to_string();
        assert_eq!(text, std::format!("{without}; spilling failed: {disk}"));
        for error in [&refused as &dyn Error, &MemoryError::from(refused)] {
            let source = error.source().and_then(|source| source.downcast_ref::<ReclaimFailure>());
            assert_eq!(source.map(ReclaimFailure::kind), Some(io::ErrorKind::StorageFull));
        }
    }
}
