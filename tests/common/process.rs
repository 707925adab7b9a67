//! A machine and a process as the kernel's files show them.

use super::tree::{Tree, V2_MOUNT};
use nebula_memory::{
    Budget,
    core::config::MonitoringConfig,
    integration::monitoring::{MemorySnapshot, Monitor},
    syscalls::info::page_size,
};
use std::time::{Duration, Instant};

pub(crate) const MIB: usize = 1 << 20;

/// Shows a process of which `resident` MiB are in memory.
pub(crate) fn resident(tree: Tree, resident: usize) -> Tree {
    let pages = resident * MIB / page_size();
    tree.file("proc/self/statm", format!("{pages} {pages} 0 0 0 0 0\n"))
}

/// A process in the root of the control groups, on a large machine.
pub(crate) fn process(at: usize) -> Tree {
    let tree = Tree::new("0::/\n", V2_MOUNT)
        .file("sys/fs/cgroup/cgroup.procs", "")
        .file("proc/self/status", "VmHWM:\t 4 kB\nVmData:\t 4 kB\n")
        .file("proc/meminfo", "MemTotal: 100000000 kB\nMemAvailable: 90000000 kB\n");
    resident(tree, at)
}

/// Takes samples by a clock of its own.
pub(crate) struct Watch {
    pub(crate) monitor: Monitor,
    now: Instant,
}

impl Watch {
    pub(crate) fn of(monitor: Monitor) -> Self {
        Self { monitor, now: Instant::now() }
    }

    pub(crate) fn new(root: &Budget, tree: &Tree, config: &MonitoringConfig) -> Self {
        Self::of(Monitor::from_config_under(root, config, tree.directory()).unwrap())
    }

    pub(crate) fn after(&mut self, time: Duration) -> MemorySnapshot {
        self.now += time;
        self.monitor.sample_at(self.now)
    }

    /// Takes a sample after so long that no peak is left.
    pub(crate) fn next(&mut self) -> MemorySnapshot {
        self.after(Duration::from_secs(5))
    }
}
