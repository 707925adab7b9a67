//! Opens the kernel's files below a directory, and reads them.

use super::{
    Cgroup, CgroupEvents, CgroupMemory, MachineMemory, MachineReader, MemoryStall, ProcessMemory,
    ProcessReader, StallReader,
    files::{Sources, shown},
};
use crate::core::SystemError;
use alloc::string::String;

impl Sources {
    /// Implements [`process_memory`](super::process_memory).
    pub(super) fn process_memory(&self) -> Result<ProcessMemory, SystemError> {
        self.process()?.memory()
    }

    /// Opens the files of [`process_memory`](Self::process_memory), for reading them often.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened.
    pub(crate) fn process(&self) -> Result<ProcessReader, SystemError> {
        ProcessReader::open(self)
    }

    /// Implements [`machine_memory`](super::machine_memory).
    pub(super) fn machine_memory(&self) -> Result<MachineMemory, SystemError> {
        self.machine()?.memory()
    }

    /// Opens the file of [`machine_memory`](Self::machine_memory), for reading it often.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened.
    pub(crate) fn machine(&self) -> Result<MachineReader, SystemError> {
        MachineReader::open(self)
    }

    /// Implements [`machine_stall`](super::machine_stall).
    pub(super) fn machine_stall(&self) -> Result<Option<MemoryStall>, SystemError> {
        self.stall_reader()?.map(|reader| reader.stall()).transpose()
    }

    /// Opens the file of [`machine_stall`](Self::machine_stall), for reading it often.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened.
    pub(crate) fn stall_reader(&self) -> Result<Option<StallReader>, SystemError> {
        StallReader::of_machine(self)
    }

    /// Implements [`cgroup_memory`](super::cgroup_memory).
    pub(super) fn cgroup_memory(&self) -> Result<Option<CgroupMemory>, SystemError> {
        self.cgroup()?.map(|cgroup| cgroup.memory()).transpose()
    }

    /// Implements [`cgroup_events`](super::cgroup_events).
    pub(super) fn cgroup_events(&self) -> Result<Option<CgroupEvents>, SystemError> {
        self.cgroup()?.map(|cgroup| cgroup.events()).transpose()
    }

    /// Implements [`cgroup_stall`](super::cgroup_stall).
    pub(super) fn cgroup_stall(&self) -> Result<Option<MemoryStall>, SystemError> {
        self.cgroup()?.map_or(Ok(None), |cgroup| cgroup.stall())
    }

    /// Finds the process's memory cgroup and opens its files and those of the cgroups above it.
    ///
    /// # Errors
    ///
    /// As for [`cgroup_memory`](super::cgroup_memory).
    pub(super) fn cgroup(&self) -> Result<Option<Cgroup>, SystemError> {
        Cgroup::find(self)
    }

    /// Implements [`memory_bound`](super::memory_bound).
    ///
    /// # Errors
    ///
    /// As for [`memory_bound`](super::memory_bound).
    pub(crate) fn memory_bound(&self) -> Result<MemoryBound, SystemError> {
        let (bound, unknown) = match Cgroup::discover(self) {
            Ok(group) => group.map_or((None, None), |group| group.bound()),
            Err(error) => (None, Some(error)),
        };
        let machine = self.machine().and_then(|machine| machine.total());
        match (bound, unknown, machine) {
            (Some((bytes, file)), _, machine)
                if machine.as_ref().map_or(true, |all| bytes <= *all) =>
            {
                Ok(MemoryBound { bytes, file })
            }
            (None, Some(error), _) => Err(error),
            (_, _, Ok(bytes)) => Ok(MemoryBound {
                bytes,
                file: shown(self.path(b"/proc/meminfo").as_os_str().as_encoded_bytes()),
            }),
            (_, _, Err(error)) => Err(error),
        }
    }
}

/// A bound on the memory of the process.
#[derive(Debug)]
pub(crate) struct MemoryBound {
    /// The most bytes that the process may use.
    pub(crate) bytes: u64,
    /// The file with the bound. Bytes that are not UTF-8 are replaced.
    pub(crate) file: String,
}
