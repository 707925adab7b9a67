use alloc::string::String;

/// A configuration key is unknown, or its value is not one of those allowed.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::ConfigError;
///
/// let error = ConfigError::new("cache.shards", "0", "a power of two from 1 to 1024");
/// assert_eq!(
///     error.to_string(),
///     "configuration key `cache.shards`: got `0`, allowed is a power of two from 1 to 1024",
/// );
/// assert_eq!(error.code(), "MEM:CONFIG:INVALID");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key `{key}`: got `{value}`, allowed is {allowed}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The key, as a path with dots.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What would have been accepted.
    pub allowed: String,
}

impl ConfigError {
    /// `key` was given `value` where only `allowed` would do.
    #[must_use]
    pub fn new(
        key: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value: value.into(), allowed: allowed.into() }
    }

    /// See [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:CONFIG:INVALID"
    }

    /// Always `false`: the configuration must be changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
