//! The small value types that every module shares.
//!
//! Bytes of this process are `usize`; figures of the kernel are `u64`; sizes that people read
//! and write are [`ByteSize`].

mod label;
mod levels;
mod watermarks;

pub use self::{
    label::Label,
    levels::{
        PressureLevel, Priority, ReclaimClass, SharePolicy, UnknownPressureLevel, UnknownPriority,
        UnknownReclaimClass, UnknownSharePolicy,
    },
    watermarks::{Watermarks, WatermarksError},
};

use core::{fmt, num::NonZeroU64};

/// A number of bytes that reads and prints the way people write it (`"64MiB"`, `64.0 MiB`).
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

/// Shows bytes as people read them, without a conversion at the call site.
pub(crate) fn human(bytes: usize) -> bytesize::Display {
    // Lossless: no supported target has pointers wider than 64 bits.
    ByteSize::b(bytes as u64).display().iec()
}

/// The bytes of a size, which are all there are where the address space is smaller.
#[cfg(feature = "alloc")]
pub(crate) fn saturating_bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The identity of one budget node, unique for the life of the process and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// Wraps a number that the caller knows to be unique.
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

    /// The number itself.
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

/// What a component holds: the one snapshot type of the crate.
///
/// The figures are read one after the other without a lock, so they belong to nearly, not exactly,
/// the same instant.
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
    /// Bytes held now.
    pub used: usize,
    /// The most bytes ever held at once.
    pub peak: usize,
    /// The most bytes that may be held, if there is a bound.
    pub capacity: Option<usize>,
    /// Requests that were refused for good since the component was made. A budget does not count
    /// those that ask only for what is spare: they are questions, and their answer is often no.
    pub refused: u64,
    /// Bytes given back on request since the component was made.
    pub reclaimed: u64,
    /// The part of `used` beyond the bound: bytes that could not be refused, or reserved before the bound was
    /// lowered. While there are any nothing else is admitted.
    pub overdraft: usize,
}

impl Usage {
    /// Figures of a component that counts neither refusals nor what it gave back.
    #[must_use]
    pub const fn new(used: usize, peak: usize, capacity: Option<usize>) -> Self {
        Self { used, peak, capacity, refused: 0, reclaimed: 0, overdraft: 0 }
    }

    /// Bytes that may still be taken, if there is a bound.
    #[must_use]
    pub const fn free(&self) -> Option<usize> {
        match self.capacity {
            Some(capacity) => Some(capacity.saturating_sub(self.used)),
            None => None,
        }
    }
}
