use core::fmt;

/// A call to the operating system, or a file of its, failed.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::SystemError;
///
/// let error = SystemError::new("read /proc/meminfo", 13);
/// assert_eq!(error.to_string(), "read /proc/meminfo failed: errno 13");
/// assert_eq!(error.code(), "MEM:SYSTEM:CALL_FAILED");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct SystemError {
    /// The call and what it was for.
    pub call: &'static str,
    /// The operating system's error number, or 0 where its answer could not be understood.
    pub errno: i32,
}

impl SystemError {
    /// `call` failed with `errno`.
    #[must_use]
    pub const fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno }
    }

    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:SYSTEM:CALL_FAILED"
    }

    /// Whether the error is one that passes: out of memory (12), try again (11), interrupted (4).
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.errno, 4 | 11 | 12)
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => write!(f, "{} gave an answer that was not understood", self.call),
            errno => write!(f, "{} failed: errno {errno}", self.call),
        }
    }
}
