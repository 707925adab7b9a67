//! The events of a memory cgroup: how often it reached its limits, and how often a process was killed.

use super::{
    files::File,
    parse::{self, Garbled},
    version::CgroupVersion,
};
use crate::core::SystemError;
use alloc::vec::Vec;
use std::path::Path;

const CALL: &str = "read the memory events of the cgroup";

/// How often memory ran out in the process's cgroup since the cgroup was made.
///
/// With version 2, the counters include the events of the cgroups above, but not those of siblings. With version 1
/// they include only the events of the cgroup itself.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// if let Ok(Some(before)) = info::cgroup_events() {
///     // … a job that needs much memory …
///     if let Ok(Some(now)) = info::cgroup_events() {
///         println!("{} processes killed meanwhile", now.since(before).oom_kill);
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CgroupEvents {
    /// A task was slowed down because `memory.high` was exceeded. Always 0 with version 1.
    pub high: u64,
    /// A hard limit was reached, and the kernel dropped page cache or swapped. Page cache that fills the cgroup also
    /// causes this event, and that is harmless.
    pub max: u64,
    /// A hard limit was reached, and there was nothing to drop. Always 0 with version 1.
    pub oom: u64,
    /// A process was killed.
    pub oom_kill: u64,
}

impl CgroupEvents {
    /// Returns the events since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            high: self.high.saturating_sub(earlier.high),
            max: self.max.saturating_sub(earlier.max),
            oom: self.oom.saturating_sub(earlier.oom),
            oom_kill: self.oom_kill.saturating_sub(earlier.oom_kill),
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            high: self.high.saturating_add(other.high),
            max: self.max.saturating_add(other.max),
            oom: self.oom.saturating_add(other.oom),
            oom_kill: self.oom_kill.saturating_add(other.oom_kill),
        }
    }
}

/// The open event files of one cgroup. `None` if the kernel has no such file.
#[derive(Debug)]
pub(super) enum EventFiles {
    V1 { failures: Option<File>, control: Option<File> },
    V2(Option<File>),
}

impl EventFiles {
    /// Opens the files in `directory`, which is the process's own cgroup or one above it.
    pub(super) fn open(
        version: CgroupVersion,
        directory: &Path,
        is_own: bool,
    ) -> Result<Self, SystemError> {
        let file = |name: &str| File::open_if_there(CALL, directory.join(name));
        Ok(match (version, is_own) {
            (CgroupVersion::V1, true) => {
                Self::V1 { failures: file("memory.failcnt")?, control: file("memory.oom_control")? }
            }
            (CgroupVersion::V1, false) => Self::V1 { failures: None, control: None },
            (CgroupVersion::V2, true) => Self::V2(file("memory.events")?),
            // The other file also counts the events of siblings. This one exists since Linux 5.2.
            (CgroupVersion::V2, false) => Self::V2(file("memory.events.local")?),
        })
    }

    /// Returns `sum` plus the events of these files.
    pub(super) fn add_to(
        &self,
        sum: CgroupEvents,
        text: &mut Vec<u8>,
    ) -> Result<CgroupEvents, SystemError> {
        let mut events = CgroupEvents::default();
        match self {
            Self::V1 { failures, control } => {
                if let Some(file) = failures {
                    events.max = file.record(text, parse::number)?;
                }
                if let Some(file) = control {
                    // Exists since Linux 4.13.
                    let kills = file.record(text, |text| parse::stat(text, "oom_kill"))?;
                    events.oom_kill = kills.unwrap_or(0);
                }
            }
            Self::V2(Some(file)) => events = file.record(text, counts)?,
            Self::V2(None) => {}
        }
        Ok(sum.plus(events))
    }
}

fn counts(text: &[u8]) -> Result<CgroupEvents, Garbled> {
    Ok(CgroupEvents {
        high: parse::count(text, "high")?,
        max: parse::count(text, "max")?,
        oom: parse::count(text, "oom")?,
        // Exists since Linux 4.13.
        oom_kill: parse::stat(text, "oom_kill")?.unwrap_or(0),
    })
}
