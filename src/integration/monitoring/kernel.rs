//! The kernel's figures, all at one moment, from files that stay open.

use super::scale::{Headroom, MemorySource, clamp};
use crate::syscalls::info::{
    Cgroup, CgroupEvents, CgroupLongFile, CgroupMemory, MachineMemory, MachineReader, MemoryStall,
    ProcessLongFile, ProcessMemory, ProcessReader, Sources, StallReader,
};
use std::{
    time::{Duration, Instant},
    vec::Vec,
};

/// How old what the long files say may be, and the limits: `meminfo`, `status` and `memory.stat` take
/// the kernel some ten microseconds each, the others one or two.
const LONG: Duration = Duration::from_millis(100);

/// What is there to be read; `None` where the platform does not have it or it cannot be opened.
#[derive(Debug)]
pub(super) struct Kernel {
    cgroup: Option<Cgroup>,
    process: Option<ProcessReader>,
    machine: Option<MachineReader>,
    stall: Option<StallReader>,
}

/// What is kept from one reading to the next.
#[derive(Debug, Default)]
pub(super) struct Kept {
    text: Vec<u8>,
    /// When the long files were last read.
    read: Option<Instant>,
    cgroup: Vec<Option<CgroupLongFile>>,
    process: Option<ProcessLongFile>,
    machine: Option<MachineMemory>,
    events: Option<CgroupEvents>,
}

/// One reading. A source that fails now may answer the next time; it is absent from this one.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) cgroup: Option<CgroupMemory>,
    pub(super) process: Option<ProcessMemory>,
    pub(super) machine: Option<MachineMemory>,
    pub(super) stall: Option<MemoryStall>,
    /// Since the control group was made, and since the last reading.
    pub(super) events: Option<CgroupEvents>,
    pub(super) since: Option<CgroupEvents>,
    /// Whether every source of headroom answered.
    pub(super) is_whole: bool,
}

impl Kernel {
    pub(super) fn open(sources: &Sources) -> Self {
        Self {
            cgroup: sources.cgroup().ok().flatten(),
            process: sources.process().ok(),
            machine: sources.machine().ok(),
            stall: sources.stall().ok().flatten(),
        }
    }

    /// What has happened until now is no news.
    pub(super) fn kept(&self) -> Kept {
        let events = self.cgroup.as_ref().and_then(|cgroup| cgroup.events().ok());
        Kept { events, ..Kept::default() }
    }

    /// The bytes that are resident now; `None` where the platform does not say.
    pub(super) fn resident(&self, text: &mut Vec<u8>) -> Option<usize> {
        self.process.as_ref()?.resident_in(text).ok().map(clamp)
    }

    pub(super) fn read(&self, kept: &mut Kept, now: Instant) -> Figures {
        let Kept { text, read, cgroup: known, process, machine, events: before } = kept;
        // A clock that jumped back says nothing of the age.
        let age = read.and_then(|read| now.checked_duration_since(read));
        if age.is_none_or(|age| age >= LONG) {
            *read = Some(now);
            known.clear();
            *process = None;
            *machine = self.machine.as_ref().and_then(|reader| reader.memory_in(text).ok());
        }
        let cgroup = self.cgroup.as_ref().and_then(|group| group.memory_in(text, known).ok());
        let process = self.process.as_ref().and_then(|reader| reader.memory_in(text, process).ok());
        // Where the control group has figures of its own, the machine's would add the neighbours'.
        let own = self.cgroup.as_ref().and_then(|group| group.stall_in(text).ok().flatten());
        let stall =
            own.or_else(|| self.stall.as_ref().and_then(|reader| reader.stall_in(text).ok()));
        let events = self.cgroup.as_ref().and_then(|group| group.events_in(text).ok());
        let since = events.zip(*before).map(|(events, before)| events.since(before));
        *before = events.or(*before);
        Figures {
            is_whole: cgroup.is_some() == self.cgroup.is_some()
                && process.is_some() == self.process.is_some()
                && machine.is_some() == self.machine.is_some(),
            cgroup,
            process,
            machine: *machine,
            stall,
            events,
            since,
        }
    }
}

impl Figures {
    /// What each source leaves.
    pub(super) fn headroom(&self) -> Vec<Headroom> {
        let group = self.cgroup.as_ref();
        let limit = |of: fn(&CgroupMemory) -> Option<u64>| group.and_then(of);
        let process = self.process.as_ref();
        let bounded = |source, limit: fn(&ProcessMemory) -> Option<u64>, used: fn(&_) -> u64| {
            process.and_then(|process| Headroom::of_used(source, limit(process), used(process)))
        };
        let machine = self.machine.as_ref();
        [
            Headroom::new(
                MemorySource::CgroupHigh,
                limit(|group| group.high),
                limit(CgroupMemory::high_headroom),
            ),
            Headroom::new(
                MemorySource::CgroupMax,
                limit(|group| group.limit),
                limit(CgroupMemory::headroom),
            ),
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
