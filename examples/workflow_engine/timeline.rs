//! Memory over time: the bytes of every component, the resident bytes, and the pressure.

use crate::engine::{COMPONENTS, Engine};
use nebula_memory::{
    PressureLevel, Reservation,
    budget::NodeSnapshot,
    core::config::MemoryConfig,
    integration::monitoring::{MemorySnapshot, Monitor, MonitorThread, PressureCause},
};
use std::{
    error::Error,
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// The most samples. When they are full, pairs are merged, and from then on half as many are taken.
const SAMPLES: usize = 1696;

const TICK: Duration = Duration::from_millis(20);

/// The layers of a sample, from the bottom: the components, and the rest of the ledger's total.
pub(crate) const LAYERS: usize = COMPONENTS.len() + 1;

/// The figures at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Bytes of each layer. The sum is the ledger's total.
    pub(crate) used: [usize; LAYERS],
    pub(crate) resident: u64,
    pub(crate) level: PressureLevel,
    /// The cause of the pressure level.
    pub(crate) cause: Option<PressureCause>,
}

impl Sample {
    /// Merges two samples: the bytes of the one with the larger total, and the larger of each other figure.
    pub(crate) fn worst(self, other: Self) -> Self {
        let larger = if self.total() >= other.total() { self } else { other };
        let tighter = if self.level >= other.level { self } else { other };
        Self {
            at: self.at.min(other.at),
            used: larger.used,
            resident: self.resident.max(other.resident),
            level: tighter.level,
            cause: tighter.cause,
        }
    }

    /// Returns whether both samples have the same level and the same kind of cause.
    pub(crate) fn is_as_tight_as(&self, other: &Self) -> bool {
        let kind = |sample: &Self| sample.cause.map(|cause| mem::discriminant(&cause));
        self.level == other.level && kind(self) == kind(other)
    }

    pub(crate) fn total(&self) -> u64 {
        self.used.iter().map(|&used| used as u64).sum()
    }
}

/// Returns the layers of a ledger with `total` bytes. Nodes are read one after another, so bytes that move meanwhile
/// may be counted twice. The last layers are cut to keep the total.
fn layers(total: usize, components: [usize; COMPONENTS.len()]) -> [usize; LAYERS] {
    let mut left = total;
    let mut layers = [0; LAYERS];
    for (layer, bytes) in layers.iter_mut().zip(components) {
        *layer = bytes.min(left);
        left -= *layer;
    }
    layers[COMPONENTS.len()] = left;
    layers
}

/// The recorded samples and figures.
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    /// The highest bytes of each layer in any sample.
    pub(crate) peaks: [usize; LAYERS],
    /// The last snapshot of the ledger, if there is one.
    pub(crate) last: Option<MemorySnapshot>,
}

impl Timeline {
    /// Returns the time at each level above normal, the highest first, with its most frequent cause.
    pub(crate) fn tight(&self) -> Vec<(PressureLevel, Duration, Option<PressureCause>)> {
        let mut tight: Vec<(PressureLevel, Duration, Vec<&Sample>)> = Vec::new();
        for pair in self.samples.windows(2) {
            let (level, time) = (pair[0].level, pair[1].at.saturating_sub(pair[0].at));
            match tight.iter_mut().find(|(known, ..)| *known == level) {
                Some((_, sum, seen)) => {
                    *sum += time;
                    seen.push(&pair[0]);
                }
                None => tight.push((level, time, vec![&pair[0]])),
            }
        }
        tight.retain(|(level, ..)| *level > PressureLevel::Normal);
        tight.sort_by_key(|(level, ..)| std::cmp::Reverse(*level));
        let often = |seen: &[&Sample]| {
            let like = |one: &Sample| seen.iter().filter(|other| other.is_as_tight_as(one)).count();
            seen.iter().max_by_key(|one| like(one)).and_then(|one| one.cause)
        };
        tight.into_iter().map(|(level, time, seen)| (level, time, often(&seen))).collect()
    }
}

/// Takes samples until it is stopped.
pub(crate) struct Recorder {
    monitor: Arc<Monitor>,
    /// Keeps the process inside the limit, if that is requested. The samples alone are too rare for that: the process
    /// may grow fast between two of them.
    _limit: Option<MonitorThread>,
    samples: Vec<Sample>,
    peaks: [usize; LAYERS],
    tick: Duration,
    /// The reservation for `samples`.
    _held: Reservation,
}

impl Recorder {
    /// The bytes of the samples.
    pub(crate) const MEMORY: usize = SAMPLES * size_of::<Sample>();

    pub(crate) fn new(engine: &Engine<'_>, config: &MemoryConfig) -> Result<Self, Box<dyn Error>> {
        let node = engine.process().child("timeline").build()?;
        let held = node.try_reserve(Self::MEMORY)?;
        let monitor = Arc::new(Monitor::from_config(engine.process(), &config.monitoring)?);
        let is_process = config.monitoring.process_limit;
        Ok(Self {
            _limit: is_process.then(|| Arc::clone(&monitor).spawn()).transpose()?,
            _held: held,
            monitor,
            samples: Vec::with_capacity(SAMPLES),
            peaks: [0; LAYERS],
            tick: TICK,
        })
    }

    /// Records until the sender of `stop` is dropped.
    pub(crate) fn record(mut self, stop: &Receiver<()>) -> Timeline {
        let start = Instant::now();
        self.take(start.elapsed());
        while stop.recv_timeout(self.tick) == Err(RecvTimeoutError::Timeout) {
            self.take(start.elapsed());
        }
        let last = Some(self.take(start.elapsed()));
        Timeline { samples: self.samples, peaks: self.peaks, last }
    }

    fn take(&mut self, at: Duration) -> MemorySnapshot {
        let snapshot = self.monitor.sample();
        if self.samples.len() == SAMPLES {
            let pairs = self.samples.chunks(2);
            let merged = pairs.map(|pair| pair.iter().copied().reduce(Sample::worst));
            let merged: Vec<_> = merged.flatten().collect();
            self.samples.clear();
            self.samples.extend(merged);
            self.tick *= 2;
        }
        let used_by = |name| nodes(&snapshot.root, name).map(|node| node.usage.used).sum();
        let used = layers(snapshot.root.usage.used, COMPONENTS.map(used_by));
        self.peaks = std::array::from_fn(|layer| self.peaks[layer].max(used[layer]));
        self.samples.push(Sample {
            at,
            used,
            resident: snapshot.process.as_ref().map_or(0, |process| process.resident),
            level: snapshot.level,
            cause: snapshot.cause,
        });
        snapshot
    }
}

/// Returns the nodes of a component, below the root and below the tenants.
pub(crate) fn nodes<'s>(
    root: &'s NodeSnapshot,
    component: &str,
) -> impl Iterator<Item = &'s NodeSnapshot> {
    let below_tenants = tenants(root).flat_map(|tenant| &tenant.children);
    root.children.iter().chain(below_tenants).filter(move |node| node.name == component)
}

/// Returns the tenants' nodes.
pub(crate) fn tenants(root: &NodeSnapshot) -> impl Iterator<Item = &NodeSnapshot> {
    root.children.iter().filter(|node| node.name == "tenants").flat_map(|node| &node.children)
}

#[cfg(test)]
mod tests {
    use super::{LAYERS, Sample, Timeline, layers};
    use nebula_memory::{PressureLevel, integration::monitoring::PressureCause};
    use std::time::Duration;

    #[test]
    fn a_moment_adds_up_to_the_total_whatever_moved_while_it_was_read() {
        assert_eq!(layers(100, [10, 20, 0, 5, 40]), [10, 20, 0, 5, 40, 25]);
        assert_eq!(layers(60, [10, 20, 0, 5, 40]), [10, 20, 0, 5, 25, 0]);
        assert_eq!(layers(25, [10, 20, 0, 5, 40]), [10, 15, 0, 0, 0, 0]);
    }

    #[test]
    fn the_worst_of_two_moments_is_one_of_them_and_not_their_sum() {
        let sample = |used, resident| Sample { used, resident, ..Sample::default() };
        let worst = sample([9, 0, 0, 0, 0, 0], 1).worst(sample([0, 0, 0, 0, 8, 0], 2));
        assert_eq!((worst.used, worst.resident), ([9, 0, 0, 0, 0, 0], 2));
    }

    #[test]
    fn the_tighter_moment_says_why() {
        let calm = Sample { used: [9; 6], ..Sample::default() };
        let cause = Some(PressureCause::Waiting(3));
        let tight = Sample { level: PressureLevel::Critical, cause, ..Sample::default() };
        for worst in [calm.worst(tight), tight.worst(calm)] {
            assert_eq!((worst.level, worst.cause), (PressureLevel::Critical, cause));
        }
    }

    #[test]
    fn the_time_at_each_level_is_summed_with_the_cause_that_is_seen_most() {
        let (waits, refused) = (Some(PressureCause::Waiting(3)), Some(PressureCause::Refused(1)));
        let (normal, critical) = (PressureLevel::Normal, PressureLevel::Critical);
        let moments = [(0, normal, None), (10, critical, refused), (20, critical, waits)];
        let moments = moments.into_iter().chain([(40, critical, waits), (50, normal, None)]);
        let sample = |(at, level, cause)| Sample {
            at: Duration::from_millis(at),
            level,
            cause,
            ..Sample::default()
        };
        let samples = moments.map(sample).collect();
        let timeline = Timeline { samples, peaks: [0; LAYERS], last: None };
        assert_eq!(timeline.tight(), [(critical, Duration::from_millis(40), waits)]);
    }
}
