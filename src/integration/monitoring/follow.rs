//! The root's limit, which follows what the kernel leaves.

use super::scale::{Headroom, MemorySource, clamp};
use crate::{
    advanced::budget::{Budget, NodeSnapshot},
    syscalls::info::ProcessMemory,
    utils::sync::{Mutex, lock},
};

/// A raise by less than this part of the limit waits: each one wakes those who wait for memory.
const LEAST_RAISE: usize = 32;

/// The limit of the root while it follows what the kernel leaves.
///
/// ```text
/// in force = min(configured, present + headroom - reserve), and never below the guarantees
/// headroom = what a source of the kernel's leaves; the source that makes the sum least counts
/// present  = what is both on the ledger and in the source's figures, which is resident, or mapped:
///            what is promised and not touched yet is still part of the headroom
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
    /// The root's own limit, as somebody else set it last; `None` for none.
    pub configured: Option<usize>,
    /// The limit in force.
    pub limit: Option<usize>,
    /// Whose headroom put it there, where it is less than the configured one.
    pub source: Option<MemorySource>,
    /// Bytes held beyond it, after managers were asked for them.
    pub excess: usize,
    /// The kernel leaves less than is guaranteed below the root. The limit stays at the guarantees.
    pub at_guarantees: bool,
    /// The ledger refused another limit; the last one stays.
    pub refused: bool,
    /// A source is unknown, and may have a tighter bound than the limit in force. Until it is known, the
    /// limit is not raised. See [`MemorySnapshot::unknown`](super::MemorySnapshot::unknown).
    pub uncertain: bool,
}

/// Moves the limit, for one sample at a time.
#[derive(Debug)]
pub(super) struct Follower {
    reserve: usize,
    slot: Mutex<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    last: EffectiveLimit,
    /// How often the limit had been set when it was set here last.
    times: u32,
    /// A sample is moving the limit, which asks managers: one of them may take a sample itself.
    is_busy: bool,
}

/// Gives the slot back, also when a manager unwinds.
struct Turn<'a> {
    slot: &'a Mutex<Slot>,
    /// What it is to be.
    left: Slot,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(self.slot) = Slot { is_busy: false, ..self.left };
    }
}

impl Follower {
    pub(super) fn new(root: &Budget, reserve: usize) -> Self {
        let (configured, times) = root.limit_as_set();
        let last = EffectiveLimit { configured, limit: configured, ..EffectiveLimit::default() };
        Self { reserve, slot: Mutex::new(Slot { last, times, is_busy: false }) }
    }

    /// Moves the limit of `root`, which is as `node` shows, to what `sources` leave. Where not every
    /// source answered, the limit may fall, but not rise.
    ///
    /// Returns how it stands, and whether anything was done to it.
    pub(super) fn follow(
        &self,
        root: &Budget,
        node: &NodeSnapshot,
        sources: &[Headroom],
        process: Option<&ProcessMemory>,
        is_whole: bool,
    ) -> (EffectiveLimit, bool) {
        let mut turn = {
            let mut slot = lock(&self.slot);
            if slot.is_busy {
                return (slot.last, false);
            }
            slot.is_busy = true;
            Turn { slot: &self.slot, left: *slot }
        };
        let (current, times) = root.limit_as_set();
        // Where it was set again since, somebody else has done it.
        let configured = if times == turn.left.times { turn.left.last.configured } else { current };
        let floor = guaranteed(node).max(1);
        let used = node.usage.used;
        let present = |source: &Headroom| match (source.source, process) {
            (_, None) => used,
            (MemorySource::AddressSpace, Some(process)) => used.min(clamp(process.address_space)),
            (MemorySource::Data, Some(process)) => used.min(clamp(process.data)),
            (_, Some(process)) => used.min(clamp(process.resident)),
        };
        let all = |source: &Headroom| present(source).saturating_add(clamp(source.headroom));
        let tightest = sources.iter().min_by_key(|source| all(source));
        let left = tightest.map(|source| all(source).saturating_sub(self.reserve));
        let most = configured.unwrap_or(usize::MAX);
        let now = current.unwrap_or(usize::MAX);
        let wanted = left.map_or(now, |left| left.max(floor).min(most));
        let wanted = if wanted > now {
            let step = wanted - now >= now / LEAST_RAISE || wanted == most;
            if is_whole && step { wanted } else { now }
        } else {
            wanted
        };
        let is_lowered = wanted < most;
        let acts = wanted != now || (is_lowered && used > wanted);
        let excess = used.saturating_sub(now);
        let moved = if acts { root.set_limit_after(times, wanted) } else { Ok(Some(excess)) };
        if moved == Ok(None) {
            // Somebody else has set it in this very moment: theirs is looked at next time.
            return (turn.left.last, false);
        }
        let is_moved = acts && moved.is_ok();
        turn.left.times = times.wrapping_add(u32::from(is_moved));
        let in_force = if is_moved { wanted } else { now };
        turn.left.last = EffectiveLimit {
            configured,
            limit: (in_force != usize::MAX).then_some(in_force),
            source: tightest.filter(|_| in_force < most).map(|source| source.source),
            excess: moved.as_ref().map_or(excess, |left| left.unwrap_or(excess)),
            at_guarantees: left.is_some_and(|left| left < floor.min(most)),
            refused: moved.is_err(),
            uncertain: !is_whole,
        };
        (turn.left.last, acts)
    }

    /// Sets the configured limit again, unless somebody else has set another since.
    pub(super) fn end(&self, root: &Budget) {
        let Slot { last, times, .. } = *lock(&self.slot);
        if last.limit != last.configured {
            // Refused only where the guarantee has grown beyond it; then the guarantee binds anyway.
            let _ = root.set_limit_after(times, last.configured.unwrap_or(usize::MAX));
        }
    }
}

/// What is not to be taken from the node: its own guarantee, or those below it where they are more.
fn guaranteed(node: &NodeSnapshot) -> usize {
    let below = node.children.iter().map(guaranteed);
    node.guarantee.max(below.fold(0, usize::saturating_add))
}
