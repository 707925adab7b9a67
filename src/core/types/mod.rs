//! Small value types that every module uses.
//!
//! Bytes of this process are `usize`. Figures of the kernel are `u64`. Sizes that users read and write are
//! [`ByteSize`].

mod label;
mod levels;
mod watermarks;

#[cfg(feature = "alloc")]
pub(crate) use self::label::Visible;
pub use self::{
    label::Label,
    levels::{PressureLevel, Priority, ReclaimClass, SharePolicy},
    watermarks::Watermarks,
};

use core::{fmt, num::NonZeroU64};

/// A number of bytes with a readable text form (`"64MiB"`, `64.0 MiB`).
///
/// # Examples
///
/// ```
/// use nebula_memory::ByteSize;
///
/// assert_eq!("64MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(64));
/// assert_eq!(ByteSize::kib(1536).to_string(), "1.5 MiB");
/// ```
pub use bytesize::ByteSize;

/// Formats bytes for a message. It saves the caller the conversion.
pub(crate) fn human(bytes: usize) -> bytesize::Display {
    // Lossless: no supported target has pointers wider than 64 bits.
    ByteSize::b(bytes as u64).display().iec()
}

/// Formats bytes for a message that compares them. The number of bytes follows if the rounded size hides it.
#[cfg(feature = "alloc")]
pub(crate) fn exact(bytes: usize) -> impl fmt::Display {
    exact_size(ByteSize::b(bytes as u64))
}

/// Like [`exact`], for a size that may exceed the address space.
#[cfg(feature = "alloc")]
pub(crate) fn exact_size(bytes: ByteSize) -> impl fmt::Display {
    let size = alloc::format!("{}", bytes.display().iec());
    match size.parse() == Ok(bytes) {
        true => size,
        false => alloc::format!("{size} ({} B)", bytes.as_u64()),
    }
}

/// Converts a size to bytes of the address space. A larger size becomes `usize::MAX`.
#[cfg(feature = "alloc")]
pub(crate) fn saturating_bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The identity of a budget node. It is unique in the process and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// Makes an id from a number. The caller must ensure that the number is unique.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::NodeId;
    /// use std::num::NonZeroU64;
    ///
    /// assert_eq!(NodeId::new(NonZeroU64::MIN).to_string(), "#1");
    /// ```
    #[must_use]
    pub const fn new(id: NonZeroU64) -> Self {
        Self(id)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The memory figures of a component: used bytes, peak, limit, refusals and reclaimed bytes.
///
/// The figures are read one after another without a lock, so they are not from exactly the same instant.
///
/// # Examples
///
/// ```
/// use nebula_memory::Usage;
///
/// let usage = Usage::new(600, 900, Some(1000));
/// assert_eq!(usage.free(), Some(400));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// Bytes in use now.
    pub used: usize,
    /// The most bytes in use at any time.
    pub peak: usize,
    /// The most bytes that may be in use, if there is a bound.
    pub capacity: Option<usize>,
    /// The number of refused requests since the component was made. A request that waits counts only if it is refused
    /// at the end of its wait. A budget does not count refusals of
    /// [`try_reserve_spare`](crate::budget::Budget::try_reserve_spare), which are expected.
    pub refused: u64,
    /// Bytes that were reclaimed since the component was made.
    pub reclaimed: u64,
    /// The part of `used` beyond the bound: bytes that could not be refused, or that were reserved before the bound
    /// was lowered. While it is not 0, no other request is admitted.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_zero"))]
    pub overdraft: usize,
}

#[cfg(feature = "serde")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's contract")]
const fn is_zero(bytes: &usize) -> bool {
    *bytes == 0
}

impl Usage {
    /// Makes the figures of a component that counts neither refusals nor reclaimed bytes.
    #[must_use]
    pub const fn new(used: usize, peak: usize, capacity: Option<usize>) -> Self {
        Self { used, peak, capacity, refused: 0, reclaimed: 0, overdraft: 0 }
    }

    /// Returns the bytes that are still free, if there is a bound.
    #[must_use]
    pub const fn free(&self) -> Option<usize> {
        match self.capacity {
            Some(capacity) => Some(capacity.saturating_sub(self.used)),
            None => None,
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::exact;
    use std::string::ToString;

    #[test]
    fn a_rounded_size_has_its_bytes_beside_it() {
        for (bytes, text) in [
            (0, "0 B"),
            (1000, "1000 B"),
            (1024, "1.0 KiB"),
            (1025, "1.0 KiB (1025 B)"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
        ] {
            assert_eq!(exact(bytes).to_string(), text);
        }
    }
}
