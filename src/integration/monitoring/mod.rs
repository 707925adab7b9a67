//! Snapshots of all memory: the tree of budgets, the process, the machine and the control group.
//!
//! A [`Monitor`] watches a tree of budgets. [`Monitor::sample`] reads the tree, the process, the machine and the
//! control group, and computes the [`PressureLevel`]. It returns a [`MemorySnapshot`], which prints as a table
//! and, with feature `serde`, serialises.
//!
//! ```text
//!   sources of headroom                level of each      one level              what follows
//!
//!   budget           see below         ┐
//!   cgroup high      and all above it  │  Watermarks,      the worst: up at
//!   cgroup max       and all above it  ├─ with hysteresis ─once, down by one ─┬─ next_interval
//!   machine          MemAvailable      │                ↗  step at a time     │
//!   address space    RLIMIT_AS         │               │   after calm samples └─ effective limit of
//!   data             RLIMIT_DATA       ┘               │                         the root, if wanted
//!   lost time (PSI), memory events ────────────────────┤
//!   requests that wait or were refused ────────────────┘
//! ```
//!
//! # Levels
//!
//! Bytes that a manager can release cause no pressure. The headroom of the budget is its limit minus the reserved
//! bytes that no manager can release. So the level is [`Normal`](PressureLevel::Normal) if the budget is filled by a
//! cache that can evict, or by unused guarantees. It is [`Critical`](PressureLevel::Critical) if a request waits, or
//! was refused since the last sample. Each snapshot names the [cause](MemorySnapshot::cause) of its level.
//!
//! Each source has a limit and a headroom, the bytes that are left; [`MemorySnapshot::tightest`] returns the source
//! with the least headroom. Two signals may raise the level and never lower it: the time that tasks lost because memory
//! was short (PSI), and memory events of the control group. The lost time is measured in the process's own group with
//! version 2 of control groups, and on the whole machine otherwise.
//!
//! A source that the platform does not have is left out. A source that cannot be read is *unknown*. It is in
//! [`MemorySnapshot::unknown`] with an error that names the file, and the monitor tries again to read it. If only some
//! figures of a source cannot be read, its other figures may lower a limit, but never raise one.
//!
//! Some figures are up to 100 ms old, because they are slow to read or rarely change: the figures of the machine, the
//! peak of resident bytes, and the limits and the unused page cache of the control group.
//!
//! # Limits
//!
//! With `monitoring.follow_kernel` a sample also lowers the root's limit if the kernel has fewer bytes left than the
//! configured limit. With `monitoring.process_limit`, or [`Monitor::with_process_limit`], the configured limit of the
//! root bounds the resident memory of the process. The lowest of these limits is in force: see [`EffectiveLimit`].
#![forbid(unsafe_code)]

mod cause;
mod headroom;
mod hook;
mod kernel;
mod limit;
mod process;
mod relief;
mod snapshot;
mod table;
mod thread;

pub use self::{
    cause::PressureCause,
    headroom::{Headroom, MemorySource},
    limit::EffectiveLimit,
    snapshot::MemorySnapshot,
    thread::MonitorThread,
};

use self::{
    cause::Requests,
    headroom::{Damped, Pace, SOURCES, clamp},
    hook::Hook,
    kernel::{Kept, Kernel},
    limit::{Limiter, Whole},
    process::trim,
    relief::Relief,
    snapshot::reclaimable,
};
use crate::{
    advanced::budget::Budget,
    core::{Label, PressureLevel, Watermarks, config::MonitoringConfig, error::ConfigError},
    integration::traits::{Event, EventKind, EventQueue},
    syscalls::info::Sources,
    utils::sync::{Mutex, lock},
};
use std::{
    boxed::Box,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

/// The default reserve: bytes of the kernel's headroom that the root does not get. Under pressure, stacks, code
/// and free memory of the heap grow by less than this between two samples.
const RESERVE: usize = 16 << 20;

/// A function that is called with each new level.
type Listener = Box<dyn Fn(PressureLevel) + Send + Sync>;

/// Watches one tree of budgets: takes snapshots, computes the pressure, and may move the root's limit.
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
    /// The kernel's files. They stay open.
    kernel: Kernel,
    /// `None` if the monitor does not move the limit.
    limiter: Option<Limiter>,
    relief: Relief,
    /// The buffer for the text that a tick reads.
    text: Mutex<Vec<u8>>,
    events: Option<Arc<EventQueue>>,
    listeners: Vec<Hook<Listener>>,
    state: Mutex<State>,
}

/// The state that one sample leaves for the next.
#[derive(Debug)]
struct State {
    kept: Kept,
    /// The last level of each [`MemorySource`], for the hysteresis.
    levels: [PressureLevel; SOURCES],
    damped: Damped,
    /// The cause of the level when it was last reached.
    cause: Option<PressureCause>,
    /// The number of requests that were refused before the last sample.
    refused: u64,
    next_interval: Duration,
}

impl Monitor {
    /// Creates a monitor of `root` and of the nodes below it, with `watermarks`. All other options have their
    /// defaults.
    #[must_use]
    pub fn new(root: &Budget, watermarks: Watermarks) -> Self {
        Self::build(root, &MonitoringConfig::default(), watermarks, None, &Sources::kernel())
    }

    /// Creates a monitor of `root` with a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the marks or the intervals are not in order, or if a number of samples or an
    /// interval is 0.
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
        let (marks, reserve) = config.validate()?;
        Ok(Self::build(root, config, marks, reserve, &Sources::kernel()))
    }

    /// Like [`from_config`](Self::from_config), but reads the kernel's files below `directory`: for example below
    /// `/host`, if the files of a host are mounted there.
    ///
    /// # Errors
    ///
    /// The same as for [`from_config`](Self::from_config).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::config::MemoryConfig, integration::monitoring::Monitor};
    ///
    /// let config = MemoryConfig::default().monitoring;
    /// let budget = Budget::root("process").build()?;
    /// let monitor = Monitor::from_config_under(&budget, &config, "/nowhere")?;
    /// let snapshot = monitor.sample();
    /// assert_eq!(snapshot.machine, None);
    /// if let Some(error) = snapshot.unknown.get("machine") {
    ///     assert_eq!(error.path.as_deref(), Some("/nowhere/proc/meminfo"));
    /// }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn from_config_under(
        root: &Budget,
        config: &MonitoringConfig,
        directory: impl Into<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let (marks, reserve) = config.validate()?;
        Ok(Self::build(root, config, marks, reserve, &Sources::under(directory)))
    }

    /// Creates a monitor from a configuration that was validated.
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
            cause: None,
            refused: root.figures().refused,
            next_interval: pace.most,
        };
        let follow = config.follow_kernel.then(|| reserve.unwrap_or(RESERVE));
        let is_moved = config.follow_kernel || config.process_limit;
        Self {
            root: root.clone(),
            marks,
            pace,
            kernel,
            limiter: is_moved.then(|| Limiter::new(root, follow, config.process_limit)),
            relief: Relief::new(trim),
            text: Mutex::new(Vec::new()),
            events: None,
            listeners: Vec::new(),
            state: Mutex::new(state),
        }
    }

    /// Puts an event into `queue` at each change of the level.
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

    /// Calls `listener` with each new level, on the thread that takes the sample. May be called
    /// several times, once for each listener.
    ///
    /// A slow listener delays the next sample, and nothing else. A listener that panics is not
    /// called again.
    ///
    /// # Examples
    ///
    /// Allocators that refuse large blocks while memory is tight:
    ///
    /// ```
    /// use nebula_memory::{Budget, Monitor, PressureLevel, Watermarks};
    /// use nebula_memory::allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator};
    /// use std::sync::Arc;
    ///
    /// let scratch = MonitoredAllocator::new(SystemAllocator);
    /// let scratch = Arc::new(scratch.refuse_above(PressureLevel::Critical, 1 << 20));
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let monitor = Monitor::new(&budget, Watermarks::default()).on_level({
    ///     let scratch = Arc::clone(&scratch);
    ///     move |level| scratch.set_level(level)
    /// });
    ///
    /// let held = budget.try_reserve(960)?;
    /// assert_eq!(monitor.sample().level, PressureLevel::Critical);
    /// assert!((&*scratch).alloc_slice_fill_with((1 << 20) + 1, |_| 0_u8).is_err());
    /// drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn on_level(mut self, listener: impl Fn(PressureLevel) + Send + Sync + 'static) -> Self {
        self.listeners.push(Hook::new(Box::new(listener)));
        self
    }

    /// Calls the listeners with a new level. If another sample changes the level meanwhile, calls them again with
    /// that level.
    fn tell(&self, mut level: PressureLevel) {
        loop {
            for listener in &self.listeners {
                listener.run(|listener| listener(level));
            }
            let now = self.level();
            if now == level {
                break;
            }
            level = now;
        }
    }

    /// Takes a sample: reads every source once. If the root's limit follows the kernel or the process limit, also
    /// moves that limit.
    ///
    /// # Complexity
    ///
    /// Linear in the nodes and managers of the tree. Reading the kernel's files takes about 10 µs, and once in
    /// 100 ms about 90 µs. If the limit is lowered, the sample also reclaims memory from managers.
    #[must_use]
    pub fn sample(&self) -> MemorySnapshot {
        self.sample_at(Instant::now())
    }

    /// Like [`sample`](Self::sample), with `now` as the current time.
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
        let mut ledger = self.root.figures();
        let process = figures.process.as_ref();
        // No lock is held here, because managers are called.
        let effective = self.limiter.as_ref().map(|limiter| {
            let resident = process.map(|process| clamp(process.resident));
            let all_answered = figures.is_whole;
            let whole = Whole { node: &root, sources: &sources, process, all_answered };
            let (mut effective, due) = limiter.step(&self.root, now, ledger, resident, Some(whole));
            self.tell_shortfall(&due);
            if self.relief.note(&due) {
                self.relieve(now);
            }
            if due.is_moved || due.excess > 0 || due.purge {
                root = self.root.snapshot();
                ledger = self.root.figures();
                let most = effective.limit.unwrap_or(usize::MAX);
                effective.excess = ledger.used.saturating_sub(most);
            }
            effective
        });
        let limit = root.usage.capacity.map(|limit| limit as u64);
        let stuck = root.usage.used.saturating_sub(ledger.undrawn);
        let stuck = stuck.saturating_sub(reclaimable(&root));
        sources.splice(..0, Headroom::of_used(MemorySource::Budget, limit, stuck as u64));
        let held = root.usage.used.saturating_sub(ledger.undrawn) as u64;
        let overhead = process.map(|process| process.resident.saturating_sub(held));

        let signal_level = headroom::signalled(figures.stall, figures.since);
        let mut state = lock(&self.state);
        let requests = Requests {
            waiting: ledger.waiting,
            refused: ledger.refused.saturating_sub(state.refused),
        };
        state.refused = ledger.refused;
        let before = std::mem::take(&mut state.levels);
        for source in &mut sources {
            let mut level = before[source.source as usize];
            source.rate(self.marks, &mut level);
            state.levels[source.source as usize] = level;
        }
        let budget_level = state.levels[MemorySource::Budget as usize].max(requests.level());
        let says =
            state.levels.into_iter().fold(signal_level.max(budget_level), PressureLevel::max);
        let was = state.damped.level;
        state.damped.follow(says, now, &self.pace);
        let level = state.damped.level;
        if let Some(events) = self.events.as_ref().filter(|_| level != was) {
            let component = Label::new(self.root.name());
            events.push(Event::new(component, EventKind::Pressure, level, 0));
        }
        let cause = cause::of_sample(says, requests, &sources, figures.stall);
        if says == level {
            state.cause = cause;
        }
        let next_interval = self.pace.interval(self.marks, level, &sources);
        state.next_interval = next_interval;
        let cause = state.cause;
        drop(state);
        if level != was {
            self.tell(level);
        }
        MemorySnapshot {
            level,
            budget_level,
            signal_level,
            cause,
            next_interval,
            sources,
            effective,
            overhead,
            guaranteed_unused: ledger.undrawn,
            waiting: requests.waiting,
            refused_since: requests.refused,
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

    /// Returns the level of the last sample.
    #[must_use]
    pub fn level(&self) -> PressureLevel {
        lock(&self.state).damped.level
    }

    /// Returns the time from the last sample to the next. The less memory is left, the shorter it is. It is between
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

/// Restores the configured limit of the root.
impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(limiter) = &self.limiter {
            limiter.end(&self.root);
        }
    }
}
