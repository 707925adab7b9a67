//! Opens the kernel's files below a directory, and reads them.

use super::{
    Cgroup, CgroupMemory, MachineMemory, MachineReader, MemoryStall, ProcessMemory, ProcessReader,
    StallReader,
    files::{Sources, shown},
};
use crate::core::SystemError;
use alloc::string::String;

impl Sources {
    /// Reads `proc/self/statm` and `proc/self/status`.
    ///
    /// The kernel counts pages for each thread and adds them up only now and then. So the figures may be off by some
    /// dozen pages per thread. `status` is optional; see [`ProcessMemory`].
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    pub fn process_memory(&self) -> Result<ProcessMemory, SystemError> {
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

    /// Reads `proc/meminfo`.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    pub fn machine_memory(&self) -> Result<MachineMemory, SystemError> {
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

    /// Reads `proc/pressure/memory`. `None` if the kernel does not measure it. For the figures of a version 2 cgroup,
    /// use [`Cgroup::stall`].
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened, read or understood.
    pub fn stall(&self) -> Result<Option<MemoryStall>, SystemError> {
        self.stall_reader()?.map(|reader| reader.stall()).transpose()
    }

    /// Opens the file of [`stall`](Self::stall), for reading it often.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened.
    pub(crate) fn stall_reader(&self) -> Result<Option<StallReader>, SystemError> {
        StallReader::of_machine(self)
    }

    /// Finds the process's memory cgroup and reads it once, by [`cgroup`](Self::cgroup) and [`Cgroup::memory`].
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened, read or understood.
    pub fn cgroup_memory(&self) -> Result<Option<CgroupMemory>, SystemError> {
        self.cgroup()?.map(|cgroup| cgroup.memory()).transpose()
    }

    /// Finds the process's memory cgroup and opens its files and those of the cgroups above it.
    ///
    /// Returns `None` if no cgroup accounts the process's memory. There are three such cases. The kernel has no
    /// cgroups. The process is in the root cgroup of version 2, which has no figures of its own. The memory
    /// controller is enabled neither for its cgroup nor for one above.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened or understood. Errno 2 with the path of the cgroup
    /// means that no mount shows the cgroup. There may then be a limit that is not visible to this process.
    pub fn cgroup(&self) -> Result<Option<Cgroup>, SystemError> {
        Cgroup::find(self)
    }

    /// Returns the tightest known bound on the memory of the process: a hard limit or `memory.high` of its cgroup or
    /// of a cgroup above, or the memory of the machine.
    ///
    /// The machine alone is the bound only if the process is known to have no limit. Resource limits (`RLIMIT_AS`,
    /// `RLIMIT_DATA`) do not count, because they do not limit memory.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood. It is a file of the cgroup if the cgroup
    /// may have a limit and none is known, or a file of the machine if the process has no other bound.
    ///
    /// # Complexity
    ///
    /// Grows with the number of mounts and with the depth of the cgroup.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, syscalls::info::Sources};
    ///
    /// let limit = match Sources::kernel().memory_bound() {
    ///     Ok(bound) => usize::try_from(bound.bytes / 4 * 3).unwrap_or(usize::MAX),
    ///     Err(error) => {
    ///         eprintln!("{error}");
    ///         64 << 20
    ///     }
    /// };
    /// let budget = Budget::root("process").limit(limit).build()?;
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn memory_bound(&self) -> Result<MemoryBound, SystemError> {
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

/// A bound on the memory of the process, from [`Sources::memory_bound`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryBound {
    /// The most bytes that the process may use.
    pub bytes: u64,
    /// The file with the bound. Bytes that are not UTF-8 are replaced.
    pub file: String,
}
