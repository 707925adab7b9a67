//! The memory of the process, of its memory cgroup and of the machine, in bytes.
//!
//! ```text
//!   machine_memory()  /proc/meminfo            total, available
//!   cgroup_memory()   /proc/self/cgroup        which cgroup
//!                     /proc/self/mountinfo     where its hierarchy is mounted, and from which root
//!                     <mount>/a/b/memory.*     the process's own: used
//!                     <mount>/a/memory.*       and each above it: the tightest limit and headroom
//!                     <mount>/memory.*
//!                     .../memory.events*       how often memory ran out; Cgroup::events()
//!                     .../memory.pressure      time lost in it; Cgroup::stall()
//!   process_memory()  /proc/self/statm, status resident now and at most, address space, data
//!                     getrlimit(2)             the limits of the last two
//!   Sources::memory_bound()                    the tightest limit of all of these
//!   Sources::stall()  /proc/pressure/memory    time lost on the machine because memory was short
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
//!   used. Without `VmHWM` the peak is the highest figure that the reader saw. Without `MemAvailable` (before Linux
//!   3.14), or if it is above `MemTotal` (old lxcfs), the available memory is estimated as `MemFree` + `Buffers` +
//!   (`Cached` − `Shmem`) + `SReclaimable`. The estimate ignores the kernel's reserves of some ten MiB, and so is a
//!   little too high.
//! - On platforms other than Linux only the page size is known. All other functions return an error that [is
//!   unsupported](SystemError::is_unsupported).
//! - Each function opens its files again. A [`Cgroup`] finds its files once and keeps them open, and so does a
//!   [monitor](crate::integration::monitoring::Monitor) with all of its sources.
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
mod version;

pub(crate) use self::{
    cgroup::Reading as CgroupReading,
    levels::LongFile as CgroupLongFile,
    readers::{LongFile as ProcessLongFile, MachineReader, ProcessReader},
    stall::StallReader,
};
pub use self::{
    cgroup::{Cgroup, CgroupMemory},
    events::CgroupEvents,
    files::Sources,
    sources::MemoryBound,
    stall::{MemoryStall, StallTime},
    version::CgroupVersion,
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

/// Reads the memory of this process. See [`Sources::process_memory`].
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

/// Reads the total and the available memory of the machine. See [`Sources::machine_memory`].
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

/// Reads the usage and the limits of this process's memory cgroup. See [`Sources::cgroup_memory`].
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood, or the cgroup if no mount shows it.
///
/// # Complexity
///
/// Grows with the number of mounts and with the depth of the cgroup. A [`Cgroup`] reads the mounts only once.
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

/// The memory of the process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessMemory {
    /// Resident bytes now: heap, stacks and touched pages of mapped files, including shared ones.
    pub resident: u64,
    /// The peak of the resident bytes since the program was started, and never below [`resident`](Self::resident). If
    /// the kernel does not count it, the peak over the readings of this reader.
    pub peak_resident: u64,
    /// The size of all mappings, touched or not. Never 0.
    pub address_space: u64,
    /// The limit of [`address_space`](Self::address_space) (`RLIMIT_AS`), if there is one. Both limits are always
    /// those of this process, even if the files are read from another root.
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
