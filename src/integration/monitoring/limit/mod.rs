//! Sets the root's limit in force: the least of the configured limit, the limit that the kernel allows and the limit
//! that the process limit allows. No other code of the library moves the root's limit.

mod controller;

use self::controller::{Controller, Decision, Reading};
use super::headroom::{Headroom, MemorySource, clamp};
use crate::{
    advanced::budget::{Budget, Figures, NodeSnapshot},
    syscalls::info::ProcessMemory,
    utils::sync::{Mutex, lock},
};
use std::time::{Duration, Instant};

/// A raise by less than this part of the limit is delayed, because each raise wakes waiting requests.
const LEAST_RAISE: usize = 32;

/// The time to the next tick after a tick that decided nothing.
const LATER: Duration = Duration::from_millis(10);

/// The root's limit while a monitor moves it.
///
/// ```text
/// in force = min(configured, kernel, process), and never below the guarantees
///
/// kernel   = present + headroom - reserve          with `monitoring.follow_kernel`
/// headroom = bytes that a source of the kernel has left; the source with the least sum counts
/// present  = bytes that are reserved and resident (or mapped): the source counts them as used
///
/// process  = configured - overhead - margin        with `monitoring.process_limit`
/// overhead = resident - reserved; with the margin at least 12.5 % of the configured limit
/// margin   = 2 % of the configured limit; up to 6.25 % while the overhead rises fast
/// ```
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, core::config::MemoryConfig, integration::monitoring::Monitor};
///
/// let mut config = MemoryConfig::default();
/// config.set("monitoring.follow_kernel", "true")?;
/// let budget = Budget::root("process").build()?;
/// let monitor = Monitor::from_config(&budget, &config.monitoring)?;
///
/// let effective = monitor.sample().effective.expect("the limit follows");
/// assert_eq!(effective.configured, None);
/// assert_eq!(effective.limit, budget.limit(), "what the machine has left, or less");
/// drop(monitor);
/// assert_eq!(budget.limit(), None);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EffectiveLimit {
    /// The configured limit of the root in bytes: the last one that the monitor did not set. `None` if the
    /// root has no limit.
    pub configured: Option<usize>,
    /// The limit in force, in bytes.
    pub limit: Option<usize>,
    /// The source that decided the limit in force, if it is less than the configured limit.
    pub source: Option<MemorySource>,
    /// Bytes that are reserved beyond the limit in force, after managers were asked for them.
    pub excess: usize,
    /// Whether the guarantees below the root are more than the bytes that the kernel or the overhead leaves. The
    /// limit in force is then the sum of the guarantees.
    pub at_guarantees: bool,
    /// Bytes by which the process may exceed its configured limit, although the root has its smallest limit: the
    /// guarantees, or a tenth of the configured limit. 0 if the process limit can be kept.
    pub shortfall: usize,
    /// Whether the ledger refused a new limit. The last limit then stays.
    pub refused: bool,
    /// Whether a source is unknown, and may have a lower limit than the limit in force. Until it is known, the limit
    /// is not raised. See [`MemorySnapshot::unknown`](super::MemorySnapshot::unknown).
    pub uncertain: bool,
}

/// Moves the limit, one step for each sample or tick.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Bytes of the kernel's headroom that the root does not get; `None` if the limit does not follow the
    /// kernel.
    follow: Option<usize>,
    /// Whether the configured limit is the limit of the process.
    is_process: bool,
    slot: Mutex<Slot>,
    /// The end of the last purge and its duration. The next step takes them.
    purged: Mutex<Option<(Instant, Duration)>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    last: EffectiveLimit,
    /// The count of limit changes at the last change that was made here.
    times: u32,
    /// Whether a step is moving the limit. That may wake requests whose wakers take a sample.
    is_busy: bool,
    kernel: Option<(usize, MemorySource)>,
    process: Option<Decision>,
    controller: Controller,
}

/// Clears `is_busy` at the end of a step, even if a waker panics.
struct Turn<'a> {
    slot: &'a Mutex<Slot>,
    /// The next value of the slot.
    left: Slot,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(self.slot) = Slot { is_busy: false, ..self.left };
    }
}

/// The figures that only a sample has, not a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'a> {
    pub(super) node: &'a NodeSnapshot,
    pub(super) sources: &'a [Headroom],
    pub(super) process: Option<&'a ProcessMemory>,
    /// Whether every source could be read. If not, the limit may fall but not rise.
    pub(super) all_answered: bool,
}

/// Work that a step leaves for a caller that may run foreign code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Bytes to reclaim.
    pub(super) excess: usize,
    /// Whether the limit was moved.
    pub(super) is_moved: bool,
    /// Whether the heap must give memory back.
    pub(super) purge: bool,
    /// The shortfall, if it has just begun and must be reported.
    pub(super) news: Option<usize>,
    /// The time to the next tick.
    pub(super) next: Duration,
}

impl Due {
    const NOTHING: Self =
        Self { excess: 0, is_moved: false, purge: false, news: None, next: LATER };
}

impl Limiter {
    /// Creates a limiter. It follows the kernel if `follow` is `Some`, with that reserve.
    pub(super) fn new(root: &Budget, follow: Option<usize>, is_process: bool) -> Self {
        let (configured, times) = root.limit_as_set();
        let last = EffectiveLimit { configured, limit: configured, ..EffectiveLimit::default() };
        let slot = Slot {
            last,
            times,
            is_busy: false,
            kernel: None,
            process: None,
            controller: Controller::default(),
        };
        Self { follow, is_process, slot: Mutex::new(slot), purged: Mutex::new(None) }
    }

    pub(super) const fn is_process(&self) -> bool {
        self.is_process
    }

    pub(super) const fn set_process(&mut self) {
        self.is_process = true;
    }

    /// Moves the limit of `root` to the lowest limit. Runs no manager. A raise wakes requests.
    ///
    /// If a source could not be read, its last figure stays and raises no limit.
    pub(super) fn step(
        &self,
        root: &Budget,
        now: Instant,
        figures: Figures,
        resident: Option<usize>,
        whole: Option<Whole<'_>>,
    ) -> (EffectiveLimit, Due) {
        let mut turn = {
            let mut slot = lock(&self.slot);
            if slot.is_busy {
                return (slot.last, Due::NOTHING);
            }
            slot.is_busy = true;
            Turn { slot: &self.slot, left: *slot }
        };
        let left = &mut turn.left;
        let purged = lock(&self.purged).take();
        if let Some((at, took)) = purged {
            left.controller.purged(at, took);
        }
        let (current, times) = root.limit_as_set();
        // If the count differs, another caller has set the limit since.
        let configured = if times == left.times { left.last.configured } else { current };
        let most = configured.unwrap_or(usize::MAX);
        let in_force = current.unwrap_or(usize::MAX);
        let floor =
            whole.as_ref().map_or(figures.guaranteed, |whole| guaranteed(whole.node)).max(1);

        let mut at_guarantees = false;
        if let (Some(reserve), Some(whole)) = (self.follow, &whole)
            && let Some((bytes, source)) = leaves(figures.used, reserve, whole)
        {
            at_guarantees = bytes < floor.min(most);
            let bytes = bytes.max(floor);
            let before = left.kernel.map_or(usize::MAX, |(before, _)| before);
            let is_step = bytes.saturating_sub(before) >= before / LEAST_RAISE || bytes >= most;
            if bytes <= before || (whole.all_answered && is_step) {
                left.kernel = Some((bytes, source));
            } else if let Some((_, named)) = &mut left.kernel {
                *named = source;
            }
        } else if self.follow.is_some() {
            at_guarantees = left.last.at_guarantees;
        }
        let mut due = Due::NOTHING;
        if let (true, Some(limit), Some(resident)) = (self.is_process, configured, resident) {
            let Figures { used, undrawn, is_blocked, .. } = figures;
            let reading = Reading { limit, guaranteed: floor, used, undrawn, resident, is_blocked };
            let decision = left.controller.tick(now, reading);
            due.purge = decision.purge;
            due.news = decision.is_news.then_some(decision.shortfall);
            due.next = decision.next;
            left.process = Some(decision);
        } else if configured.is_none() {
            left.process = None;
        }

        let process = left.process.map(|decision| (decision.target, MemorySource::Process));
        let tightest = left.kernel.into_iter().chain(process).min_by_key(|&(bytes, _)| bytes);
        let wanted = tightest.map_or(in_force, |(bytes, _)| bytes.max(floor)).min(most);
        let mut excess = figures.used.saturating_sub(in_force);
        let moved =
            if wanted == in_force { Ok(None) } else { root.move_limit(times, wanted).map(Some) };
        let is_moved = match moved {
            // Another caller set the limit in this moment. The next step reads it.
            Ok(Some(None)) => return (left.last, due),
            Ok(Some(Some(beyond))) => {
                excess = beyond;
                true
            }
            Ok(None) | Err(_) => false,
        };
        left.times = times.wrapping_add(u32::from(is_moved));
        let in_force = if is_moved { wanted } else { in_force };
        let decision = left.process.unwrap_or_default();
        left.last = EffectiveLimit {
            configured,
            limit: (in_force != usize::MAX).then_some(in_force),
            source: tightest.filter(|_| in_force < most).map(|(_, source)| source),
            excess,
            at_guarantees: at_guarantees || decision.at_guarantees,
            shortfall: decision.shortfall,
            refused: moved.is_err(),
            // A tick reads no source of the kernel.
            uncertain: whole.map_or(left.last.uncertain, |whole| !whole.all_answered),
        };
        due.is_moved = is_moved;
        due.excess = if in_force < most { excess } else { 0 };
        (left.last, due)
    }

    /// Notes that a purge ended at `now` after `took`.
    pub(super) fn purged(&self, now: Instant, took: Duration) {
        *lock(&self.purged) = Some((now, took));
    }

    /// Restores the configured limit, unless another limit was set since.
    pub(super) fn end(&self, root: &Budget) {
        let Slot { last, times, .. } = *lock(&self.slot);
        if last.limit != last.configured {
            // An error means that the guarantee is now above the configured limit; the guarantee then binds
            // anyway.
            let _ = root.set_limit_after(times, last.configured.unwrap_or(usize::MAX));
        }
    }
}

/// Returns the bytes that cannot be taken from the node: its own guarantee, or the sum of the guarantees below it
/// if that is more.
fn guaranteed(node: &NodeSnapshot) -> usize {
    let below = node.children.iter().map(guaranteed);
    node.guarantee.max(below.fold(0, usize::saturating_add))
}

/// Returns the bytes that the kernel's sources leave for the root, and the source that decides.
fn leaves(used: usize, reserve: usize, whole: &Whole<'_>) -> Option<(usize, MemorySource)> {
    let present = |source: &Headroom| match (source.source, whole.process) {
        (_, None) => used,
        (MemorySource::AddressSpace, Some(process)) => used.min(clamp(process.address_space)),
        (MemorySource::Data, Some(process)) => used.min(clamp(process.data)),
        (_, Some(process)) => used.min(clamp(process.resident)),
    };
    let all = |source: &Headroom| present(source).saturating_add(clamp(source.headroom));
    let tightest = whole.sources.iter().min_by_key(|source| all(source))?;
    Some((all(tightest).saturating_sub(reserve), tightest.source))
}
