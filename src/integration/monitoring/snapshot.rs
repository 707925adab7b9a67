//! The result of one sample.

use super::{cause::PressureCause, headroom::Headroom, limit::EffectiveLimit};
use crate::{
    advanced::budget::NodeSnapshot,
    core::{PressureLevel, SystemError},
    syscalls::info::{CgroupEvents, CgroupMemory, MachineMemory, MemoryStall, ProcessMemory},
};
use std::{collections::BTreeMap, time::Duration, vec::Vec};

/// Returns the bytes that managers at and below `node` could release. A manager may report any number, so the
/// result is at most the bytes that the nodes hold.
pub(super) fn reclaimable(node: &NodeSnapshot) -> usize {
    let own = node.managers.iter().map(|manager| manager.reclaimable);
    let all = own.chain(node.children.iter().map(reclaimable)).fold(0, usize::saturating_add);
    all.min(node.usage.used)
}

/// All memory figures of one sample; from [`Monitor::sample`](super::Monitor::sample).
///
/// It prints as a table with a line for each node of the tree, indented by depth, the largest of the siblings first.
/// Below them are the overhead of the process and the unused guarantees. Of the children of a node the 20 largest have
/// a line; the others share one. `{:#}` prints all.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemorySnapshot {
    /// The pressure: the highest level of all sources and signals. It rises at once. It falls by one step
    /// after enough calmer samples.
    pub level: PressureLevel,
    /// The pressure of the tree of budgets alone. It depends on the bytes that no manager can release, and on
    /// requests that wait or were refused.
    pub budget_level: PressureLevel,
    /// The level of the lost time and the memory events alone.
    pub signal_level: PressureLevel,
    /// The cause of the level when it was last reached; `None` at [`Normal`](PressureLevel::Normal).
    pub cause: Option<PressureCause>,
    /// The time to the next sample.
    pub next_interval: Duration,
    /// The headroom of each source with a limit: first the budget, then the sources of the kernel.
    pub sources: Vec<Headroom>,
    /// The limit of the root, if the monitor moves it.
    pub effective: Option<EffectiveLimit>,
    /// Resident bytes beyond the reserved bytes: code, stacks, freed memory that the heap keeps, and memory that
    /// nobody reserved. `None` if the platform has no figure for resident memory.
    pub overhead: Option<u64>,
    /// Unused bytes of guarantees below the root. They count as used bytes of the root, but are not resident.
    pub guaranteed_unused: usize,
    /// The number of requests that wait for memory of the tree.
    pub waiting: usize,
    /// The number of requests that were refused since the last sample.
    pub refused_since: u64,
    /// The memory of the process, if the platform has the figures.
    pub process: Option<ProcessMemory>,
    /// The memory of the machine, if the platform has the figures.
    pub machine: Option<MachineMemory>,
    /// The memory of the process's control group, if it is in one.
    pub cgroup: Option<CgroupMemory>,
    /// The time that tasks of the control group, or else of the machine, lost because memory was short. `None` if
    /// the kernel does not measure it.
    pub stall: Option<MemoryStall>,
    /// The memory events of the control group since it was made.
    pub events: Option<CgroupEvents>,
    /// The memory events of the control group since the last sample.
    pub events_since: Option<CgroupEvents>,
    /// The tree of budgets.
    pub root: NodeSnapshot,
    /// The sources that could not be read, each with the error that names the file: `control group`, `process`,
    /// `machine`, `lost time` or `memory events`. If no mount shows the control group, the error names the group's
    /// path instead.
    ///
    /// An unknown source may have a lower limit than all `sources`. While the control group, the process or the
    /// machine is unknown, no limit is raised. The monitor reads the source again at each sample, and opens it again
    /// once a second. A source without figures that is not listed here does not exist on this platform or for this
    /// process.
    pub unknown: BTreeMap<&'static str, SystemError>,
}

impl MemorySnapshot {
    /// Returns the source with the fewest bytes left; `None` if no source has a limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{
    ///     Budget, Watermarks, integration::monitoring::{MemorySource, Monitor},
    /// };
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let held = budget.try_reserve(900)?;
    /// let snapshot = Monitor::new(&budget, Watermarks::default()).sample();
    /// let tightest = snapshot.tightest().expect("the budget has a limit");
    /// assert_eq!((tightest.source, tightest.headroom), (MemorySource::Budget, 100));
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn tightest(&self) -> Option<&Headroom> {
        self.sources.iter().min_by_key(|source| source.headroom)
    }
}
