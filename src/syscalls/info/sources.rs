//! Where the kernel's files are.

use super::{
    Cgroup, CgroupMemory, MachineMemory, MachineReader, ProcessMemory, ProcessReader, StallReader,
    files::{File, path_of, shown},
};
use crate::core::SystemError;
use alloc::string::String;
use std::path::PathBuf;

/// The directory below which `proc` and the cgroup mounts are found.
///
/// It is `/` for the functions of this module. Another one is of use to a program that has the
/// files of a host mounted elsewhere, and to tests.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// let error = Sources::under("/nowhere").machine_memory().unwrap_err();
/// assert!(error.is_unsupported() || error.path.as_deref() == Some("/nowhere/proc/meminfo"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    root: PathBuf,
}

impl Sources {
    /// The files of the running kernel.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::info::Sources;
    ///
    /// assert_eq!(Sources::kernel(), Sources::under("/"));
    /// ```
    #[must_use]
    pub fn kernel() -> Self {
        Self::under("/")
    }

    /// Files below `root`.
    ///
    /// # Examples
    ///
    /// See [`Sources`].
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads `proc/self/statm` and `proc/self/status`.
    ///
    /// The kernel counts pages for each thread and adds them up now and then, so the figures may be
    /// off by some dozen pages per thread. The peak is never shown below what is resident.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Examples
    ///
    /// See [`process_memory`](super::process_memory).
    pub fn process_memory(&self) -> Result<ProcessMemory, SystemError> {
        self.process()?.memory()
    }

    /// Opens the files of [`process_memory`](Self::process_memory), to be read again and again.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened.
    ///
    /// # Examples
    ///
    /// See [`ProcessReader`].
    pub fn process(&self) -> Result<ProcessReader, SystemError> {
        ProcessReader::open(self)
    }

    /// Reads `proc/meminfo`.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Examples
    ///
    /// See [`machine_memory`](super::machine_memory).
    pub fn machine_memory(&self) -> Result<MachineMemory, SystemError> {
        self.machine()?.memory()
    }

    /// Opens the file of [`machine_memory`](Self::machine_memory), to be read again and again.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened.
    ///
    /// # Examples
    ///
    /// See [`MachineReader`].
    pub fn machine(&self) -> Result<MachineReader, SystemError> {
        MachineReader::open(self)
    }

    /// Opens `proc/pressure/memory`. `None` where the kernel does not count; a cgroup of version 2 has
    /// figures of its own, [`Cgroup::stall`].
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened.
    ///
    /// # Examples
    ///
    /// See [`MemoryStall`](super::MemoryStall).
    pub fn stall(&self) -> Result<Option<StallReader>, SystemError> {
        StallReader::of_machine(self)
    }

    /// Finds the process's memory cgroup and reads it once: [`cgroup`](Self::cgroup), then
    /// [`Cgroup::memory`].
    ///
    /// # Errors
    ///
    /// As the two.
    ///
    /// # Examples
    ///
    /// See [`cgroup_memory`](super::cgroup_memory).
    pub fn cgroup_memory(&self) -> Result<Option<CgroupMemory>, SystemError> {
        self.cgroup()?.map(|cgroup| cgroup.memory()).transpose()
    }

    /// Finds the process's memory cgroup and opens its files and those of the cgroups above it.
    ///
    /// `None` where nothing accounts the process's memory: the kernel has no cgroups, no hierarchy
    /// that could is mounted, or the process is in the root cgroup of version 2, which has no
    /// figures of its own.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened or understood. Errno 2 with the path
    /// of the cgroup says that the hierarchy is mounted, but the cgroup is not below the mount: a
    /// limit there may be, but it cannot be seen from here.
    ///
    /// # Examples
    ///
    /// See [`Cgroup`].
    pub fn cgroup(&self) -> Result<Option<Cgroup>, SystemError> {
        Cgroup::find(self)
    }

    /// Returns the tightest known bound on the memory of the process: a hard limit or `memory.high` of
    /// its cgroup or of a cgroup above, or the memory of the machine.
    ///
    /// The machine alone is the bound only where the process is known to have no limit. Resource limits
    /// (`RLIMIT_AS`, `RLIMIT_DATA`) are not memory limits, and do not count.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood, where no limit of the
    /// cgroup is known and there may be one, or where there is none and the machine's memory is not
    /// known.
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

    /// A file by the absolute path that it has on its own machine.
    pub(super) fn path(&self, absolute: &[u8]) -> PathBuf {
        let relative = absolute.strip_prefix(b"/").unwrap_or(absolute);
        self.root.join(path_of(relative))
    }

    pub(super) fn open(&self, call: &'static str, absolute: &[u8]) -> Result<File, SystemError> {
        File::open(call, self.path(absolute))
    }
}

/// A bound on the memory of the process, from [`Sources::memory_bound`].
///
/// # Examples
///
/// See [`Sources::memory_bound`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryBound {
    /// The most bytes that the process may use.
    pub bytes: u64,
    /// The file that says so. Bytes that are not UTF-8 are replaced.
    pub file: String,
}
