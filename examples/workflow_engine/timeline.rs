//! Memory over time: the bytes of every component and of the largest tenants, the resident bytes, and the pressure.

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
const SAMPLES: usize = 1120;

const TICK: Duration = Duration::from_millis(20);

/// The layers of a sample, from the bottom: the components, and the rest of the ledger's total.
pub(crate) const LAYERS: usize = COMPONENTS.len() + 1;

/// The number of tenants with a layer of their own. They are the tenants with the highest peaks.
pub(crate) const TENANTS: usize = 5;

/// The last two layers of a sample by tenant: all other tenants together, and the bytes of no tenant.
pub(crate) const OTHERS: usize = TENANTS;
pub(crate) const SHARED: usize = TENANTS + 1;

/// The figures at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Bytes of each layer. The sum is the ledger's total.
    pub(crate) used: [usize; LAYERS],
    /// The same total, divided among the tenants.
    pub(crate) by_tenant: [usize; SHARED + 1],
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
            by_tenant: larger.by_tenant,
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

/// Cuts the parts of a ledger with `total` bytes to that total. The last part is the rest. Nodes are read one after
/// another, so bytes that move meanwhile may be counted twice.
fn cut<const PARTS: usize>(total: usize, mut parts: [usize; PARTS]) -> [usize; PARTS] {
    let mut left = total;
    let (rest, parts_before) = parts.split_last_mut().expect("there is a rest");
    for part in parts_before {
        *part = left.min(*part);
        left -= *part;
    }
    *rest = left;
    parts
}

/// The tenants with a layer of their own, and their peaks in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Largest {
    pub(crate) names: [String; TENANTS],
    pub(crate) peaks: [usize; TENANTS],
}

impl Largest {
    /// Returns the bytes by tenant, without the last part. A tenant with more bytes than the lowest peak takes the
    /// place of the tenant with that peak. The bytes of the replaced tenant in `samples` go to the others.
    fn divide<'t>(
        &mut self,
        tenants: impl Iterator<Item = (&'t str, usize)>,
        samples: &mut [Sample],
    ) -> [usize; SHARED + 1] {
        let mut parts = [0; SHARED + 1];
        for (name, used) in tenants {
            let known = self.names.iter().position(|known| known == name);
            let place = known.or_else(|| {
                let place = (0..TENANTS).min_by_key(|&place| self.peaks[place])?;
                (used > self.peaks[place]).then(|| {
                    for sample in samples.iter_mut() {
                        sample.by_tenant[OTHERS] += mem::take(&mut sample.by_tenant[place]);
                    }
                    parts[OTHERS] += mem::take(&mut parts[place]);
                    name.clone_into(&mut self.names[place]);
                    place
                })
            });
            match place {
                Some(place) => {
                    self.peaks[place] = self.peaks[place].max(used);
                    parts[place] = used;
                }
                None => parts[OTHERS] += used,
            }
        }
        parts
    }

    /// Returns the places of the tenants, the highest peak first.
    pub(crate) fn places(&self) -> Vec<usize> {
        let mut places: Vec<_> = (0..TENANTS).filter(|&place| self.peaks[place] > 0).collect();
        places.sort_by_key(|&place| std::cmp::Reverse(self.peaks[place]));
        places
    }
}

/// The recorded samples and figures.
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    /// The highest bytes of each layer in any sample.
    pub(crate) peaks: [usize; LAYERS],
    pub(crate) largest: Largest,
    /// The last snapshot of the ledger, if there is one.
    pub(crate) last: Option<MemorySnapshot>,
}

impl Timeline {
    /// Returns the time at each level above normal and its most frequent cause as text, the highest level first.
    pub(crate) fn pressure(&self) -> impl Iterator<Item = String> {
        self.tight().into_iter().map(|(level, time, cause)| {
            let why = cause.map_or_else(String::new, |cause| format!(", most often: {cause}"));
            format!("{level} for {:.2} s{why}", time.as_secs_f64())
        })
    }

    fn tight(&self) -> Vec<(PressureLevel, Duration, Option<PressureCause>)> {
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
    largest: Largest,
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
            largest: Largest::default(),
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
        Timeline { samples: self.samples, peaks: self.peaks, largest: self.largest, last }
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
        let total = snapshot.root.usage.used;
        let mut parts = [0; LAYERS];
        for (part, name) in parts.iter_mut().zip(COMPONENTS) {
            *part = nodes(&snapshot.root, name).map(|node| node.usage.used).sum();
        }
        let used = cut(total, parts);
        let tenants = tenants(&snapshot.root).map(|node| (node.name.as_str(), node.usage.used));
        let by_tenant = cut(total, self.largest.divide(tenants, &mut self.samples));
        self.peaks = std::array::from_fn(|layer| self.peaks[layer].max(used[layer]));
        self.samples.push(Sample {
            at,
            used,
            by_tenant,
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
    use super::{LAYERS, Largest, OTHERS, Sample, TENANTS, Timeline, cut};
    use nebula_memory::{PressureLevel, integration::monitoring::PressureCause};
    use std::time::Duration;

    #[test]
    fn a_moment_adds_up_to_the_total_whatever_moved_while_it_was_read() {
        assert_eq!(cut(100, [10, 20, 0, 5, 40, 0]), [10, 20, 0, 5, 40, 25]);
        assert_eq!(cut(60, [10, 20, 0, 5, 40, 0]), [10, 20, 0, 5, 25, 0]);
        assert_eq!(cut(25, [10, 20, 0, 5, 40, 0]), [10, 15, 0, 0, 0, 0]);
    }

    #[test]
    fn the_largest_of_a_thousand_tenants_are_recorded_one_by_one() {
        let names: Vec<_> = (0..1000).map(|n| format!("tenant-{n}")).collect();
        let (mut largest, mut samples) = (Largest::default(), Vec::new());
        for round in 1..=4_usize {
            // Tenant 7 is the largest in the end, and tenants 990 to 999 before.
            let used = |n: usize| if n == 7 { round * round * 400 } else { n };
            let tenants = names.iter().enumerate().map(|(n, name)| (name.as_str(), used(n)));
            let by_tenant = largest.divide(tenants, &mut samples);
            assert_eq!(by_tenant.iter().sum::<usize>(), (0..1000).map(used).sum());
            samples.push(Sample { by_tenant, ..Sample::default() });
        }
        let places = largest.places();
        let found: Vec<_> = places.iter().map(|&place| largest.names[place].as_str()).collect();
        assert_eq!(found, ["tenant-7", "tenant-999", "tenant-998", "tenant-997", "tenant-996"]);
        assert_eq!(largest.peaks[places[0]], 6400);
        for (round, sample) in (1..).zip(&samples) {
            let others = sample.by_tenant[OTHERS];
            let ones: usize = sample.by_tenant[..TENANTS].iter().sum();
            assert_eq!(ones + others, (0..1000).sum::<usize>() - 7 + round * round * 400);
        }
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
        let timeline =
            Timeline { samples, peaks: [0; LAYERS], largest: Largest::default(), last: None };
        assert_eq!(timeline.tight(), [(critical, Duration::from_millis(40), waits)]);
        let pressure: Vec<_> = timeline.pressure().collect();
        assert_eq!(pressure, ["critical for 0.04 s, most often: 3 requests wait"]);
    }
}
