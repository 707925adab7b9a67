//! The figures that counters report.

use crate::core::{Usage, types::human};
use core::fmt;

/// The number of size classes. The last class takes all sizes above 256 GiB.
pub(super) const CLASSES: usize = 40;

/// Returns the class of a size: the exponent of the smallest power of two that the size does not
/// exceed.
#[inline(always)]
pub(super) const fn class_of(size: usize) -> usize {
    // `2 * size - 1` is odd, and so not 0. The exponent of such a number takes one instruction.
    let class = (usize::BITS - 1 - (size << 1).wrapping_sub(1).leading_zeros()) as usize;
    if class < CLASSES { class } else { class_of_rare(size) }
}

/// Returns the class of no bytes, or of a size that is larger than all classes but the last allow.
#[cold]
const fn class_of_rare(size: usize) -> usize {
    if size == 0 { 0 } else { CLASSES - 1 }
}

/// Returns a difference of counters, or 0 if it is negative: the counters were read one after the
/// other.
pub(super) fn not_negative(difference: usize) -> usize {
    difference.cast_signed().max(0).unsigned_abs()
}

/// The figures of an allocator's counters: blocks, bytes, failures and sizes.
///
/// The counters are read one after the other without a lock. So the figures belong to nearly, not
/// exactly, the same instant.
///
/// With feature `serde` this serialises as the figures that the fields and methods return, with the
/// histograms as maps from sizes to numbers of blocks.
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
/// assert_eq!(stats.live_by_size().collect::<Vec<_>>(), [(4, 1), (1024, 0)]);
/// # drop(small);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllocStats {
    /// Bytes now, bytes at the peak and, in `refused`, the number of failed requests. Bytes are the
    /// requested bytes.
    pub usage: Usage,
    /// Resizes that made a block larger or kept its size.
    pub grows: usize,
    /// Resizes that made a block smaller.
    pub shrinks: usize,
    /// The call stacks that allocated the sampled live blocks, most bytes first. Only
    /// [`leaks`](crate::allocator::TrackedAllocator::leaks) looks for them, and only
    /// [`CallSites`](super::CallSites) keep them.
    #[cfg(feature = "std")]
    pub call_sites: std::vec::Vec<CallSite>,
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
            #[cfg(feature = "std")]
            call_sites: std::vec::Vec::new(),
            classes: [ClassStats::default(); CLASSES],
        }
    }
}

impl AllocStats {
    /// Returns the number of blocks that were allocated. A resized block does not count again.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.without_resized(|class| class.made)
    }

    /// Returns the number of blocks that were freed.
    #[must_use]
    pub fn frees(&self) -> usize {
        self.without_resized(|class| class.gone)
    }

    /// Returns the number of blocks that are allocated now.
    #[must_use]
    pub fn live_blocks(&self) -> usize {
        self.live_by_size().map(|(_, blocks)| blocks).sum()
    }

    /// Returns the histogram of the blocks that are allocated now: the largest size of each class, a power of two, and
    /// its number of blocks. The smallest sizes come first. A class begins above half of its largest size.
    ///
    /// A class that never had a block is left out.
    pub fn live_by_size(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        self.by_size(|class| not_negative(class.made.wrapping_sub(class.gone)))
    }

    /// Returns the histogram of all blocks so far, as [`live_by_size`](Self::live_by_size). A block counts in the class
    /// of its size when it is allocated, and again in the class of its new size when it is resized.
    pub fn made_by_size(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        self.by_size(|class| class.made)
    }

    fn by_size(
        &self,
        count: impl Fn(&ClassStats) -> usize + Clone,
    ) -> impl Iterator<Item = (usize, usize)> + Clone {
        let used = self.classes.iter().enumerate().filter(|(_, class)| class.made != 0);
        used.map(move |(at, class)| {
            (if at < CLASSES - 1 { 1 << at } else { usize::MAX }, count(class))
        })
    }

    fn without_resized(&self, count: impl Fn(&ClassStats) -> usize) -> usize {
        let all = self.classes.iter().map(count).fold(0, usize::wrapping_add);
        not_negative(all.wrapping_sub(self.grows).wrapping_sub(self.shrinks))
    }
}

/// Prints the live blocks by their size, and the call stacks that allocated them if they are known.
impl fmt::Display for AllocStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blocks, bytes) = (self.live_blocks(), human(self.usage.used));
        writeln!(f, "{blocks} block{}, {bytes}, still allocated", plural(blocks))?;
        for (up_to, blocks) in self.live_by_size().filter(|(_, blocks)| *blocks > 0) {
            writeln!(f, "  {blocks} of up to {}", human(up_to))?;
        }
        #[cfg(feature = "std")]
        for CallSite { blocks, bytes, trace } in &self.call_sites {
            let bytes = human(*bytes);
            writeln!(f, "sampled: {blocks} block{}, {bytes}, from", plural(*blocks))?;
            trace.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(feature = "serde")]
impl serde::Serialize for AllocStats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        /// A histogram, as a map.
        struct Map<I>(I);
        impl<I: Iterator<Item = (usize, usize)> + Clone> serde::Serialize for Map<I> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.clone())
            }
        }

        let mut stats = serializer.serialize_struct("AllocStats", 9)?;
        stats.serialize_field("usage", &self.usage)?;
        stats.serialize_field("allocations", &self.allocations())?;
        stats.serialize_field("frees", &self.frees())?;
        stats.serialize_field("live_blocks", &self.live_blocks())?;
        stats.serialize_field("grows", &self.grows)?;
        stats.serialize_field("shrinks", &self.shrinks)?;
        stats.serialize_field("live_by_size", &Map(self.live_by_size()))?;
        stats.serialize_field("made_by_size", &Map(self.made_by_size()))?;
        #[cfg(feature = "std")]
        stats.serialize_field("call_sites", &self.call_sites)?;
        stats.end()
    }
}

#[cfg(feature = "std")]
/// A place in the program, and its sampled blocks that are live; from
/// [`CallSites`](super::CallSites).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallSite {
    /// Sampled blocks that were allocated here.
    pub blocks: usize,
    /// The bytes of these blocks.
    pub bytes: usize,
    /// The call stack, innermost frame first. A frame has one or two lines.
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
