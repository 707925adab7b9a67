//! What counters say: plain numbers.

use crate::core::Usage;

/// Classes of sizes; the last takes all that is larger than 256 GiB.
pub(super) const CLASSES: usize = 40;

/// The class of a size: the exponent of the power of two that it does not exceed.
#[inline(always)]
pub(super) const fn class_of(size: usize) -> usize {
    // Odd: the exponent of a number that is not 0 is one instruction.
    let class = (usize::BITS - 1 - (size << 1).wrapping_sub(1).leading_zeros()) as usize;
    if class < CLASSES { class } else { class_of_rare(size) }
}

/// The class of what is large, or of no bytes.
#[cold]
const fn class_of_rare(size: usize) -> usize {
    if size == 0 { 0 } else { CLASSES - 1 }
}

/// A difference of counters that were read one after the other.
pub(super) fn not_negative(difference: usize) -> usize {
    difference.cast_signed().max(0).unsigned_abs()
}

/// What an allocator's counters say.
///
/// The figures are read one after the other without a lock, so they belong to nearly, not exactly,
/// the same instant.
///
/// With feature `serde` it serialises as the figures that its fields and methods give, the
/// [classes](Self::classes) as a sequence.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{SystemAllocator, TrackedAllocator, TypedAllocator};
///
/// let tracked = TrackedAllocator::new(SystemAllocator);
/// let small = (&tracked).alloc_value(7_u32)?;
/// drop((&tracked).alloc_value([0_u8; 1000])?);
///
/// let stats = tracked.stats();
/// assert_eq!((stats.allocations(), stats.frees(), stats.live_blocks()), (2, 1, 1));
/// assert_eq!((stats.usage.used, stats.usage.peak), (4, 1004));
/// let classes: Vec<_> = stats.classes().map(|class| (class.up_to, class.live)).collect();
/// assert_eq!(classes, [(4, 1), (1024, 0)]);
/// # drop(small);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllocStats {
    /// Bytes now and at most, and in `refused` the requests that failed. Bytes are those asked for.
    pub usage: Usage,
    /// Blocks that grew, or kept their size.
    pub grows: usize,
    /// Blocks that shrank.
    pub shrinks: usize,
    pub(super) classes: [ClassStats; CLASSES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassStats {
    pub(super) made: usize,
    pub(super) gone: usize,
}

impl Default for AllocStats {
    fn default() -> Self {
        Self {
            usage: Usage::default(),
            grows: 0,
            shrinks: 0,
            classes: [ClassStats::default(); CLASSES],
        }
    }
}

impl AllocStats {
    /// Blocks that were made, resized ones not counted again.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.without_resized(|class| class.made)
    }

    /// Blocks that were freed.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn frees(&self) -> usize {
        self.without_resized(|class| class.gone)
    }

    /// Blocks that are allocated now.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn live_blocks(&self) -> usize {
        self.classes().map(|class| class.live).sum()
    }

    /// The histogram: the classes that ever had a block, smallest sizes first.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    pub fn classes(&self) -> impl Iterator<Item = SizeClass> {
        let used = self.classes.iter().enumerate().filter(|(_, counts)| counts.made != 0);
        used.map(|(class, counts)| SizeClass {
            up_to: if class < CLASSES - 1 { 1 << class } else { usize::MAX },
            made: counts.made,
            live: not_negative(counts.made.wrapping_sub(counts.gone)),
        })
    }

    fn without_resized(&self, count: impl Fn(&ClassStats) -> usize) -> usize {
        let all = self.classes.iter().map(count).fold(0, usize::wrapping_add);
        not_negative(all.wrapping_sub(self.grows).wrapping_sub(self.shrinks))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for AllocStats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        struct Classes<'s>(&'s AllocStats);
        impl serde::Serialize for Classes<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.classes())
            }
        }

        let mut stats = serializer.serialize_struct("AllocStats", 7)?;
        stats.serialize_field("usage", &self.usage)?;
        stats.serialize_field("allocations", &self.allocations())?;
        stats.serialize_field("frees", &self.frees())?;
        stats.serialize_field("live_blocks", &self.live_blocks())?;
        stats.serialize_field("grows", &self.grows)?;
        stats.serialize_field("shrinks", &self.shrinks)?;
        stats.serialize_field("classes", &Classes(self))?;
        stats.end()
    }
}

/// The blocks of one class of sizes.
///
/// # Examples
///
/// See [`AllocStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SizeClass {
    /// The largest size of the class, a power of two; the next smaller class ends at half of it.
    pub up_to: usize,
    /// Blocks that came to have such a size, when they were made or resized.
    pub made: usize,
    /// Blocks that have it now.
    pub live: usize,
}

#[cfg(feature = "std")]
/// A place in the program, and the sampled blocks from there that are live.
///
/// # Examples
///
/// See [`CallSites`](super::CallSites).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallSite {
    /// Sampled blocks from here.
    pub blocks: usize,
    /// The bytes of these blocks.
    pub bytes: usize,
    /// The call stack, innermost first, a frame in one or two lines.
    pub trace: std::string::String,
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, class_of};

    #[test]
    fn a_class_ends_with_a_power_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 5, 8, 9].map(class_of), [0, 0, 1, 2, 2, 3, 3, 4]);
        for shift in 3..38 {
            assert_eq!([class_of(1 << shift), class_of((1 << shift) + 1)], [shift, shift + 1]);
        }
        assert_eq!(class_of(usize::MAX), CLASSES - 1);
    }
}
