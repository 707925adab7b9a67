//! Where the kernel's files are.

use super::{
    Cgroup, CgroupMemory, MachineMemory, MachineReader, ProcessMemory, ProcessReader, StallReader,
    files::{File, path_of},
};
use crate::core::SystemError;
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

    /// A file by the absolute path that it has on its own machine.
    pub(super) fn path(&self, absolute: &[u8]) -> PathBuf {
        let relative = absolute.strip_prefix(b"/").unwrap_or(absolute);
        self.root.join(path_of(relative))
    }

    pub(super) fn open(&self, call: &'static str, absolute: &[u8]) -> Result<File, SystemError> {
        File::open(call, self.path(absolute))
    }
}
