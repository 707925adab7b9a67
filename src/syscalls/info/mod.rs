//! The memory of the process, of its memory cgroup and of the machine, in bytes.
//!
//! ```text
//!   machine_memory()  /proc/meminfo            total, available
//!   cgroup_memory()   /proc/self/cgroup        which cgroup
//!                     /proc/self/mountinfo     where its hierarchy is mounted, and from which root
//!                     <mount>/a/b/memory.*     the process's own: used
//!                     <mount>/a/memory.*       and each above it: the tightest limit and headroom
//!                     <mount>/memory.*
//!   cgroup_events()   .../memory.events*       how often memory ran out
//!   cgroup_stall()    .../memory.pressure      time lost in it because memory was short
//!   machine_stall()   /proc/pressure/memory    time lost on the machine because memory was short
//!   process_memory()  /proc/self/statm, status resident now and at most, address space, data
//!                     getrlimit(2)             the limits of the last two
//!   memory_bound()                             the tightest limit of the cgroups and the machine
//! ```
//!
//! A service that reads only the two files of its own cgroup makes three mistakes. The limit of a cgroup above may be
//! tighter. The usage includes page cache that the kernel would drop at once. In a container, or if both versions of
//! the hierarchy are mounted, the files are in a different directory than the path says. This module avoids all
//! three.
//!
//! # Contract
//!
//! - A figure is either right or missing. A [`SystemError`] names the file that is missing although it is required,
//!   that cannot be opened, whose text does not match the kernel's documentation, or whose figures contradict each
//!   other. `None` means that the kernel has no such figure, never that it could not be read.
//! - A missing optional file makes figures less precise. Without `memory.stat` (gVisor) all page cache counts as
//!   used. Without `VmHWM` the peak is the highest figure that was read: by this call, or by the monitor. Without
//!   `MemAvailable` (before Linux 3.14), or if it is above `MemTotal` (old lxcfs), the available memory is estimated as
//!   `MemFree` + `Buffers` + (`Cached` − `Shmem`) + `SReclaimable`. The estimate ignores the kernel's reserves of some
//!   ten MiB, and so is a little too high.
//! - On platforms other than Linux only the page size is known. All other functions return an error that [is
//!   unsupported](SystemError::is_unsupported).
//! - Each function finds and opens its files again. A [monitor](crate::integration::monitoring::Monitor) keeps the
//!   files of all functions open. It can also read them below another directory, in which a host's files are mounted.
//!
//! # Non-goals
//!
//! Swap, the memory of single mappings (`smaps` takes milliseconds), and the memory of other processes.

mod cgroup;
mod events;
mod files;
mod find;
mod levels;
mod parse;
mod readers;
mod sources;
mod stall;
#[cfg(all(test, target_os = "linux", not(any(loom, shuttle, miri))))]
mod tests;
mod version;

pub use self::{cgroup::CgroupMemory, events::CgroupEvents, stall::MemoryStall};
pub(crate) use self::{
    cgroup::{Cgroup, Reading as CgroupReading},
    files::Sources,
    levels::LongFile as CgroupLongFile,
    readers::{LongFile as ProcessLongFile, MachineReader, ProcessReader},
    stall::StallReader,
};

use crate::core::SystemError;

/// Returns the size of a page in bytes. The kernel manages memory in pages.
///
/// On platforms other than Unix and Windows the size is assumed to be 4096.
///
/// # Examples
///
/// ```
/// assert!(nebula_memory::syscalls::info::page_size().is_power_of_two());
/// ```
#[must_use]
pub fn page_size() -> usize {
    #[cfg(unix)]
    {
        rustix::param::page_size()
    }
    #[cfg(windows)]
    {
        windows_page_size()
    }
    #[cfg(not(any(unix, windows)))]
    {
        4096
    }
}

#[cfg(windows)]
fn windows_page_size() -> usize {
    use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};
    let mut info = SYSTEM_INFO::default();
    // SAFETY: `info` is valid for the write of this call.
    unsafe { GetSystemInfo(&raw mut info) };
    usize::try_from(info.dwPageSize).unwrap_or(4096)
}

/// Reads the memory of this process.
///
/// The kernel counts pages for each thread and adds them up only now and then. So the figures may be off by some
/// dozen pages per thread.
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood.
///
/// # Complexity
///
/// Reads two small files, in some ten microseconds. The mappings of the process are not walked.
///
/// # Examples
///
/// ```
/// match nebula_memory::syscalls::info::process_memory() {
///     Ok(memory) => assert!(memory.peak_resident >= memory.resident),
///     Err(error) => assert!(error.is_unsupported()),
/// }
/// ```
pub fn process_memory() -> Result<ProcessMemory, SystemError> {
    Sources::kernel().process_memory()
}

/// Reads the total and the available memory of the machine.
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood.
///
/// # Examples
///
/// ```
/// match nebula_memory::syscalls::info::machine_memory() {
///     Ok(memory) => assert!(memory.available <= memory.total),
///     Err(error) => assert!(error.is_unsupported()),
/// }
/// ```
pub fn machine_memory() -> Result<MachineMemory, SystemError> {
    Sources::kernel().machine_memory()
}

/// Reads the usage and the limits of this process's memory cgroup.
///
/// Returns `None` if no cgroup accounts the process's memory. There are three such cases. The kernel has no cgroups.
/// The process is in the root cgroup of version 2, which has no figures of its own. The memory controller is enabled
/// neither for its cgroup nor for one above.
///
/// # Errors
///
/// [`SystemError`] names the file that could not be opened, read or understood. Errno 2 with the path of the cgroup
/// means that no mount shows the cgroup. There may then be a limit that is not visible to this process.
///
/// # Complexity
///
/// Grows with the number of mounts and with the depth of the cgroup.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// match info::cgroup_memory() {
///     Ok(Some(cgroup)) => println!("{} of {:?} bytes", cgroup.used, cgroup.limit),
///     Ok(None) => println!("nothing accounts the memory of this process"),
///     Err(error) => println!("unknown: {error}"),
/// }
/// ```
pub fn cgroup_memory() -> Result<Option<CgroupMemory>, SystemError> {
    Sources::kernel().cgroup_memory()
}

/// Reads how often memory ran out in this process's memory cgroup. Returns `None` in the same cases as
/// [`cgroup_memory`].
///
/// # Errors
///
/// As for [`cgroup_memory`]. If the kernel lacks a file of counters, they are 0.
///
/// # Complexity
///
/// As for [`cgroup_memory`].
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// match info::cgroup_events() {
///     Ok(Some(events)) if events.oom_kill > 0 => println!("a process was killed"),
///     Ok(_) => {}
///     Err(error) => println!("unknown: {error}"),
/// }
/// ```
pub fn cgroup_events() -> Result<Option<CgroupEvents>, SystemError> {
    Sources::kernel().cgroup_events()
}

/// Reads how much time the tasks of this process's memory cgroup lost because memory was short.
///
/// Returns `None` in the same cases as [`cgroup_memory`], with version 1, and if the kernel does not measure it.
///
/// # Errors
///
/// As for [`cgroup_memory`].
///
/// # Complexity
///
/// As for [`cgroup_memory`].
///
/// # Examples
///
/// The tasks of the process's own cgroup, or else of the machine:
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// if let Ok(own) = info::cgroup_stall() {
///     let stall = own.or_else(|| info::machine_stall().ok().flatten());
///     println!("{:?}", stall.map(|stall| stall.some_total));
/// }
/// ```
pub fn cgroup_stall() -> Result<Option<MemoryStall>, SystemError> {
    Sources::kernel().cgroup_stall()
}

/// Reads how much time the tasks of the machine lost because memory was short. Returns `None` if the kernel does not
/// measure it.
///
/// # Errors
///
/// [`SystemError`] names the file if it could not be opened, read or understood.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// if let Ok(Some(stall)) = info::machine_stall() {
///     assert!(stall.some_avg10 <= 10_000 && stall.full_avg10 <= 10_000);
/// }
/// ```
pub fn machine_stall() -> Result<Option<MemoryStall>, SystemError> {
    Sources::kernel().machine_stall()
}

/// Returns the tightest known bound on the memory of the process, in bytes: a hard limit or `memory.high` of its
/// cgroup or of a cgroup above, or the memory of the machine.
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
/// use nebula_memory::{Budget, syscalls::info};
///
/// let limit = match info::memory_bound() {
///     Ok(bytes) => usize::try_from(bytes / 4 * 3).unwrap_or(usize::MAX),
///     Err(error) => {
///         eprintln!("{error}");
///         64 << 20
///     }
/// };
/// let budget = Budget::root("process").limit(limit).build()?;
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub fn memory_bound() -> Result<u64, SystemError> {
    Sources::kernel().memory_bound().map(|bound| bound.bytes)
}

/// The memory of the process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessMemory {
    /// Resident bytes now: heap, stacks and touched pages of mapped files, including shared ones.
    pub resident: u64,
    /// The peak of the resident bytes since the program was started, and never below [`resident`](Self::resident). If
    /// the kernel does not count it, the highest figure that was read: by this call, or by the monitor.
    pub peak_resident: u64,
    /// The size of all mappings, touched or not. Never 0.
    pub address_space: u64,
    /// The limit of [`address_space`](Self::address_space) (`RLIMIT_AS`), if there is one. Both limits are always
    /// those of this process, even if the files are read below another directory.
    pub address_limit: Option<u64>,
    /// The private writable part of the address space: heap, thread stacks, data. If the kernel does not count it, an
    /// upper bound, which is at most the address space.
    pub data: u64,
    /// The limit of [`data`](Self::data) (`RLIMIT_DATA`), if there is one.
    pub data_limit: Option<u64>,
}

/// The memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MachineMemory {
    /// The memory that the kernel manages. Never 0.
    pub total: u64,
    /// The bytes that can be allocated without swapping if the kernel drops caches; at most [`total`](Self::total).
    /// This is the kernel's own estimate (`MemAvailable`). If that is missing or cannot be right, this module
    /// [estimates](self#contract) the figure.
    pub available: u64,
}
