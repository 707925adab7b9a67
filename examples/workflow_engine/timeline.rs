//! Memory over time: what every component holds, what is resident, how tight it is.

use crate::engine::{COMPONENTS, Engine};
use nebula_memory::{
    Budget, MemoryError, PressureLevel, Reservation,
    budget::NodeSnapshot,
    core::config::MemoryConfig,
    integration::monitoring::{MemorySnapshot, Monitor},
    syscalls::info::process_memory,
};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// The most samples kept. When there are more, neighbours are merged and half as many are taken.
const SAMPLES: usize = 2048;

const TICK: Duration = Duration::from_millis(20);

/// One moment, or the worst of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Bytes that each of [`COMPONENTS`] holds.
    pub(crate) used: [usize; COMPONENTS.len()],
    pub(crate) resident: u64,
    pub(crate) level: PressureLevel,
}

impl Sample {
    /// The larger figure of each kind.
    pub(crate) fn worst(self, other: Self) -> Self {
        Self {
            at: self.at.min(other.at),
            used: std::array::from_fn(|index| self.used[index].max(other.used[index])),
            resident: self.resident.max(other.resident),
            level: self.level.max(other.level),
        }
    }
}

/// What was recorded.
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    /// The last look at the ledger, if there is one.
    pub(crate) last: Option<MemorySnapshot>,
}

/// Takes samples until told to stop.
pub(crate) struct Recorder {
    monitor: Option<Monitor>,
    samples: Vec<Sample>,
    tick: Duration,
    /// Pays for `samples`.
    _held: Option<Reservation>,
}

impl Recorder {
    pub(crate) fn new(engine: &Engine<'_>, config: &MemoryConfig) -> Result<Self, MemoryError> {
        let monitor = |root| Monitor::from_config(root, &config.monitoring);
        let hold = |root: &Budget| {
            let node = root.child("timeline").build()?;
            Ok::<_, MemoryError>(node.try_reserve(SAMPLES * size_of::<Sample>())?)
        };
        Ok(Self {
            monitor: engine.process().map(monitor).transpose()?,
            samples: Vec::with_capacity(SAMPLES),
            tick: TICK,
            _held: engine.process().map(hold).transpose()?,
        })
    }

    /// Records until the sender of `stop` is dropped.
    pub(crate) fn record(mut self, stop: &Receiver<()>) -> Timeline {
        let start = Instant::now();
        self.take(start.elapsed());
        while stop.recv_timeout(self.tick) == Err(RecvTimeoutError::Timeout) {
            self.take(start.elapsed());
        }
        let last = self.take(start.elapsed());
        Timeline { samples: self.samples, last }
    }

    fn take(&mut self, at: Duration) -> Option<MemorySnapshot> {
        let snapshot = self.monitor.as_ref().map(Monitor::sample);
        let process = match &snapshot {
            Some(snapshot) => snapshot.process,
            None => process_memory().ok(),
        };
        if self.samples.len() == SAMPLES {
            let pairs = self.samples.chunks(2);
            let merged = pairs.map(|pair| pair.iter().copied().reduce(Sample::worst));
            let merged: Vec<_> = merged.flatten().collect();
            self.samples.clear();
            self.samples.extend(merged);
            self.tick *= 2;
        }
        self.samples.push(Sample {
            at,
            used: snapshot.as_ref().map_or([0; COMPONENTS.len()], |snapshot| {
                COMPONENTS.map(|name| nodes(&snapshot.root, name).map(|n| n.usage.used).sum())
            }),
            resident: process.map_or(0, |process| process.resident),
            level: snapshot.as_ref().map_or(PressureLevel::Normal, |snapshot| snapshot.level),
        });
        snapshot
    }
}

/// The nodes of a component: one below the root, or one below each tenant.
pub(crate) fn nodes<'s>(
    root: &'s NodeSnapshot,
    component: &str,
) -> impl Iterator<Item = &'s NodeSnapshot> {
    let below_tenants = tenants(root).flat_map(|tenant| &tenant.children);
    root.children.iter().chain(below_tenants).filter(move |node| node.name == component)
}

/// The tenants' nodes.
pub(crate) fn tenants(root: &NodeSnapshot) -> impl Iterator<Item = &NodeSnapshot> {
    root.children.iter().filter(|node| node.name == "tenants").flat_map(|node| &node.children)
}
