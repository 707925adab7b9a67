//! The cause of the level, and the relief that would lower it.

use super::headroom::{Damped, Headroom, MemorySource, Pace};
use crate::{
    core::{PressureLevel, Watermarks, types::ByteSize},
    syscalls::info::{CgroupEvents, MemoryStall},
};
use core::fmt;
use std::time::{Duration, Instant};

/// The cause of a level of pressure above normal.
///
/// # Examples
///
/// ```
/// use nebula_memory::{
///     Budget, Watermarks, integration::monitoring::{Monitor, PressureCause, PressureRelief},
/// };
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let monitor = Monitor::new(&budget, Watermarks::default());
/// assert!(budget.try_reserve(1001).is_err());
///
/// let snapshot = monitor.sample();
/// assert_eq!(snapshot.cause, Some(PressureCause::Refused(1)));
/// assert_eq!(snapshot.relief, Some(PressureRelief::Requests));
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

/// The change that would lower the level of pressure.
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::monitoring::PressureRelief;
///
/// assert_eq!(PressureRelief::Headroom(2048).to_string(), "2.0 KiB more would lower it");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PressureRelief {
    /// This number of bytes: release them to the source that decided the level, or add them to its limit.
    Headroom(u64),
    /// Memory for the requests that wait or were refused: release some, or raise the limit.
    Requests,
    /// An end of the lost time or the memory events that the kernel reports.
    Kernel,
    /// Only time: memory is not short any more. The level falls by one step after more samples that are as calm
    /// as this one.
    Calm {
        /// The number of calm samples that are still needed, at least 1.
        samples: u32,
        /// The time that must still pass.
        time: Duration,
    },
}

impl fmt::Display for PressureRelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headroom(bytes) => {
                write!(f, "{} more would lower it", ByteSize::b(*bytes).display().iec())
            }
            Self::Requests => f.write_str("memory given back, or a larger limit, would lower it"),
            Self::Kernel => f.write_str("lower once the kernel reports no more"),
            Self::Calm { samples, .. } => write!(f, "lower after {samples} more calm samples"),
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

/// Returns the cause of `level`, which is the highest level of this sample, and the change that would lower it.
pub(super) fn of_sample(
    level: PressureLevel,
    requests: Requests,
    sources: &[Headroom],
    marks: Watermarks,
    signals: (Option<MemoryStall>, Option<CgroupEvents>),
) -> Option<(PressureCause, PressureRelief)> {
    if level == PressureLevel::Normal {
        return None;
    }
    if requests.level() == level {
        let cause = match requests {
            Requests { waiting: 0, refused } => PressureCause::Refused(refused),
            Requests { waiting, .. } => PressureCause::Waiting(waiting),
        };
        return Some((cause, PressureRelief::Requests));
    }
    let tight = sources.iter().filter(|source| source.level == level);
    if let Some(source) = tight.min_by_key(|source| source.headroom) {
        let relief = PressureRelief::Headroom(missing(source, marks));
        return Some((PressureCause::Headroom(source.source), relief));
    }
    let (stall, _) = signals;
    let is_stall = super::headroom::signalled(stall, None) == level;
    let cause = if is_stall { PressureCause::LostTime } else { PressureCause::KernelEvents };
    Some((cause, PressureRelief::Kernel))
}

/// Returns the number of bytes that must be released to end the level of `source`.
fn missing(source: &Headroom, marks: Watermarks) -> u64 {
    let end = u128::from(marks.percent(source.level).saturating_sub(marks.hysteresis()));
    // The level stays as long as at least this many bytes are used.
    let kept = (end * u128::from(source.limit)).div_ceil(100);
    let kept = u64::try_from(kept).unwrap_or(u64::MAX);
    let used = source.limit.saturating_sub(source.headroom);
    (used.saturating_add(1)).saturating_sub(kept).max(1)
}

impl Damped {
    /// Returns the number of samples and the time until the level falls by a step, if every sample is as calm as
    /// the last.
    pub(super) fn calm(&self, now: Instant, pace: &Pace) -> PressureRelief {
        let held = self.since.map_or(pace.hold, |since| now.saturating_duration_since(since));
        PressureRelief::Calm {
            samples: pace.calm_samples.saturating_sub(self.calmer).max(1),
            time: pace.hold.saturating_sub(held),
        }
    }
}
