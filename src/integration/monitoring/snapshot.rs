//! What one sample found.

use super::{
    cause::{PressureCause, PressureRelief},
    headroom::Headroom,
    kernel::UnknownSource,
    limit::EffectiveLimit,
};
use crate::{
    advanced::budget::NodeSnapshot,
    core::PressureLevel,
    syscalls::info::{CgroupEvents, CgroupMemory, MachineMemory, MemoryStall, ProcessMemory},
};
use std::{time::Duration, vec::Vec};

/// Bytes that managers at and below `node` could give back, and not more than the nodes hold: a manager
/// may say anything.
pub(super) fn reclaimable(node: &NodeSnapshot) -> usize {
    let own = node.managers.iter().map(|manager| manager.reclaimable);
    let all = own.chain(node.children.iter().map(reclaimable)).fold(0, usize::saturating_add);
    all.min(node.usage.used)
}

/// Everything that is known about memory at one moment.
///
/// Prints as a table: a line for each node of the tree, indented by depth, and below them the process's
/// overhead and the guarantees that nobody uses.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemorySnapshot {
    /// How tight memory is: the worst that all sources and signals say. It rises at once, and falls by
    /// one step when enough samples have been calmer for long enough.
    pub level: PressureLevel,
    /// How tight it is for the tree of budgets alone: by the bytes that no manager can give back, and by
    /// requests that wait or were refused.
    pub budget_level: PressureLevel,
    /// What lost time and events say alone.
    pub signal_level: PressureLevel,
    /// What made the level when it was last reached; `None` at [`Normal`](PressureLevel::Normal).
    pub cause: Option<PressureCause>,
    /// What would lower the level; `None` at [`Normal`](PressureLevel::Normal).
    pub relief: Option<PressureRelief>,
    /// How long to wait until the next sample.
    pub next_interval: Duration,
    /// What each source leaves that has a bound: the budget's first, then the kernel's.
    pub sources: Vec<Headroom>,
    /// The limit of the root, where the monitor moves it.
    pub effective: Option<EffectiveLimit>,
    /// Bytes that are resident and that no reservation holds: code, stacks, freed memory that the heap
    /// keeps, and memory that nobody charged. `None` where the platform has no figure of resident memory.
    pub overhead: Option<u64>,
    /// Bytes that are guaranteed below the root and that nobody uses. They are part of the root's used
    /// bytes, and not resident.
    pub guaranteed_unused: usize,
    /// Requests that wait for memory of the tree.
    pub waiting: usize,
    /// Requests that were refused since the last sample.
    pub refused_since: u64,
    /// What the process has, where the platform says.
    pub process: Option<ProcessMemory>,
    /// What the machine has, where the platform says.
    pub machine: Option<MachineMemory>,
    /// What the process's control group has, where it is in one.
    pub cgroup: Option<CgroupMemory>,
    /// The time lost for want of memory: of the control group, else of the machine, where the kernel
    /// counts.
    pub stall: Option<MemoryStall>,
    /// How often the control group ran out of memory since it was made.
    pub events: Option<CgroupEvents>,
    /// Likewise, since the last sample.
    pub events_since: Option<CgroupEvents>,
    /// The tree of budgets.
    pub root: NodeSnapshot,
    /// The sources that could not be read. They may have tighter bounds than `sources`; while one of the
    /// control group, the process or the machine is unknown, no limit is raised. A source that has no
    /// figures and is not listed here does not exist on this platform or for this process.
    pub unknown: Vec<UnknownSource>,
}

impl MemorySnapshot {
    /// The source that leaves the least; `None` where nothing bounds.
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
