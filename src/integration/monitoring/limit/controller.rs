//! Computes the root's limit from the figures of the process.
//!
//! ```text
//! over     = resident - (used - undrawn guarantees)      resident bytes that nobody reserved
//! peak     = max(over, over + (peak - over) · e^(-dt / 200 ms))
//! step     = max(over - peak before, step · e^(-dt / 2 s))    at most L / 16
//! reserve  = min(9/10 · L, max(L / 8, peak + max(L / 50, step)))    L is the process's limit
//! root     = max(guaranteed, L - reserve)
//! ```
//!
//! The peak follows a rise at once and decays slowly. So the controller keeps room for overhead that comes and goes.
//! The step is the largest rise of the overhead beyond its peak between two ticks. The controller keeps that many more
//! bytes free, because it cannot act before the next tick. The step is small unless the ticking thread has to wait for
//! a processor. No figure is summed over ticks, so no error accumulates.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// e^(-1 / 200 000) in units of 2^-63: the part of the peak that is left after a microsecond.
const DECAY_PER_MICRO: u64 = 9_223_325_920_109_883_492;

/// After four seconds e^-20 of a peak is left, which counts as nothing.
const FORGOTTEN: Duration = Duration::from_secs(4);

/// The factor by which the step decays slower than the peak: a thread that had to wait once may have to wait
/// again.
const STEP_DECAYS_SLOWER: u32 = 10;

/// The number of ticks without a change after which the process is at rest.
const CALM_TICKS: u32 = 32;

/// The time between two ticks: near the limit, far from it, and for each while nothing changes.
const NEAR: Duration = Duration::from_millis(2);
const FAR: Duration = Duration::from_millis(10);
const NEAR_AT_REST: Duration = Duration::from_millis(10);
const FAR_AT_REST: Duration = Duration::from_millis(40);

/// The measurements of one tick, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The limit of the process: the configured limit of the root.
    pub(super) limit: usize,
    /// Bytes that are guaranteed below the root.
    pub(super) guaranteed: usize,
    /// Bytes that are charged to the root.
    pub(super) used: usize,
    /// The part of `used` that is guaranteed and unused.
    pub(super) undrawn: usize,
    pub(super) resident: usize,
    /// Whether a request waits for bytes of the root.
    pub(super) is_blocked: bool,
}

impl Reading {
    /// Returns the reserved bytes.
    const fn held(&self) -> usize {
        self.used.saturating_sub(self.undrawn)
    }
}

/// The decision that follows from a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// The root's limit.
    pub(super) target: usize,
    /// Whether the guarantees exceed the target that would apply without them.
    pub(super) at_guarantees: bool,
    /// Bytes by which the overhead and the smallest limit of the root together exceed the limit.
    pub(super) shortfall: usize,
    /// Whether the shortfall is new: there was none before, or the last one ended by a clear margin.
    pub(super) is_news: bool,
    /// Whether the heap must return memory now.
    pub(super) purge: bool,
    /// The time to the next tick.
    pub(super) next: Duration,
}

/// The state between two ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controller {
    /// The peak of the overhead, decaying.
    peak: usize,
    /// The largest rise of the overhead beyond its peak from one tick to the next, decaying.
    step: usize,
    last: Option<Instant>,
    /// The last target. It moves only if it is wrong by enough.
    target: Option<usize>,
    /// Whether a shortfall was reported and is not over.
    is_told: bool,
    purge: Purge,
    rest: Rest,
}

impl Controller {
    pub(super) fn tick(&mut self, now: Instant, reading: Reading) -> Decision {
        let Reading { limit, guaranteed, used, resident, .. } = reading;
        let held = reading.held();
        let over = resident.saturating_sub(held);
        // If the clock jumped back, nothing decays.
        let passed = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        let (peak, step) = passed.map_or((over, 0), |passed| {
            let peak = over + decayed(self.peak.saturating_sub(over), passed);
            let rise = over.saturating_sub(self.peak);
            (peak, rise.max(decayed(self.step, passed / STEP_DECAYS_SLOWER)).min(limit / 16))
        });
        (self.peak, self.step) = (peak, step);

        let least = limit / 10;
        let margin = step.max(limit / 50);
        let reserve = peak.saturating_add(margin).max(limit / 8).min(limit - least);
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

        // If unused guarantees and the overhead leave little for requests, the part of the overhead that the heap
        // keeps is needed, even if few bytes are resident.
        let most = resident.max(used.saturating_add(self.peak));
        let is_tight = most > limit - limit / 10 || reading.is_blocked;
        Decision {
            target,
            at_guarantees: wanted < floor,
            shortfall,
            is_news,
            purge: self.purge.is_due(now, limit, over, resident, is_tight),
            next: self.rest.interval(limit, resident, held),
        }
    }

    /// Notes that the purge of an earlier decision took `took` and ended at `now`.
    pub(super) fn purged(&mut self, now: Instant, took: Duration) {
        let purge = &mut self.purge;
        purge.under_way = false;
        purge.base = None;
        // The measured time is longer if the thread lost its processor during the purge.
        let cost = purge.cost.map_or(took, |cost| took.min(cost.saturating_mul(2)));
        purge.cost = Some(cost);
        purge.not_before = now.checked_add(cost.saturating_mul(9));
    }
}

/// Returns the part of `bytes` that is left after `passed`.
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

/// Decides when the heap is asked to return memory: only if memory is tight, and only for memory that the heap
/// has kept since the last purge. A purge whenever much memory is resident would harm caches, whose memory is in
/// use.
#[derive(Clone, Copy, Debug, Default)]
struct Purge {
    /// The least overhead since the last purge.
    base: Option<usize>,
    under_way: bool,
    /// The duration of the last purge, but at most twice the duration that was known before.
    cost: Option<Duration>,
    /// The end of the pause that limits purges to a tenth of the time.
    not_before: Option<Instant>,
}

impl Purge {
    fn is_due(
        &mut self,
        now: Instant,
        limit: usize,
        over: usize,
        resident: usize,
        is_tight: bool,
    ) -> bool {
        if self.under_way {
            return false;
        }
        let base = self.base.map_or(over, |base| base.min(over));
        self.base = Some(base);
        let has_risen = over - base >= (limit / 25).max(1);
        let is_allowed = self.not_before.is_none_or(|then| now >= then);
        self.under_way = is_tight && (has_risen || resident > limit) && is_allowed;
        self.under_way
    }
}

/// Counts the ticks in which nothing has changed.
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

#[cfg(test)]
mod tests {
    use super::{Controller, Decision, FAR, FAR_AT_REST, NEAR, NEAR_AT_REST, Reading, decayed};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    const MIB: usize = 1 << 20;
    const LIMIT: usize = 100 * MIB;
    const NOTHING: Reading = Reading {
        limit: LIMIT,
        guaranteed: 0,
        used: 0,
        undrawn: 0,
        resident: 0,
        is_blocked: false,
    };

    /// A controller with the test's own clock. Sizes are in MiB.
    struct Run {
        controller: Controller,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self { controller: Controller::default(), now: Instant::now() }
        }

        fn tick(&mut self, millis: u64, held: usize, resident: usize) -> Decision {
            self.tick_with(millis, 0, held, resident)
        }

        fn tick_with(
            &mut self,
            millis: u64,
            guaranteed: usize,
            held: usize,
            resident: usize,
        ) -> Decision {
            self.now += Duration::from_millis(millis);
            let (guaranteed, used, resident) = (guaranteed * MIB, held * MIB, resident * MIB);
            self.read(Reading { guaranteed, used, resident, ..NOTHING })
        }

        fn read(&mut self, reading: Reading) -> Decision {
            self.controller.tick(self.now, reading)
        }
    }

    #[test]
    fn an_eighth_is_kept_free_where_the_overhead_is_small() {
        let mut run = Run::new();
        assert_eq!(run.tick(0, 20, 25).target, LIMIT - LIMIT / 8);
        assert_eq!(run.tick(10, 20, 10).target, LIMIT - LIMIT / 8, "reserved and not touched");
    }

    #[test]
    fn a_rise_is_followed_at_once_and_forgotten_slowly() {
        let mut run = Run::new();
        run.tick(0, 40, 45);
        let step = LIMIT / 16;
        assert_eq!(run.tick(2, 40, 70).target, 70 * MIB - step, "30 MiB of overhead, and a step");
        assert_eq!(run.tick(40_000, 40, 70).target, 68 * MIB, "30 MiB of overhead, and 2 %");
        // The overhead is 5 MiB again: after 200 ms a little more than a third of the rise is left.
        let target = run.tick(200, 40, 45).target;
        assert!((83 * MIB..=84 * MIB).contains(&target), "{target}");
        assert_eq!(run.tick(5000, 40, 45).target, LIMIT - LIMIT / 8);
    }

    #[test]
    fn as_much_is_kept_free_as_the_overhead_rises_from_tick_to_tick() {
        let mut run = Run::new();
        run.tick(0, 40, 60);
        assert_eq!(run.tick(2, 40, 65).target, 70 * MIB, "25 MiB, and 5 for the next step");
        assert_eq!(run.tick(2, 40, 64).target, 70 * MIB, "no rise, and no less is kept");
        // After 1 s three fifths of the step are left, and little of the peak.
        let target = run.tick(1000, 40, 64).target;
        assert!((72 * MIB..=73 * MIB).contains(&target), "{target}");
    }

    #[test]
    fn the_target_does_not_move_for_a_little() {
        let mut run = Run::new();
        let first = run.tick(0, 40, 70).target;
        let moved = |run: &mut Run, over: usize| {
            run.now += Duration::from_secs(5);
            run.read(Reading { resident: over, ..NOTHING }).target
        };
        assert_eq!(moved(&mut run, 30 * MIB + LIMIT / 400), first);
        assert_eq!(moved(&mut run, 30 * MIB + LIMIT / 400 + 1), first - LIMIT / 400 - 1);
        assert_eq!(moved(&mut run, 30 * MIB - LIMIT / 200), first - LIMIT / 400 - 1);
        assert_eq!(moved(&mut run, 28 * MIB), first + 2 * MIB);
    }

    #[test]
    fn the_guarantees_stay_and_the_shortfall_is_news_once() {
        let mut run = Run::new();
        let kept = run.tick_with(0, 60, 60, 90);
        assert!(!kept.at_guarantees && kept.shortfall == 0 && !kept.is_news, "{kept:?}");
        let short = run.tick_with(2, 80, 80, 110);
        assert_eq!((short.target, short.at_guarantees), (80 * MIB, true));
        assert_eq!((short.shortfall, short.is_news), (10 * MIB, true));
        assert!(!run.tick_with(2, 80, 80, 111).is_news, "it is known");
        // Just enough does not end the shortfall; a little more than enough does.
        assert!(!run.tick_with(5000, 80, 80, 100).is_news);
        assert!(!run.tick_with(2, 80, 80, 101).is_news);
        assert!(!run.tick_with(5000, 80, 80, 90).is_news);
        assert!(run.tick_with(2, 80, 80, 101).is_news);
    }

    #[test]
    fn an_overhead_of_the_whole_limit_leaves_a_tenth_and_is_said() {
        let decision = Run::new().tick(0, 5, 200);
        assert_eq!((decision.target, decision.shortfall), (10 * MIB, 105 * MIB));
    }

    #[test]
    fn a_purge_is_due_where_memory_is_tight_and_the_overhead_rose() {
        let mut run = Run::new();
        assert!(!run.tick(0, 80, 85).purge);
        assert!(!run.tick(2, 60, 85).purge, "it rose, and there is room");
        assert!(!run.tick(2, 70, 75).purge);
        assert!(!run.tick(2, 87, 95).purge, "it is tight, and did not rise by 4 %");
        assert!(run.tick(2, 80, 95).purge);
        assert!(!run.tick(2, 70, 99).purge, "one is under way");
        run.controller.purged(run.now, Duration::from_millis(1));
        assert!(!run.tick(2, 80, 95).purge, "nothing rose since");
        assert!(!run.tick(2, 75, 95).purge, "not before nine times as long as the last took");
        assert!(run.tick(7, 75, 95).purge);
    }

    /// Half of the limit is guaranteed to others, the overhead is most of the rest.
    #[test]
    fn a_purge_is_due_where_guarantees_and_the_overhead_leave_little() {
        let with = |is_blocked: bool, undrawn: usize| {
            let mut run = Run::new();
            let used = 10 * MIB + undrawn;
            let mut purges = false;
            for resident in [20 * MIB, 55 * MIB] {
                purges = run.read(Reading { used, undrawn, resident, is_blocked, ..NOTHING }).purge;
            }
            purges
        };
        assert!(!with(false, 0), "it rose, and there is room");
        assert!(with(false, 50 * MIB), "there is none beside the guarantees");
        assert!(with(true, 0), "there is not enough for a request");
    }

    #[test]
    fn a_full_cache_is_no_reason_for_a_purge() {
        let mut run = Run::new();
        for _ in 0..1000 {
            let decision = run.tick(2, 87, 95);
            assert!(!decision.purge);
            assert_eq!(decision.target, LIMIT - LIMIT / 8);
        }
    }

    #[test]
    fn beyond_the_limit_purges_are_due_a_tenth_of_the_time() {
        let mut run = Run::new();
        let mut purges = 0;
        for _ in 0..1000 {
            if run.tick(2, 80, 101).purge {
                purges += 1;
                run.controller.purged(run.now, Duration::from_millis(2));
            }
        }
        assert_eq!(purges, 112, "2 ms of 18 and more");
    }

    #[test]
    fn a_purge_that_was_held_up_does_not_put_off_the_next_for_long() {
        let mut run = Run::new();
        for took in [1, 50] {
            assert!(run.tick(100, 80, 101).purge);
            run.controller.purged(run.now, Duration::from_millis(took));
        }
        assert!(!run.tick(17, 80, 101).purge);
        assert!(run.tick(1, 80, 101).purge, "nine times two milliseconds");
        run.controller.purged(run.now, Duration::ZERO);
        assert!(run.tick(0, 80, 101).purge);
    }

    #[test]
    fn ticks_are_fast_near_the_limit_and_slow_at_rest() {
        let mut run = Run::new();
        assert_eq!(run.tick(0, 20, 30).next, FAR);
        assert_eq!(run.tick(10, 70, 80).next, NEAR);
        let at_rest = (0..100).map(|_| run.tick(2, 70, 80).next).last();
        assert_eq!(at_rest, Some(NEAR_AT_REST));
        assert_eq!(run.tick(10, 71, 81).next, NEAR);
        let at_rest = (0..100).map(|_| run.tick(2, 20, 30).next).last();
        assert_eq!(at_rest, Some(FAR_AT_REST));
    }

    #[test]
    fn a_clock_that_jumps_back_forgets_nothing() {
        let mut run = Run::new();
        let before = run.tick(1000, 40, 70).target;
        run.now -= Duration::from_millis(500);
        assert_eq!(run.tick(0, 40, 45).target, before);
    }

    proptest! {
        #[test]
        fn a_target_is_within_its_bounds_and_leaves_the_overhead(
            limit in 1_usize..=usize::MAX,
            steps in proptest::collection::vec(
                (any::<u32>(), any::<usize>(), any::<usize>(), any::<usize>(), 0_u32..64), 1..50),
        ) {
            let mut controller = Controller::default();
            let mut now = Instant::now();
            let mut most = 0;
            for (micros, guaranteed, held, resident, small) in steps {
                now += Duration::from_micros(micros.into());
                let scaled = |bytes: usize| bytes.checked_shr(small).unwrap_or(0);
                let (held, resident) = (scaled(held), scaled(resident));
                let guaranteed = scaled(guaranteed);
                let reading = Reading { limit, guaranteed, used: held, resident, ..NOTHING };
                let decision = controller.tick(now, reading);
                let floor = guaranteed.clamp(1, limit);
                prop_assert!((floor..=limit).contains(&decision.target));
                // A rise is followed at once.
                let over = resident.saturating_sub(held);
                prop_assert!(controller.peak >= over);
                // A target that is too high by a little stays.
                let least = floor.max(limit / 10).saturating_add(limit / 400);
                prop_assert!(
                    decision.target <= least
                        || u128::from(decision.target as u64) + over as u128 <= limit as u128
                );
                // Nothing accumulates: the peak is never more than the largest measurement.
                most = most.max(over);
                prop_assert!(controller.peak <= most && controller.step <= limit / 16);
            }
            // Everything is forgotten after enough time.
            now += Duration::from_secs(40);
            let reading = Reading { limit, ..NOTHING };
            controller.tick(now, reading);
            prop_assert_eq!((controller.peak, controller.step), (0, 0));
        }

        #[test]
        fn two_steps_of_decay_equal_one_step_of_the_same_time(
            bytes in any::<u32>(), first in 0_u64..1000, second in 0_u64..1000,
        ) {
            let bytes = bytes as usize;
            let millis = Duration::from_millis;
            let once = decayed(bytes, millis(first + second));
            let twice = decayed(decayed(bytes, millis(first)), millis(second));
            prop_assert!(once.abs_diff(twice) <= 2, "{once} {twice}");
            prop_assert!(once <= bytes);
        }
    }

    #[test]
    fn after_a_fifth_of_a_second_an_eth_is_left() {
        assert_eq!(decayed(1_000_000, Duration::from_millis(200)), 367_879);
        assert_eq!(decayed(1_000_000, Duration::ZERO), 1_000_000);
        assert_eq!(decayed(usize::MAX, Duration::from_secs(10)), 0);
    }
}
