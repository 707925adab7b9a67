use crate::core::types::{Label, human};
use core::fmt;

/// The error of a [checkpoint](crate::integration::traits::Context::checkpoint): the work must stop or release
/// memory. It is `Copy` and owns no heap memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Interrupted {
    /// The context that must stop or release memory: the checkpoint's own context, or one above it. The name is cut
    /// if it is long.
    pub context: Label,
    /// The reason.
    pub reason: InterruptReason,
    /// Bytes of the context; 0 if it has no soft limit.
    pub used: usize,
    /// The soft limit of the context in bytes.
    pub limit: Option<usize>,
}

/// The reason why a context must stop or release memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum InterruptReason {
    /// The context was cancelled.
    Cancelled,
    /// The context is over its soft limit.
    OverLimit,
}

impl Interrupted {
    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.reason {
            InterruptReason::Cancelled => "MEM:CONTEXT:CANCELLED",
            InterruptReason::OverLimit => "MEM:CONTEXT:OVER_LIMIT",
        }
    }

    /// Returns whether a later checkpoint may succeed, after memory is freed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.reason, InterruptReason::OverLimit)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, reason, used, limit } = *self;
        write!(f, "context `{context}` is interrupted: ")?;
        match reason {
            InterruptReason::Cancelled => write!(f, "cancelled"),
            InterruptReason::OverLimit => {
                let limit = human(limit.unwrap_or(usize::MAX));
                write!(f, "it holds {} of a soft limit of {limit}", human(used))
            }
        }
    }
}
