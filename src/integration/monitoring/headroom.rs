//! Computes one level and the time of the next sample from the figures.

use crate::{
    core::{PressureLevel, Watermarks},
    syscalls::info::{CgroupEvents, MemoryStall},
};
use core::fmt;
use std::time::{Duration, Instant};

/// A source of memory that may run out.
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::monitoring::MemorySource;
///
/// assert_eq!(MemorySource::CgroupHigh.to_string(), "cgroup high");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MemorySource {
    /// The limit of the tree of budgets. Its headroom is the sum of free bytes, bytes that managers could release, and
    /// unused guarantees.
    Budget,
    /// `memory.high` of the control group or of one above it. Beyond it the kernel slows the process down.
    CgroupHigh,
    /// The hard limit of the control group or of one above it. Beyond it the kernel kills a process.
    CgroupMax,
    /// The memory of the machine.
    Machine,
    /// The address space of the process (`RLIMIT_AS`).
    AddressSpace,
    /// The part of the address space that is private and writable (`RLIMIT_DATA`).
    Data,
    /// The limit of the process. The root's limit is this limit minus the overhead of the process. It occurs only as
    /// the source of an [`EffectiveLimit`](super::EffectiveLimit), never as that of a [`Headroom`].
    Process,
}

/// The number of sources.
pub(super) const SOURCES: usize = MemorySource::Process as usize + 1;

impl MemorySource {
    /// Returns the name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::CgroupHigh => "cgroup high",
            Self::CgroupMax => "cgroup max",
            Self::Machine => "machine",
            Self::AddressSpace => "address space",
            Self::Data => "data",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The bytes that one source has left; see
/// [`MemorySnapshot::tightest`](super::MemorySnapshot::tightest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Headroom {
    /// The source.
    pub source: MemorySource,
    /// The bytes that are left.
    pub headroom: u64,
    /// The limit of the source in bytes.
    pub limit: u64,
    /// The level by the [`Watermarks`].
    pub level: PressureLevel,
}

impl Headroom {
    /// Creates the headroom of `source`, without a level yet. Returns `None` if the limit or the headroom is not
    /// known.
    pub(super) fn new(
        source: MemorySource,
        limit: Option<u64>,
        headroom: Option<u64>,
    ) -> Option<Self> {
        let (limit, headroom) = limit.zip(headroom)?;
        Some(Self { source, headroom, limit, level: PressureLevel::Normal })
    }

    /// Like [`new`](Self::new), but computes the headroom from the bytes in use.
    pub(super) fn of_used(source: MemorySource, limit: Option<u64>, used: u64) -> Option<Self> {
        Self::new(source, limit, limit.map(|limit| limit.saturating_sub(used)))
    }

    /// Sets the level by the marks, with hysteresis from `previous`, and stores it in `previous`.
    pub(super) fn rate(&mut self, marks: Watermarks, previous: &mut PressureLevel) {
        // Counts from the headroom and not from the usage: an ancestor of a control group may be nearer to its
        // limit.
        let used = self.limit.saturating_sub(self.headroom);
        self.level = match self.limit {
            // A limit of 0 has nothing left.
            0 => PressureLevel::Critical,
            _ => marks.level(*previous, clamp(used), clamp(self.limit)),
        };
        *previous = self.level;
    }
}

/// Converts the kernel's 64-bit figures. A process cannot hold more than it can address.
pub(super) fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Returns the level of lost time and memory events. They come late and do not measure headroom, so they only
/// raise the level of the headroom.
pub(super) fn signalled(stall: Option<MemoryStall>, since: Option<CgroupEvents>) -> PressureLevel {
    // In hundredths of a percent of the time. Users notice if some task waits for a tenth of the time. Services
    // begin to miss their deadlines if all tasks wait for a fifth.
    const SOME: u16 = 1000;
    const FULL: u16 = 500;
    const LOST: u16 = 2000;
    let stalled = match stall {
        Some(stall) if stall.full_avg10 >= LOST => PressureLevel::Critical,
        Some(stall) if stall.full_avg10 >= FULL => PressureLevel::High,
        Some(stall) if stall.some_avg10 >= SOME => PressureLevel::Elevated,
        _ => PressureLevel::Normal,
    };
    let happened = match since {
        Some(events) if events.oom > 0 || events.oom_kill > 0 => PressureLevel::Critical,
        Some(events) if events.high > 0 => PressureLevel::Elevated,
        // Reaching a hard limit does not count: page cache alone does that in normal operation.
        _ => PressureLevel::Normal,
    };
    stalled.max(happened)
}

/// A level of pressure that rises at once and falls step by step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damped {
    pub(super) level: PressureLevel,
    /// The number of samples since the level was last reached. All of them had a lower level.
    calmer: u32,
    /// The time at which the level was last reached or last fell.
    since: Option<Instant>,
}

impl Damped {
    /// Moves the level after a sample of `level`.
    pub(super) fn follow(&mut self, level: PressureLevel, now: Instant, pace: &Pace) {
        let reached = level >= self.level;
        if reached {
            self.level = level;
        } else {
            self.calmer = self.calmer.saturating_add(1);
            let held = self.since.map_or(pace.hold, |since| now.saturating_duration_since(since));
            if self.calmer < pace.calm_samples || held < pace.hold {
                return;
            }
            self.level = below(self.level);
        }
        self.calmer = 0;
        self.since = Some(now);
    }
}

fn below(level: PressureLevel) -> PressureLevel {
    PressureLevel::ALL[(level as usize).saturating_sub(1)]
}

/// The options for how fast levels fall and how often samples are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) calm_samples: u32,
    pub(super) hold: Duration,
    /// # Invariants
    ///
    /// `least <= most`, as the validation of the configuration checks.
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Pace {
    /// Returns the time to the next sample. It is `most` if every source is below the first mark. Above that mark
    /// it falls in proportion to the headroom, down to `least` if nothing is left. `level` counts like a source
    /// whose headroom is at the mark of that level.
    pub(super) fn interval(
        &self,
        marks: Watermarks,
        level: PressureLevel,
        sources: &[Headroom],
    ) -> Duration {
        const WHOLE: u128 = 1000;
        let spare = |level| u128::from(100 - marks.percent(level));
        let at_first = spare(PressureLevel::Elevated);
        let shares = sources.iter().map(|source| {
            let headroom = u128::from(source.headroom) * 100 * WHOLE;
            // A limit of 0 has nothing left.
            headroom.checked_div(u128::from(source.limit) * at_first).unwrap_or(0)
        });
        let of_level = spare(level) * WHOLE / at_first;
        let share = shares.chain([of_level, WHOLE]).min().unwrap_or(WHOLE);
        // At most 1000.
        let share = u32::try_from(share).unwrap_or(1000);
        self.least + (self.most - self.least) * share / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::{Damped, Headroom, MemorySource, Pace, signalled};
    use crate::core::{PressureLevel, PressureLevel::*, Watermarks};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    const PACE: Pace = Pace {
        calm_samples: 3,
        hold: Duration::from_millis(100),
        least: Duration::from_millis(10),
        most: Duration::from_millis(1000),
    };

    #[test]
    fn a_level_falls_one_step_after_enough_calmer_samples_and_enough_time() {
        let mut damped = Damped::default();
        let start = Instant::now();
        // Milliseconds, the level of the sample, the level that follows.
        for (at, says, level) in [
            (0, Normal, Normal),
            (10, Critical, Critical),
            (200, Normal, Critical),
            (300, Normal, Critical),
            (310, Elevated, High),
            (320, Normal, High),
            (330, Normal, High),
            (340, Normal, High),
            (409, Normal, High),
            (410, Normal, Elevated),
            (520, Normal, Elevated),
            (530, Elevated, Elevated),
            (620, Normal, Elevated),
            (640, Normal, Elevated),
            (650, Normal, Normal),
            (651, High, High),
            // A clock that jumps back holds the level.
            (400, Normal, High),
            (401, Normal, High),
            (402, Normal, High),
            (751, Normal, Elevated),
        ] {
            damped.follow(says, start + Duration::from_millis(at), &PACE);
            assert_eq!(damped.level, level, "at {at}");
        }
    }

    #[test]
    fn a_load_that_alternates_does_not_flap() {
        let mut damped = Damped::default();
        let start = Instant::now();
        let mut changes = 0;
        for step in 0..1000_u32 {
            let before = damped.level;
            let says = if step % 3 == 0 { High } else { Normal };
            damped.follow(says, start + Duration::from_millis(60) * step, &PACE);
            changes += usize::from(damped.level != before);
        }
        assert_eq!((changes, damped.level), (1, High));
    }

    fn sources(limit: u64, headroom: u64) -> [Headroom; 1] {
        [Headroom::new(MemorySource::Machine, Some(limit), Some(headroom)).unwrap()]
    }

    #[test]
    fn the_interval_is_the_shorter_the_less_is_left() {
        let marks = Watermarks::default();
        let interval =
            |level, headroom| PACE.interval(marks, level, &sources(1000, headroom)).as_millis();
        assert_eq!([1000, 300, 150, 0].map(|left| interval(Normal, left)), [1000, 1000, 505, 10]);
        assert_eq!([Elevated, High, Critical].map(|level| interval(level, 1000)), [1000, 505, 174]);
        assert_eq!(PACE.interval(marks, Normal, &[]), PACE.most);
        assert_eq!(PACE.interval(marks, Critical, &sources(0, 0)), PACE.least, "nothing is left");
    }

    #[test]
    fn nothing_happened_is_no_level() {
        assert_eq!(signalled(None, None), Normal);
    }

    proptest! {
        #[test]
        fn a_damped_level_is_never_below_its_input_and_falls_by_steps(
            says in proptest::collection::vec((0usize..4, 0u64..80), 0..60),
        ) {
            let mut damped = Damped::default();
            let mut now = Instant::now();
            for (level, later) in says {
                let (level, before) = (PressureLevel::ALL[level], damped.level);
                now += Duration::from_millis(later);
                damped.follow(level, now, &PACE);
                prop_assert!(damped.level >= level);
                prop_assert!(damped.level as usize + 1 >= before as usize);
            }
        }

        #[test]
        fn an_interval_is_within_its_bounds(
            level in 0usize..4, limit in any::<u64>(), headroom in any::<u64>(),
        ) {
            let marks = Watermarks::default();
            let interval = PACE.interval(marks, PressureLevel::ALL[level], &sources(limit, headroom));
            prop_assert!((PACE.least..=PACE.most).contains(&interval));
        }
    }
}
