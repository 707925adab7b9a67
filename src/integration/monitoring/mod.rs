//! One look that says who holds what.
//!
//! A [`Monitor`] watches a tree of budgets. [`Monitor::sample`] reads the tree, the process, the
//! machine and the control group, decides the [`PressureLevel`], and returns all of it as one
//! [`MemorySnapshot`], which prints as an aligned table and, with feature `serde`, serialises.
//!
//! The level is the worse of two, each with the hysteresis of the [`Watermarks`]: the root's bytes
//! against its limit, and the control group's against its own. A source that the platform does not
//! have is left out; the snapshot says which.
#![forbid(unsafe_code)]

mod table;

use crate::{
    advanced::budget::{Budget, NodeSnapshot},
    core::{PressureLevel, Watermarks, config::MonitoringConfig, error::ConfigError},
    syscalls::info::{
        Cgroup, CgroupMemory, MachineMemory, MachineReader, ProcessMemory, ProcessReader, Sources,
    },
    utils::sync::{Mutex, lock},
};

/// Watches one tree of budgets.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, PressureLevel, Watermarks, integration::monitoring::Monitor};
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let monitor = Monitor::new(&budget, Watermarks::default());
/// let held = budget.try_reserve(960)?;
///
/// let snapshot = monitor.sample();
/// assert_eq!(snapshot.budget_level, PressureLevel::Critical);
/// println!("{snapshot}");
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct Monitor {
    root: Budget,
    watermarks: Watermarks,
    /// Found once, with its files kept open; `None` where there is none or it cannot be read.
    cgroup: Option<Cgroup>,
    /// Likewise.
    process: Option<ProcessReader>,
    /// Likewise.
    machine: Option<MachineReader>,
    /// The levels of the last sample, for the hysteresis.
    previous: Mutex<Levels>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Levels {
    budget: PressureLevel,
    cgroup: PressureLevel,
}

impl Monitor {
    /// Watches `root` and what is below it.
    #[must_use]
    pub fn new(root: &Budget, watermarks: Watermarks) -> Self {
        Self {
            root: root.clone(),
            watermarks,
            cgroup: Sources::kernel().cgroup().ok().flatten(),
            process: Sources::kernel().process().ok(),
            machine: Sources::kernel().machine().ok(),
            previous: Mutex::new(Levels::default()),
        }
    }

    /// Watches `root` with the marks of a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where the marks are not in order.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::config::MemoryConfig, integration::monitoring::Monitor};
    ///
    /// let config = MemoryConfig::default();
    /// let budget = Budget::root("process").build()?;
    /// let monitor = Monitor::from_config(&budget, &config.monitoring)?;
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn from_config(root: &Budget, config: &MonitoringConfig) -> Result<Self, ConfigError> {
        Ok(Self::new(root, config.watermarks()?))
    }

    /// Reads every source once.
    ///
    /// # Complexity
    ///
    /// Linear in the nodes and managers of the tree, and a few reads of kernel files.
    ///
    /// # Examples
    ///
    /// See [`Monitor`].
    #[must_use]
    pub fn sample(&self) -> MemorySnapshot {
        // A source that fails now may answer the next time; it is absent from this snapshot.
        let cgroup = self.cgroup.as_ref().and_then(|cgroup| cgroup.memory().ok());
        let root = self.root.snapshot();
        let levels = {
            let mut previous = lock(&self.previous);
            *previous = self.levels(*previous, &root, cgroup.as_ref());
            *previous
        };
        MemorySnapshot {
            level: levels.budget.max(levels.cgroup),
            budget_level: levels.budget,
            process: self.process.as_ref().and_then(|process| process.memory().ok()),
            machine: self.machine.as_ref().and_then(|machine| machine.memory().ok()),
            cgroup,
            root,
        }
    }

    fn levels(
        &self,
        previous: Levels,
        root: &NodeSnapshot,
        cgroup: Option<&CgroupMemory>,
    ) -> Levels {
        let level = |previous, used, limit| self.watermarks.level(previous, used, limit);
        let budget =
            root.usage.capacity.map(|limit| level(previous.budget, root.usage.used, limit));
        let cgroup = cgroup.and_then(|group| {
            let (limit, headroom) = (group.limit?, group.headroom()?);
            // What is left is the scarce thing: an ancestor may bind before the group itself does.
            let used = limit.saturating_sub(headroom);
            Some(level(previous.cgroup, clamp(used), clamp(limit)))
        });
        Levels { budget: budget.unwrap_or_default(), cgroup: cgroup.unwrap_or_default() }
    }
}

/// The kernel's figures are 64 bits wide; a process cannot hold more than it can address.
fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Everything that is known about memory at one moment.
///
/// Prints as a table: a line for each node of the tree, indented by depth.
///
/// # Examples
///
/// See [`Monitor`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemorySnapshot {
    /// How tight memory is: the worst of all sources.
    pub level: PressureLevel,
    /// How tight it is for the tree of budgets alone.
    pub budget_level: PressureLevel,
    /// What the process has, where the platform says.
    pub process: Option<ProcessMemory>,
    /// What the machine has, where the platform says.
    pub machine: Option<MachineMemory>,
    /// What the process's control group has, where it is in one.
    pub cgroup: Option<CgroupMemory>,
    /// The tree of budgets.
    pub root: NodeSnapshot,
}

impl MemorySnapshot {
    /// Bytes resident beyond those on the ledger: code, stacks, and memory that nobody charged.
    /// `None` where the platform does not say what is resident.
    #[must_use]
    pub fn unaccounted(&self) -> Option<u64> {
        let resident = self.process.as_ref()?.resident;
        Some(resident.saturating_sub(self.root.usage.used as u64))
    }
}
