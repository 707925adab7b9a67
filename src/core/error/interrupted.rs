use crate::core::types::{Label, human};

/// The error of a [checkpoint](crate::integration::traits::Context::checkpoint): the work must stop or release
/// memory. It is `Copy` and owns no heap memory.
///
/// The context in it is the checkpoint's own context, or one above it. Its name is cut if it is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupted {
    /// The context was cancelled: the work must stop.
    #[error("context `{context}` is interrupted: cancelled")]
    Cancelled {
        /// The context that was cancelled.
        context: Label,
    },
    /// The context is over its soft limit: the work must release memory or stop.
    #[error(
        "context `{context}` is interrupted: it holds {} of a soft limit of {}",
        human(*used),
        human(*limit)
    )]
    OverLimit {
        /// The context that is over its soft limit.
        context: Label,
        /// Bytes of the context.
        used: usize,
        /// The soft limit of the context in bytes.
        limit: usize,
    },
}

impl Interrupted {
    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cancelled { .. } => "MEM:CONTEXT:CANCELLED",
            Self::OverLimit { .. } => "MEM:CONTEXT:OVER_LIMIT",
        }
    }

    /// Returns whether a later checkpoint may succeed, after memory is freed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::OverLimit { .. })
    }
}
