//! A report of the live blocks, as text.

#[cfg(feature = "std")]
use crate::allocator::stats::CallSite;
use crate::{
    allocator::stats::{AllocStats, Counters},
    core::types::human,
};
use core::fmt;

/// The blocks of an allocator that were not freed so far; from
/// [`TrackedAllocator::leaks`](super::TrackedAllocator::leaks).
///
/// The report prints the number of blocks by their size, and the call stacks that allocated them if
/// they are known.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeakReport {
    /// All figures at the moment of the report.
    pub stats: AllocStats,
    /// The call stacks of the sampled blocks, most bytes first. Empty if the counters keep no call
    /// stacks.
    #[cfg(feature = "std")]
    pub sites: std::vec::Vec<CallSite>,
}

impl LeakReport {
    pub(super) fn of(counters: &impl Counters) -> Option<Self> {
        let stats = counters.stats();
        if stats.live_blocks() == 0 {
            return None;
        }
        Some(Self {
            stats,
            #[cfg(feature = "std")]
            sites: counters.sites(),
        })
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blocks, bytes) = (self.stats.live_blocks(), human(self.stats.usage.used));
        writeln!(f, "{blocks} block{}, {bytes}, still allocated", plural(blocks))?;
        for class in self.stats.classes().filter(|class| class.live > 0) {
            writeln!(f, "  {} of up to {}", class.live, human(class.up_to))?;
        }
        #[cfg(feature = "std")]
        for CallSite { blocks, bytes, trace } in &self.sites {
            let bytes = human(*bytes);
            writeln!(f, "sampled: {blocks} block{}, {bytes}, from", plural(*blocks))?;
            trace.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}
