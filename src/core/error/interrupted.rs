use crate::core::types::{Label, human};
use core::fmt;

/// Why a [checkpoint](crate::integration::traits::Context::checkpoint) said no, as a `Copy` value that owns
/// no heap memory.
///
/// # Examples
///
/// See [`Context::checkpoint`](crate::integration::traits::Context::checkpoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Interrupted {
    /// The context that must stop, or give something back: the one that asked, or one that it is a part
    /// of. The name is cut if it is long.
    pub context: Label,
    /// What is wrong.
    pub reason: InterruptReason,
    /// Bytes that the context holds; 0 if it has no soft limit.
    pub used: usize,
    /// Its soft limit in bytes.
    pub limit: Option<usize>,
}

/// Why a context is not to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum InterruptReason {
    /// It was cancelled.
    Cancelled,
    /// It holds more than its soft limit.
    OverLimit,
}

impl Interrupted {
    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.reason {
            InterruptReason::Cancelled => "MEM:CONTEXT:CANCELLED",
            InterruptReason::OverLimit => "MEM:CONTEXT:OVER_LIMIT",
        }
    }

    /// Whether a later checkpoint may pass, once something is freed.
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
