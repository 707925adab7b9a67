/// The error for a text that is not a value of its type, such as a [`Priority`](crate::core::Priority), a
/// [`PressureLevel`](crate::core::PressureLevel), a [`ReclaimClass`](crate::core::ReclaimClass), a
/// [`SharePolicy`](crate::core::SharePolicy) or a [`Limit`](crate::core::config::Limit).
///
/// # Examples
///
/// ```
/// use nebula_memory::Priority;
///
/// let error = "urgent".parse::<Priority>().unwrap_err();
/// assert_eq!(error.to_string(), "expected one of low, normal, high, critical");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {allowed}")]
pub struct ParseError {
    allowed: &'static str,
}

impl ParseError {
    /// Makes the error for a type whose texts are `allowed`.
    pub(crate) const fn new(allowed: &'static str) -> Self {
        Self { allowed }
    }
}
