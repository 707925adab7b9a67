//! Reads all figures of the kernel at one moment, from files that stay open.
//!
//! ```text
//!             opened               unsupported, or nothing to open
//!   known ◀──────────── (start) ───────────────────────▶ absent
//!     │ ▲                  │                                │
//!     │ │ reads again      │ cannot be opened               │ every 2 s: the control group
//!     ▼ │                  ▼                                ▼ is looked for again
//!   unknown: opened again once a second, lowers limits and never raises them
//! ```
//!
//! The text of `/proc/self/cgroup` is compared every 2 s, so that a process that was moved to another
//! group is noticed.

use super::headroom::{Headroom, MemorySource, clamp};
use crate::{
    core::SystemError,
    syscalls::info::{
        Cgroup, CgroupEvents, CgroupLongFile, CgroupMemory, CgroupReading, MachineMemory,
        MachineReader, MemoryStall, ProcessLongFile, ProcessMemory, ProcessReader, Sources,
        StallReader,
    },
    utils::sync::{Mutex, lock},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

/// The maximum age of limits and of the figures of long files. The kernel takes about 10 µs for each of
/// `meminfo`, `status` and `memory.stat`, and 1 or 2 µs for each other file.
const LONG: Duration = Duration::from_millis(100);

/// The time between two attempts to open a source that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The time between two searches for the process's control group.
const RECHECK: Duration = Duration::from_secs(2);

/// The kernel's files.
#[derive(Debug)]
pub(super) struct Kernel {
    sources: Sources,
    /// The reader that samples use, and ticks between samples.
    process: Mutex<Option<Arc<ProcessReader>>>,
}

/// One source: known (a reader and no failure), unknown (a failure) or absent (neither).
#[derive(Debug)]
struct Sensor<T> {
    reader: Option<T>,
    failure: Option<SystemError>,
}

impl<T> Default for Sensor<T> {
    fn default() -> Self {
        Self { reader: None, failure: None }
    }
}

impl<T> Sensor<T> {
    fn open(found: Result<Option<T>, SystemError>) -> Self {
        match found {
            Ok(reader) => Self { reader, failure: None },
            // The platform has no such source.
            Err(error) if error.is_unsupported() => Self::default(),
            Err(error) => Self { reader: None, failure: Some(error) },
        }
    }

    /// Opens the source again if it is unknown. Returns whether that was tried; the source must then be read.
    fn retry(&mut self, open: impl FnOnce() -> Result<Option<T>, SystemError>) -> bool {
        let is_unknown = self.failure.is_some();
        if is_unknown {
            *self = Self::open(open());
        }
        is_unknown
    }

    fn read<F>(&mut self, read: impl FnOnce(&T) -> Result<F, SystemError>) -> Option<F> {
        keep(read(self.reader.as_ref()?), &mut self.failure)
    }
}

/// The control group of the process. Each of its parts may fail alone.
#[derive(Debug, Default)]
struct Group {
    found: Option<Cgroup>,
    /// Set if the last search failed, or found less than the search before. `found` may then be out of date.
    search: Option<SystemError>,
    memory: Option<SystemError>,
    stall: Option<SystemError>,
    events: Option<SystemError>,
}

impl Group {
    /// Returns whether a part failed.
    const fn is_unknown(&self) -> bool {
        self.search.is_some()
            || self.memory.is_some()
            || self.stall.is_some()
            || self.events.is_some()
    }

    /// Searches for the group. Returns whether the process has moved to another one.
    fn search(&mut self, sources: &Sources) -> bool {
        self.search = None;
        let is_whole = |group: &Cgroup| group.fault().is_none();
        match (Cgroup::discover(sources), &self.found) {
            (Err(error), _) if error.is_unsupported() => *self = Self::default(),
            (Err(error), _) => self.search = Some(error),
            // The process may have too many open files. The open ones can still be read.
            (Ok(Some(new)), Some(old)) if is_whole(old) && !is_whole(&new) && new.is_same(old) => {
                self.search = new.fault().cloned();
            }
            (Ok(new), old) => {
                let is_same = match (&new, old) {
                    (Some(new), Some(old)) => new.is_same(old),
                    (new, old) => new.is_none() && old.is_none(),
                };
                *self = Self { found: new, ..Self::default() };
                return !is_same;
            }
        }
        false
    }
}

/// The open sources, and the state between two readings.
#[derive(Debug, Default)]
pub(super) struct Kept {
    group: Group,
    process: Sensor<Arc<ProcessReader>>,
    machine: Sensor<MachineReader>,
    /// The lost time of the machine.
    stall: Sensor<StallReader>,
    text: Vec<u8>,
    /// The time at which the long files were last read.
    read: Option<Instant>,
    /// The time at which the unknown sources were last opened again.
    tried: Option<Instant>,
    /// The time at which the control group was last searched for.
    checked: Option<Instant>,
    known_group: Vec<Option<CgroupLongFile>>,
    known_process: Option<ProcessLongFile>,
    known_machine: Option<MachineMemory>,
    events: Option<CgroupEvents>,
}

/// One reading, without the figures of the sources that failed.
#[derive(Debug)]
pub(super) struct Figures {
    /// The limits of the control group, as far as they are known.
    bounds: CgroupReading,
    /// The limit of a control group that may exist but is not visible.
    presumed: Option<u64>,
    pub(super) cgroup: Option<CgroupMemory>,
    pub(super) process: Option<ProcessMemory>,
    pub(super) machine: Option<MachineMemory>,
    pub(super) stall: Option<MemoryStall>,
    /// The events since the control group was made, and since the last reading.
    pub(super) events: Option<CgroupEvents>,
    pub(super) since: Option<CgroupEvents>,
    /// Whether every source of headroom is known or absent.
    pub(super) is_whole: bool,
    pub(super) unknown: BTreeMap<&'static str, SystemError>,
}

/// Returns whether `period` has passed since `last`, or the clock went back.
fn is_due(last: Option<Instant>, now: Instant, period: Duration) -> bool {
    last.and_then(|last| now.checked_duration_since(last)).is_none_or(|age| age >= period)
}

impl Kernel {
    pub(super) fn open(sources: &Sources) -> Self {
        Self { sources: sources.clone(), process: Mutex::new(None) }
    }

    /// Reads only the resident bytes, with `text` as the buffer. Returns `None` if they are not known.
    pub(super) fn resident(&self, text: &mut Vec<u8>) -> Option<usize> {
        lock(&self.process).as_ref()?.resident_in(text).ok().map(clamp)
    }

    fn open_process(&self) -> Result<Option<Arc<ProcessReader>>, SystemError> {
        let opened = self.sources.process().map(Arc::new);
        *lock(&self.process) = opened.as_ref().ok().map(Arc::clone);
        opened.map(Some)
    }

    /// Opens all sources. Events before this call do not count as new.
    pub(super) fn kept(&self) -> Kept {
        let sources = &self.sources;
        let mut kept = Kept {
            process: Sensor::open(self.open_process()),
            machine: Sensor::open(sources.machine().map(Some)),
            stall: Sensor::open(sources.stall_reader()),
            ..Kept::default()
        };
        kept.group.search(sources);
        kept.events = kept.group.found.as_ref().and_then(|group| group.events().ok());
        kept
    }

    /// Opens unknown sources again, and checks whether the process was moved to another control group.
    fn renew(&self, kept: &mut Kept, now: Instant) {
        let sources = &self.sources;
        let mut searches = false;
        if is_due(kept.tried, now, RETRY) {
            kept.tried = Some(now);
            // These two are read at each sample.
            kept.process.retry(|| self.open_process());
            kept.stall.retry(|| sources.stall_reader());
            if kept.machine.retry(|| sources.machine().map(Some)) {
                kept.read = None;
            }
            searches = kept.group.is_unknown();
        }
        if is_due(kept.checked, now, RECHECK) {
            kept.checked = Some(now);
            // A controller that is enabled later does not change the text.
            searches |= kept.group.found.as_ref().is_none_or(|group| {
                group.is_incomplete() || !group.is_current(sources, &mut kept.text)
            });
        }
        if searches {
            if kept.group.search(sources) {
                kept.events = None;
            }
            kept.known_group.clear();
        }
    }

    pub(super) fn read(&self, kept: &mut Kept, now: Instant) -> Figures {
        self.renew(kept, now);
        let Kept { group, process, machine, stall, text, .. } = kept;
        if is_due(kept.read, now, LONG) {
            kept.read = Some(now);
            kept.known_group.clear();
            kept.known_process = None;
            kept.known_machine = machine.read(|reader| reader.memory_in(text));
        }
        let mut bounds = CgroupReading::default();
        let (mut cgroup, mut own, mut events, mut presumed) = (None, None, None, None);
        if let Some(found) = &group.found {
            bounds = found.read(text, &mut kept.known_group);
            presumed = found.presumed();
            cgroup = keep(found.figures(&bounds), &mut group.memory);
            own = keep(found.stall_in(text), &mut group.stall).flatten();
            events = keep(found.events_in(text), &mut group.events);
        }
        let known = &mut kept.known_process;
        let process_memory = process.read(|reader| reader.memory_in(text, known));
        // The control group's figures are better: the machine's include other groups.
        let stall_memory = own.or_else(|| stall.read(|reader| reader.stall_in(text)));
        let since = events.zip(kept.events).map(|(events, before)| events.since(before));
        kept.events = events.or(kept.events);
        let lost_time = group.stall.as_ref().or(stall.failure.as_ref().filter(|_| own.is_none()));
        let group_failure = group.search.as_ref().or(group.memory.as_ref());
        let failures = [
            ("control group", group_failure),
            ("process", process.failure.as_ref()),
            ("machine", machine.failure.as_ref()),
            ("lost time", lost_time),
            ("memory events", group.events.as_ref()),
        ];
        let of_headroom = 3;
        let unknown = failures
            .into_iter()
            .filter_map(|(source, error)| error.map(|error| (source, error.clone())));
        Figures {
            is_whole: failures[..of_headroom].iter().all(|(_, error)| error.is_none()),
            unknown: unknown.collect(),
            bounds,
            presumed,
            cgroup,
            process: process_memory,
            machine: kept.known_machine,
            stall: stall_memory,
            events,
            since,
        }
    }
}

/// Returns the figures, if there are any, and sets `failure` to the error or to `None`.
fn keep<T>(read: Result<T, SystemError>, failure: &mut Option<SystemError>) -> Option<T> {
    match read {
        Ok(figures) => {
            *failure = None;
            Some(figures)
        }
        Err(error) => {
            *failure = Some(error);
            None
        }
    }
}

impl Figures {
    /// Returns the headroom of each source that has a bound, as far as they are known.
    pub(super) fn headroom(&self) -> Vec<Headroom> {
        let group = &self.bounds;
        let process = self.process.as_ref();
        // If the usage of the group is not known, the group uses at least the process's resident bytes.
        let resident = process.map_or(0, |process| process.resident);
        let uncertain = group.limit.or(self.presumed);
        let bounded = |source, limit: fn(&ProcessMemory) -> Option<u64>, used: fn(&_) -> u64| {
            process.and_then(|process| Headroom::of_used(source, limit(process), used(process)))
        };
        let machine = self.machine.as_ref();
        [
            Headroom::new(MemorySource::CgroupHigh, group.high, group.high_headroom),
            Headroom::new(MemorySource::CgroupMax, group.limit, group.headroom)
                .or_else(|| Headroom::of_used(MemorySource::CgroupMax, uncertain, resident)),
            Headroom::new(
                MemorySource::Machine,
                machine.map(|machine| machine.total),
                machine.map(|machine| machine.available),
            ),
            bounded(MemorySource::AddressSpace, |of| of.address_limit, |of| of.address_space),
            bounded(MemorySource::Data, |of| of.data_limit, |of| of.data),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
