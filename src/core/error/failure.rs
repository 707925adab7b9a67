use core::fmt;
#[cfg(feature = "std")]
use std::io;

/// The I/O error that kept a manager from releasing memory, as a small `Copy` value.
///
/// A spill store makes one when a write to its file fails. It is the source of the [`Refused`](crate::core::Refused)
/// error if a request needed that memory.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::ReclaimFailure;
/// use std::io;
///
/// let failure = ReclaimFailure::from(io::ErrorKind::StorageFull);
/// assert_eq!(failure.kind(), io::ErrorKind::StorageFull);
/// assert_eq!(failure.to_string(), "no storage space");
///
/// let error = io::Error::from_raw_os_error(5);
/// let failure = ReclaimFailure::from(&error);
/// assert_eq!(failure.code(), Some(5));
/// assert_eq!(failure.to_string(), error.to_string());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub struct ReclaimFailure {
    #[cfg(feature = "std")]
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl ReclaimFailure {
    /// Makes a failure with the operating system's error number `code`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::ReclaimFailure;
    ///
    /// assert!(ReclaimFailure::from_code(28).to_string().contains("28"));
    /// ```
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        Self {
            #[cfg(feature = "std")]
            kind: io::Error::from_raw_os_error(code).kind(),
            code: Some(code),
        }
    }

    /// Returns the kind of the error.
    #[cfg(feature = "std")]
    #[must_use]
    pub const fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// Returns the operating system's error number. `None` if the error is not from the operating system, such as a
    /// limit of the store itself.
    #[must_use]
    pub const fn code(&self) -> Option<i32> {
        self.code
    }
}

#[cfg(feature = "std")]
impl From<&io::Error> for ReclaimFailure {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error() }
    }
}

#[cfg(feature = "std")]
impl From<io::ErrorKind> for ReclaimFailure {
    fn from(kind: io::ErrorKind) -> Self {
        Self { kind, code: None }
    }
}

/// Prints the operating system's text and number, as [`std::io::Error`] does.
impl fmt::Display for ReclaimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "std")]
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code).fmt(f),
            None => self.kind.fmt(f),
        }
        #[cfg(not(feature = "std"))]
        match self.code {
            Some(code) => write!(f, "os error {code}"),
            None => f.write_str("unknown error"),
        }
    }
}

/// Serializes as the text that `Display` prints.
#[cfg(feature = "serde")]
impl serde::Serialize for ReclaimFailure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::ReclaimFailure;
    use std::{io, string::ToString};

    #[test]
    fn an_error_number_has_the_systems_text_and_kind() {
        let error = io::Error::from_raw_os_error(2);
        let failure = ReclaimFailure::from_code(2);
        assert_eq!(failure, ReclaimFailure::from(&error));
        assert_eq!((failure.kind(), failure.to_string()), (error.kind(), error.to_string()));
        let wrapped = ReclaimFailure::from(&io::Error::other("the server is gone"));
        assert_eq!((wrapped.kind(), wrapped.code()), (io::ErrorKind::Other, None));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_serialized_as_its_text() {
        let failure = ReclaimFailure::from(io::ErrorKind::StorageFull);
        assert_eq!(serde_json::to_string(&failure).unwrap(), r#""no storage space""#);
    }
}
