use alloc::string::String;

/// The error for an unknown configuration key, or for a value that is not allowed.
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
    /// The given value.
    pub value: String,
    /// The allowed values.
    pub allowed: String,
}

impl ConfigError {
    /// Makes the error for `key`, whose value is `value` and must be one of `allowed`.
    #[must_use]
    pub fn new(
        key: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value: value.into(), allowed: allowed.into() }
    }

    /// Returns the stable name of the failure; see [`MemoryError::code`](crate::core::MemoryError::code).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "MEM:CONFIG:INVALID"
    }

    /// Returns `false`: the configuration must be changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
