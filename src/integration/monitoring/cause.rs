//! The cause of the level.

use super::headroom::{Headroom, MemorySource};
use crate::{core::PressureLevel, syscalls::info::MemoryStall};
use core::fmt;

/// The cause of a level of pressure above normal.
///
/// # Examples
///
/// ```
/// use nebula_memory::{
///     Budget, Watermarks, integration::monitoring::{Monitor, PressureCause},
/// };
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let monitor = Monitor::new(&budget, Watermarks::default());
/// assert!(budget.try_reserve(1001).is_err());
///
/// assert_eq!(monitor.sample().cause, Some(PressureCause::Refused(1)));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PressureCause {
    /// A source has little left.
    Headroom(MemorySource),
    /// This number of requests waits for memory of the tree.
    Waiting(usize),
    /// The tree refused this number of requests since the last sample.
    Refused(u64),
    /// Tasks of the control group or of the machine lose time because memory is short.
    LostTime,
    /// The control group reached its limits, or the kernel killed a process in it.
    KernelEvents,
}

impl fmt::Display for PressureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headroom(source) => write!(f, "little {source} left"),
            Self::Waiting(1) => f.write_str("1 request waits"),
            Self::Waiting(requests) => write!(f, "{requests} requests wait"),
            Self::Refused(1) => f.write_str("1 request refused"),
            Self::Refused(requests) => write!(f, "{requests} requests refused"),
            Self::LostTime => f.write_str("time lost for want of memory"),
            Self::KernelEvents => f.write_str("events of the control group"),
        }
    }
}

/// Requests of the tree that did not get their memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requests {
    /// The number of requests that wait now.
    pub(super) waiting: usize,
    /// The number of requests that were refused since the last sample.
    pub(super) refused: u64,
}

impl Requests {
    /// Returns the highest level if a request waits or was refused, because no manager could release memory for
    /// it.
    pub(super) const fn level(self) -> PressureLevel {
        if self.waiting > 0 || self.refused > 0 {
            PressureLevel::Critical
        } else {
            PressureLevel::Normal
        }
    }
}

/// Returns the cause of `level`, which is the highest level of this sample.
pub(super) fn of_sample(
    level: PressureLevel,
    requests: Requests,
    sources: &[Headroom],
    stall: Option<MemoryStall>,
) -> Option<PressureCause> {
    if level == PressureLevel::Normal {
        return None;
    }
    if requests.level() == level {
        return Some(match requests {
            Requests { waiting: 0, refused } => PressureCause::Refused(refused),
            Requests { waiting, .. } => PressureCause::Waiting(waiting),
        });
    }
    let tight = sources.iter().filter(|source| source.level == level);
    if let Some(source) = tight.min_by_key(|source| source.headroom) {
        return Some(PressureCause::Headroom(source.source));
    }
    let is_stall = super::headroom::signalled(stall, None) == level;
    Some(if is_stall { PressureCause::LostTime } else { PressureCause::KernelEvents })
}
