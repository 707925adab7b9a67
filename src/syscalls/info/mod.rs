//! What the process, its memory cgroup and the machine have and use, in bytes.
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
//!                     getrlimit(2)             what bounds the two
//!   Sources::stall()  /proc/pressure/memory    time lost on the machine for want of memory
//!   huge_pages()      /sys/kernel/mm            sizes, and when they are used unasked
//!   numa_nodes()      /sys/devices/system/node  total, free
//! ```
//!
//! Three things go wrong when a service reads only its own cgroup's two files, and are seen to here:
//! a limit of any cgroup above binds as well; page cache that the kernel would drop at once is
//! counted in the usage; and in a container, or where both versions of the hierarchy are mounted,
//! the files are not where the path says.
//!
//! # Contract
//!
//! - A figure is right or there is none: a file that is missing where it must be, or whose text is
//!   not what the kernel documents, is a [`SystemError`] that names the file.
//! - Elsewhere than on Linux there is the page size alone; everything else is an error that
//!   [is unsupported](SystemError::is_unsupported).
//! - Each function opens its files anew. What is read again and again, as by a monitor, is better
//!   read through [`Cgroup`], [`ProcessReader`] and [`MachineReader`], which look for their files once
//!   and keep them open.
//!
//! # Non-goals
//!
//! Swap, memory by mapping (`smaps` takes milliseconds) and memory of other processes.

mod cgroup;
mod events;
mod files;
mod find;
mod levels;
mod pages;
mod parse;
mod readers;
mod sources;
mod stall;

pub(crate) use self::{
    cgroup::Reading as CgroupReading, levels::LongFile as CgroupLongFile,
    readers::LongFile as ProcessLongFile,
};
pub use self::{
    cgroup::{Cgroup, CgroupMemory, CgroupVersion},
    events::CgroupEvents,
    pages::{HugePages, NumaNode, TransparentHugePages},
    readers::{MachineReader, ProcessReader},
    sources::{MemoryBound, Sources},
    stall::{MemoryStall, StallReader, StallTime},
};

use crate::core::SystemError;
use alloc::vec::Vec;

/// The bytes of a page, the unit in which the kernel gives and takes memory.
///
/// Elsewhere than on Unix and Windows, which are asked, it is assumed to be 4096.
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
    // SAFETY: `info` is a place for what the call writes.
    unsafe { GetSystemInfo(&raw mut info) };
    usize::try_from(info.dwPageSize).unwrap_or(4096)
}

/// What this process has in memory. See [`Sources::process_memory`].
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood.
///
/// # Complexity
///
/// Two small files, some ten microseconds; the process's mappings are not walked.
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

/// What the machine has and could still give. See [`Sources::machine_memory`].
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

/// What this process's memory cgroup uses and may use. See [`Sources::cgroup_memory`].
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood, or the cgroup if it is not
/// below any mount.
///
/// # Complexity
///
/// Grows with the number of mounts and with the depth of the cgroup; [`Cgroup`] pays for the mounts
/// once.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// // The most that the process may hold, whoever says so.
/// fn ceiling() -> Result<u64, nebula_memory::core::SystemError> {
///     let machine = info::machine_memory()?.total;
///     let cgroup = info::cgroup_memory()?.and_then(|cgroup| cgroup.limit);
///     Ok(cgroup.map_or(machine, |limit| limit.min(machine)))
/// }
///
/// assert!(ceiling().map_or_else(|error| error.is_unsupported(), |bytes| bytes > 0));
/// ```
pub fn cgroup_memory() -> Result<Option<CgroupMemory>, SystemError> {
    Sources::kernel().cgroup_memory()
}

/// The huge pages that the machine has. See [`Sources::huge_pages`].
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::{TransparentHugePages, huge_pages};
///
/// match huge_pages() {
///     Ok(huge) if huge.transparent == TransparentHugePages::Never => println!("4 KiB it is"),
///     Ok(huge) => println!("huge pages of {:?} bytes", huge.transparent_size),
///     Err(error) => eprintln!("{error}"),
/// }
/// ```
pub fn huge_pages() -> Result<HugePages, SystemError> {
    Sources::kernel().huge_pages()
}

/// The memory nodes of the machine, one on most. See [`Sources::numa_nodes`].
///
/// # Errors
///
/// [`SystemError`] names the file that could not be read or understood.
///
/// # Examples
///
/// ```
/// match nebula_memory::syscalls::info::numa_nodes() {
///     Ok(nodes) => assert!(nodes.iter().all(|node| node.free <= node.total)),
///     Err(error) => assert!(error.is_unsupported()),
/// }
/// ```
pub fn numa_nodes() -> Result<Vec<NumaNode>, SystemError> {
    Sources::kernel().numa_nodes()
}

/// What the process has in memory, in bytes.
///
/// # Examples
///
/// See [`process_memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessMemory {
    /// Resident now: heap, stacks and the touched pages of mapped files, shared ones included.
    pub resident: u64,
    /// The most that was ever resident at once since the program was started.
    pub peak_resident: u64,
    /// What all mappings span, touched or not.
    pub address_space: u64,
    /// The most that [`address_space`](Self::address_space) may be (`RLIMIT_AS`), where it is bounded.
    /// It and the other limit are those of this process, wherever the files are.
    pub address_limit: Option<u64>,
    /// Of the address space, what is private and may be written: heap, thread stacks, data.
    pub data: u64,
    /// The most that [`data`](Self::data) may be (`RLIMIT_DATA`), where it is bounded.
    pub data_limit: Option<u64>,
}

/// What the machine has, in bytes.
///
/// # Examples
///
/// See [`machine_memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MachineMemory {
    /// Memory that the kernel manages.
    pub total: u64,
    /// The kernel's estimate of what could be allocated without swapping, dropping caches.
    pub available: u64,
}
