#[cfg(feature = "alloc")]
use crate::core::types::Visible;
use crate::core::types::human;
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
use core::fmt;

/// A failure of a system call, or of a file of the operating system.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::SystemError;
///
/// let error = SystemError::new("map 64 KiB", 12);
/// assert_eq!(error.to_string(), "map 64 KiB failed: errno 12");
/// assert_eq!(error.code(), "MEM:SYSTEM:CALL_FAILED");
///
/// let error = SystemError::new("read the machine's memory", 13).at("/proc/meminfo");
/// assert_eq!(error.to_string(), "read the machine's memory (/proc/meminfo) failed: errno 13");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SystemError {
    /// The call and its purpose.
    pub call: &'static str,
    /// The file of the call, if there is one. Bytes that are not UTF-8 are replaced.
    #[cfg(feature = "alloc")]
    pub path: Option<Box<str>>,
    /// The number of bytes of the call, if it has one.
    pub bytes: Option<usize>,
    /// The operating system's error number; 0 if the system returned a text or a figure that was not understood.
    pub errno: i32,
}

impl SystemError {
    /// The error number of [`unsupported`](Self::unsupported) on every platform: `ENOSYS` on Linux.
    const UNSUPPORTED: i32 = 38;

    /// Makes the error for `call`, which failed with `errno`.
    #[must_use]
    pub const fn new(call: &'static str, errno: i32) -> Self {
        Self {
            call,
            #[cfg(feature = "alloc")]
            path: None,
            bytes: None,
            errno,
        }
    }

    /// Makes the error for a `call` that this platform does not have.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::SystemError;
    ///
    /// let error = SystemError::unsupported("read the machine's memory");
    /// assert!(error.is_unsupported());
    /// assert_eq!(error.to_string(), "read the machine's memory is not supported on this platform");
    /// ```
    #[must_use]
    pub const fn unsupported(call: &'static str) -> Self {
        Self::new(call, Self::UNSUPPORTED)
    }

    /// Returns the same error with the file of the call.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn at(mut self, path: impl Into<Box<str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Returns the same error with the number of bytes of the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::SystemError;
    ///
    /// let error = SystemError::new("map", 12).of(64 << 10);
    /// assert_eq!(error.to_string(), "map 64.0 KiB failed: errno 12");
    /// ```
    #[must_use]
    pub const fn of(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:SYSTEM:CALL_FAILED"
    }

    /// Returns whether the error is temporary: out of memory (12), try again (11), interrupted (4).
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.errno, 4 | 11 | 12)
    }

    /// Returns whether the platform does not have the call.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        self.errno == Self::UNSUPPORTED
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        #[cfg(feature = "alloc")]
        if let Some(path) = &self.path {
            write!(f, " ({})", Visible(path))?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, " {}", human(bytes))?;
        }
        match self.errno {
            0 => f.write_str(" gave an answer that was not understood"),
            Self::UNSUPPORTED => f.write_str(" is not supported on this platform"),
            errno => write!(f, " failed: errno {errno}"),
        }
    }
}
