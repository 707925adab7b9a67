use crate::core::types::Visible;
use alloc::string::String;
use core::fmt;

/// The error for an unknown option, or for a value that is not allowed.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::ConfigError;
///
/// let error = ConfigError::new("cache.shards", "0", "a power of two from 1 to 1024").of("users");
/// assert_eq!(
///     error.to_string(),
///     "option `cache.shards` of `users`: got `0`, allowed is a power of two from 1 to 1024",
/// );
/// assert_eq!(error.code(), "MEM:CONFIG:INVALID");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct ConfigError {
    /// The option: in a configuration its key, as a path with dots.
    pub key: String,
    /// The name of the node, cache, pool or store that the value is for. For an arena it is the name of its budget.
    /// `None` if the component has no name, and for a [`MemoryConfig`](crate::core::config::MemoryConfig), whose keys
    /// name the node.
    pub component: Option<String>,
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
        Self { key: key.into(), component: None, value: value.into(), allowed: allowed.into() }
    }

    /// Returns the same error with the name of the component that the value is for.
    #[must_use]
    pub fn of(mut self, component: impl Into<String>) -> Self {
        self.component = Some(component.into());
        self
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

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, component, value, allowed } = self;
        write!(f, "option `{}`", Visible(key))?;
        if let Some(component) = component {
            write!(f, " of `{}`", Visible(component))?;
        }
        write!(f, ": got `{}`, allowed is {}", Visible(value), Visible(allowed))
    }
}
