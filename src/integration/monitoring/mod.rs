//! One look that says who holds what.
//!
//! A [`Monitor`] watches a tree of budgets. [`Monitor::sample`] reads the tree, the process, the
//! machine and the control group, decides the [`PressureLevel`], and returns all of it as one
//! [`MemorySnapshot`], which prints as an aligned table and, with feature `serde`, serialises.
//!
//! ```text
//!   sources of headroom                level of each      one level              what follows
//!
//!   budget           limit - used      ┐
//!   cgroup high      and all above it  │  Watermarks,      the worst: up at
//!   cgroup max       and all above it  ├─ with hysteresis ─once, down by one ─┬─ next_interval
//!   machine          MemAvailable      │                ↗  step at a time     │
//!   address space    RLIMIT_AS         │               │   after calm samples └─ effective limit of
//!   data             RLIMIT_DATA       ┘               │                         the root, if wanted
//!   lost time (PSI), memory events ────────────────────┘
//! ```
//!
//! Each source says how many bytes are left, against which limit; [`MemorySnapshot::tightest`] is the
//! one that runs out first. Lost time and events raise the level and never lower it. With version 2
//! of the control groups the lost time is that of the process's own group, else the machine's.
//!
//! A source that the platform does not have is left out. A source that cannot be read is *unknown*: it
//! is in [`MemorySnapshot::unknown`], with the file and the reason, and it is tried again. It lowers
//! limits by what is known of it, and never raises one. What takes the
//! kernel long to say, or changes rarely, is up to 100 ms old: the machine's figures, the peak of what
//! is resident, and of the control group the limits and the page cache that is not in use.
//!
//! With `monitoring.follow_kernel` a sample also moves the limit of the root, where the kernel leaves
//! less than that: see [`EffectiveLimit`].
#![forbid(unsafe_code)]

mod follow;
mod kernel;
mod scale;
mod table;
mod thread;

pub use self::{
    follow::EffectiveLimit,
    kernel::UnknownSource,
    scale::{Headroom, MemorySource},
    thread::MonitorThread,
};

use self::{
    follow::Follower,
    kernel::{Kept, Kernel},
    scale::{Damped, Pace, SOURCES},
};
use crate::{
    advanced::budget::{Budget, NodeSnapshot},
    core::{Label, PressureLevel, Watermarks, config::MonitoringConfig, error::ConfigError},
    integration::traits::{Event, EventKind, EventQueue},
    syscalls::info::{
        CgroupEvents, CgroupMemory, MachineMemory, MemoryStall, ProcessMemory, Sources,
    },
    utils::sync::{Mutex, lock},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

/// What the kernel leaves and the root is not to have, where nothing else is said: more than stacks,
/// code and a heap's slack grow by between two samples under pressure.
const RESERVE: usize = 16 << 20;

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
    marks: Watermarks,
    pace: Pace,
    /// Found once, with its files kept open.
    kernel: Kernel,
    /// `None` where the limit does not follow the kernel.
    follower: Option<Follower>,
    events: Option<Arc<EventQueue>>,
    state: Mutex<State>,
}

/// What one sample leaves for the next.
#[derive(Debug)]
struct State {
    kept: Kept,
    /// By [`MemorySource`], for the hysteresis.
    levels: [PressureLevel; SOURCES],
    damped: Damped,
    next_interval: Duration,
}

impl Monitor {
    /// Watches `root` and what is below it; all but the marks as in the default configuration.
    #[must_use]
    pub fn new(root: &Budget, watermarks: Watermarks) -> Self {
        Self::build(root, &MonitoringConfig::default(), watermarks, None, &Sources::kernel())
    }

    /// Watches `root` as a configuration says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where the marks or the intervals are not in order.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::config::MemoryConfig, integration::monitoring::Monitor};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("monitoring.max_interval_ms", "250")?;
    /// let budget = Budget::root("process").build()?;
    /// let monitor = Monitor::from_config(&budget, &config.monitoring)?;
    /// assert_eq!(monitor.next_interval().as_millis(), 250);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn from_config(root: &Budget, config: &MonitoringConfig) -> Result<Self, ConfigError> {
        Self::with_sources(root, config, &Sources::kernel())
    }

    /// As [`from_config`](Self::from_config), with the kernel's files where `sources` says.
    ///
    /// # Errors
    ///
    /// As [`from_config`](Self::from_config).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{
    ///     Budget, core::config::MemoryConfig, integration::monitoring::Monitor,
    ///     syscalls::info::Sources,
    /// };
    ///
    /// let config = MemoryConfig::default().monitoring;
    /// let budget = Budget::root("process").build()?;
    /// let monitor = Monitor::with_sources(&budget, &config, &Sources::under("/nowhere"))?;
    /// assert_eq!(monitor.sample().machine, None);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn with_sources(
        root: &Budget,
        config: &MonitoringConfig,
        sources: &Sources,
    ) -> Result<Self, ConfigError> {
        let (marks, reserve) = config.validate()?;
        Ok(Self::build(root, config, marks, reserve, sources))
    }

    /// From a configuration that is valid.
    fn build(
        root: &Budget,
        config: &MonitoringConfig,
        marks: Watermarks,
        reserve: Option<usize>,
        sources: &Sources,
    ) -> Self {
        let milliseconds = |count: u32| Duration::from_millis(count.into());
        let pace = Pace {
            calm_samples: config.calm_samples,
            hold: milliseconds(config.hold_ms),
            least: milliseconds(config.min_interval_ms),
            most: milliseconds(config.max_interval_ms),
        };
        let kernel = Kernel::open(sources);
        let state = State {
            kept: kernel.kept(),
            levels: [PressureLevel::Normal; SOURCES],
            damped: Damped::default(),
            next_interval: pace.most,
        };
        let follower =
            config.follow_kernel.then(|| Follower::new(root, reserve.unwrap_or(RESERVE)));
        let root = root.clone();
        Self { root, marks, pace, kernel, follower, events: None, state: Mutex::new(state) }
    }

    /// Tells the queue when the level has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, Watermarks, integration::monitoring::Monitor};
    /// use nebula_memory::integration::traits::EventQueue;
    /// use std::sync::Arc;
    ///
    /// let events = Arc::new(EventQueue::new(10));
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let monitor = Monitor::new(&budget, Watermarks::default()).with_events(&events);
    /// let held = budget.try_reserve(960)?;
    /// let _ = monitor.sample();
    /// assert_eq!(events.pop().unwrap().to_string(), "process is at critical pressure");
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn with_events(mut self, queue: &Arc<EventQueue>) -> Self {
        self.events = Some(Arc::clone(queue));
        self
    }

    /// Reads every source once, and moves the limit of the root if it is to follow.
    ///
    /// # Complexity
    ///
    /// Linear in the nodes and managers of the tree, and a few reads of kernel files: some ten
    /// microseconds, and some tens once in 100 ms. Where the limit is lowered, the managers that are
    /// asked for memory besides.
    ///
    /// # Examples
    ///
    /// See [`Monitor`].
    #[must_use]
    pub fn sample(&self) -> MemorySnapshot {
        self.sample_at(Instant::now())
    }

    /// As [`sample`](Self::sample), by a clock of the caller's: `now` is when the sample is taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, PressureLevel, Watermarks, integration::monitoring::Monitor};
    /// use std::time::{Duration, Instant};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let monitor = Monitor::new(&budget, Watermarks::default());
    /// let start = Instant::now();
    /// let held = budget.try_reserve(960)?;
    /// assert_eq!(monitor.sample_at(start).level, PressureLevel::Critical);
    /// drop(held);
    ///
    /// let snapshot = monitor.sample_at(start + Duration::from_secs(1));
    /// assert_eq!(snapshot.budget_level, PressureLevel::Normal);
    /// assert_eq!(snapshot.level, PressureLevel::Critical, "one calm sample is not enough");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn sample_at(&self, now: Instant) -> MemorySnapshot {
        let figures = self.kernel.read(&mut lock(&self.state).kept, now);
        let mut sources = figures.headroom();
        let mut root = self.root.snapshot();
        // No lock is held: managers are asked.
        let effective = self.follower.as_ref().map(|follower| {
            let process = figures.process.as_ref();
            let (effective, acted) =
                follower.follow(&self.root, &root, &sources, process, figures.is_whole);
            if acted {
                root = self.root.snapshot();
            }
            effective
        });
        let (limit, used) = (root.usage.capacity, root.usage.used as u64);
        let limit = limit.map(|limit| limit as u64);
        sources.splice(..0, Headroom::of_used(MemorySource::Budget, limit, used));

        let signal_level = scale::signalled(figures.stall, figures.since);
        let mut state = lock(&self.state);
        let before = std::mem::take(&mut state.levels);
        for source in &mut sources {
            let mut level = before[source.source as usize];
            source.rate(self.marks, &mut level);
            state.levels[source.source as usize] = level;
        }
        let level = state.levels.into_iter().fold(signal_level, PressureLevel::max);
        let was = state.damped.level;
        state.damped.follow(level, now, &self.pace);
        let level = state.damped.level;
        if let Some(events) = self.events.as_ref().filter(|_| level != was) {
            let component = Label::new(self.root.name());
            events.push(Event::new(component, EventKind::Pressure, level, 0));
        }
        state.next_interval = self.pace.interval(self.marks, level, &sources);
        MemorySnapshot {
            level,
            budget_level: state.levels[MemorySource::Budget as usize],
            signal_level,
            next_interval: state.next_interval,
            sources,
            effective,
            process: figures.process,
            machine: figures.machine,
            cgroup: figures.cgroup,
            stall: figures.stall,
            events: figures.events,
            events_since: figures.since,
            unknown: figures.unknown,
            root,
        }
    }

    /// The level of the last sample.
    ///
    /// # Examples
    ///
    /// See [`Monitor::spawn`].
    #[must_use]
    pub fn level(&self) -> PressureLevel {
        lock(&self.state).damped.level
    }

    /// How long to wait after the last sample until the next: the shorter the less is left, between
    /// `monitoring.min_interval_ms` and `monitoring.max_interval_ms`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, Watermarks, integration::monitoring::Monitor};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let monitor = Monitor::new(&budget, Watermarks::default());
    /// let held = budget.try_reserve(1000)?;
    /// let snapshot = monitor.sample();
    /// assert_eq!(monitor.next_interval(), snapshot.next_interval);
    /// assert_eq!(snapshot.next_interval.as_millis(), 10, "nothing is left");
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn next_interval(&self) -> Duration {
        lock(&self.state).next_interval
    }
}

/// The limit of the root is as configured again.
impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.end(&self.root);
        }
    }
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
    /// How tight memory is: the worst that all sources and signals say. It rises at once, and falls by
    /// one step when enough samples have been calmer for long enough.
    pub level: PressureLevel,
    /// How tight it is for the tree of budgets alone.
    pub budget_level: PressureLevel,
    /// What lost time and events say alone.
    pub signal_level: PressureLevel,
    /// How long to wait until the next sample.
    pub next_interval: Duration,
    /// What each source leaves that has a bound: the budget's first, then the kernel's.
    pub sources: Vec<Headroom>,
    /// The limit of the root, where it follows what the kernel leaves.
    pub effective: Option<EffectiveLimit>,
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
    /// The sources that could not be read. They may have tighter bounds than `sources`; while one of the
    /// control group, the process or the machine is unknown, no limit is raised. A source that has no
    /// figures and is not listed here does not exist on this platform or for this process.
    pub unknown: Vec<UnknownSource>,
    /// The tree of budgets.
    pub root: NodeSnapshot,
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

    /// Bytes resident beyond those on the ledger: code, stacks, and memory that nobody charged.
    /// `None` where the platform does not say what is resident.
    #[must_use]
    pub fn unaccounted(&self) -> Option<u64> {
        let resident = self.process.as_ref()?.resident;
        Some(resident.saturating_sub(self.root.usage.used as u64))
    }
}
