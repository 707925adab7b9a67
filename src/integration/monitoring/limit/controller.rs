//! The arithmetic of the process's limit: figures in, a limit for the root out.
//!
//! ```text
//! over     = resident - (used - undrawn guarantees)      memory that the ledger does not hold
//! peak     = max(over, over + (peak - over) · e^(-dt / 200 ms))
//! reserve  = min(9/10 · L, max(L / 8, peak + L / 50))    L is the process's limit
//! root     = max(guaranteed, L - reserve)
//! ```
//!
//! The peak follows a rise at once and decays slowly, so that memory which comes and goes is kept free
//! all the time. Nothing is summed over ticks, so nothing winds up.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// e^(-1 / 200 000) in units of 2^-63: how much of the peak is left after a microsecond.
const DECAY_PER_MICRO: u64 = 9_223_325_920_109_883_492;

/// After four seconds e^-20 of a peak is left: nothing.
const FORGOTTEN: Duration = Duration::from_secs(4);

/// Ticks without a change after which the process is at rest.
const CALM_TICKS: u32 = 32;

/// The time between two ticks where the process is near its limit, and where it is not; and for each
/// the time while nothing changes.
const NEAR: Duration = Duration::from_millis(2);
const FAR: Duration = Duration::from_millis(10);
const NEAR_AT_REST: Duration = Duration::from_millis(10);
const FAR_AT_REST: Duration = Duration::from_millis(40);

/// What a tick measures, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The process's limit: what the root's limit is configured to be.
    pub(super) limit: usize,
    /// Bytes that are guaranteed below the root.
    pub(super) guaranteed: usize,
    /// Bytes that reservations hold: without guarantees that nobody uses.
    pub(super) held: usize,
    pub(super) resident: usize,
}

/// What follows from a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// The root's limit.
    pub(super) target: usize,
    /// The guarantees are more than the target would be without them.
    pub(super) at_guarantees: bool,
    /// Bytes by which the overhead and the least that the root may have are more than the limit.
    pub(super) shortfall: usize,
    /// There was no shortfall before, or it was over by more than a little.
    pub(super) is_news: bool,
    /// Whether the heap is to give memory back now.
    pub(super) purge: bool,
    /// The time to the next tick.
    pub(super) next: Duration,
}

/// What one tick leaves for the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controller {
    /// Of the overhead, decaying.
    peak: usize,
    last: Option<Instant>,
    /// The last target: it moves when it is wrong by enough.
    target: Option<usize>,
    /// A shortfall was told and is not over.
    is_told: bool,
    purge: Purge,
    rest: Rest,
}

impl Controller {
    pub(super) fn tick(&mut self, now: Instant, reading: Reading) -> Decision {
        let Reading { limit, guaranteed, held, resident } = reading;
        let over = resident.saturating_sub(held);
        // A clock that jumped back lets nothing decay.
        let passed = self.last.map_or(FORGOTTEN, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        self.peak = over + decayed(self.peak.saturating_sub(over), passed);

        let least = limit / 10;
        let reserve = self.peak.saturating_add(limit / 50).max(limit / 8).min(limit - least);
        let wanted = limit - reserve;
        let floor = guaranteed.clamp(1, limit.max(1));
        let exact = wanted.max(floor);
        let keeps = |target: usize| {
            let (too_high, too_low) = (exact.saturating_add(limit / 400), limit / 100);
            (floor..=limit).contains(&target)
                && target <= too_high
                && target.saturating_add(too_low) >= exact
        };
        let target = self.target.filter(|&target| keeps(target)).unwrap_or(exact);
        self.target = Some(target);

        let needed = self.peak.saturating_add(floor.max(least));
        let shortfall = needed.saturating_sub(limit);
        let is_news = shortfall > 0 && !self.is_told;
        self.is_told = shortfall > 0 || (self.is_told && needed.saturating_add(limit / 50) > limit);

        let most = resident.max(held.saturating_add(self.peak));
        Decision {
            target,
            at_guarantees: wanted < floor,
            shortfall,
            is_news,
            purge: self.purge.is_due(now, limit, over, most, resident),
            next: self.rest.interval(limit, resident, held),
        }
    }

    /// The purge that a decision asked for took `took` and ended `now`.
    pub(super) fn purged(&mut self, now: Instant, took: Duration) {
        self.purge.under_way = false;
        self.purge.base = None;
        self.purge.not_before = now.checked_add(took.saturating_mul(9));
    }
}

/// What is left of `bytes` when `passed` has passed.
fn decayed(bytes: usize, passed: Duration) -> usize {
    if passed >= FORGOTTEN || bytes == 0 {
        return 0;
    }
    let times = |a: u64, b: u64| {
        // Both are at most 2^63, so the product's upper part fits.
        u64::try_from((u128::from(a) * u128::from(b)) >> 63).unwrap_or(u64::MAX)
    };
    let mut micros = passed.as_micros();
    let (mut left, mut power) = (1_u64 << 63, DECAY_PER_MICRO);
    while micros > 0 {
        if micros & 1 == 1 {
            left = times(left, power);
        }
        power = times(power, power);
        micros >>= 1;
    }
    let rest = times(left, bytes as u64);
    // Not more than `bytes`.
    usize::try_from(rest).unwrap_or(bytes)
}

/// When the heap is asked to give memory back: only where memory is tight, and only for what the heap
/// has kept since it was asked last. Asking whenever much is resident would starve caches, whose
/// memory is resident by right.
#[derive(Clone, Copy, Debug, Default)]
struct Purge {
    /// The least overhead since the last purge.
    base: Option<usize>,
    under_way: bool,
    /// Purges take a tenth of the time at most.
    not_before: Option<Instant>,
}

impl Purge {
    fn is_due(
        &mut self,
        now: Instant,
        limit: usize,
        over: usize,
        most: usize,
        resident: usize,
    ) -> bool {
        if self.under_way {
            return false;
        }
        let base = self.base.map_or(over, |base| base.min(over));
        self.base = Some(base);
        let is_tight = most > limit - limit / 10;
        let has_risen = over - base >= (limit / 25).max(1);
        let is_allowed = self.not_before.is_none_or(|then| now >= then);
        self.under_way = is_tight && (has_risen || resident > limit) && is_allowed;
        self.under_way
    }
}

/// How long nothing has changed.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    resident: usize,
    held: usize,
    calm: u32,
}

impl Rest {
    fn interval(&mut self, limit: usize, resident: usize, held: usize) -> Duration {
        let step = limit / 256;
        if self.resident.abs_diff(resident) > step || self.held.abs_diff(held) > step {
            *self = Self { resident, held, calm: 0 };
        }
        self.calm = self.calm.saturating_add(1);
        let is_near = resident.max(held) > limit - limit / 4;
        match (is_near, self.calm > CALM_TICKS) {
            (true, false) => NEAR,
            (true, true) => NEAR_AT_REST,
            (false, false) => FAR,
            (false, true) => FAR_AT_REST,
        }
    }
}
