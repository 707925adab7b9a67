#![forbid(unsafe_code)]

use core::{fmt, num::NonZeroU64};

/// The name of a value in a slab: the index of its slot, and the slot's generation.
///
/// A handle stays valid until its value is removed. From then on the slab finds nothing for it, also when the slot has
/// another value. A handle of another slab is not detected: it may find a value here.
///
/// ```text
///   63            32 31           0
///   │ generation    │ index       │      the generation is odd
/// ```
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::{Handle, LocalSlab};
///
/// let mut slab = LocalSlab::new();
/// let handle = slab.insert("value");
/// // As a number, for example in the user data of a request to the kernel.
/// let bits = handle.to_bits();
/// assert_eq!(slab.get(Handle::from_bits(bits).unwrap()), Some(&"value"));
/// assert_eq!(Handle::from_bits(0), None);
/// assert_eq!(size_of::<Option<Handle>>(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(
    /// # Invariants
    ///
    /// The generation is odd, as in a slot with a value.
    NonZeroU64,
);

/// The bits of the index.
const INDEX: u64 = ODD - 1;

/// The bit of an odd generation.
const ODD: u64 = 1 << 32;

impl Handle {
    /// Makes the handle of a slot from its index and its generation.
    #[inline(always)]
    pub(super) fn new(index: u32, generation: u32) -> Self {
        debug_assert!(generation % 2 == 1, "a slot with a value");
        let bits = (u64::from(generation) << 32) | u64::from(index);
        Self(NonZeroU64::MIN.saturating_add(bits - 1))
    }

    /// Returns the handle as a number, which is not zero.
    #[must_use]
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// Returns the handle that [`to_bits`](Self::to_bits) made a number of. `None` for a number that is no handle's.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(word) if bits & ODD != 0 => Some(Self(word)),
            _ => None,
        }
    }

    /// Returns the index of the slot. No two values that are in a slab at once have the same index.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        (self.to_bits() & INDEX) as usize
    }

    /// Returns the generation, which is odd.
    #[inline]
    pub(super) const fn generation(self) -> u32 {
        (self.to_bits() >> 32) as u32
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("index", &self.index())
            .field("generation", &self.generation())
            .finish()
    }
}
