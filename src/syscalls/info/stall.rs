//! Time lost because memory was short: the kernel's pressure stall information.

use super::{
    Sources,
    files::{File, MISSING},
    parse::{self, Garbled},
};
use crate::core::SystemError;
use alloc::vec::Vec;
use std::path::PathBuf;

const CALL: &str = "read how long memory was waited for";

/// The error (`EOPNOTSUPP`) of a kernel that has these files, but was booted with them turned off. Some kernels
/// return it when the file is opened, others when it is read.
const OFF: i32 = 95;

/// The time lost because memory was short: in reclaim, in swapping, or in reading dropped page cache again.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// if let Ok(Some(stall)) = info::machine_stall() {
///     let percent = f64::from(stall.full_avg10) / 100.0;
///     println!("all tasks waited for memory {percent} % of the last ten seconds");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryStall {
    /// The share of the last ten seconds in which at least one task waited, in hundredths of a percent: 10 000 is
    /// all of the time.
    pub some_avg10: u16,
    /// The time in which at least one task waited since the kernel or the cgroup was started, in microseconds.
    pub some_total: u64,
    /// The share of the last ten seconds in which all tasks with work waited, in hundredths of a percent.
    pub full_avg10: u16,
    /// The time in which all tasks with work waited since the kernel or the cgroup was started, in microseconds.
    pub full_total: u64,
}

/// Reads the lost time of the machine or of a cgroup often, from a file that is opened once.
#[derive(Debug)]
pub(crate) struct StallReader(File);

impl StallReader {
    /// Implements [`Sources::stall_reader`].
    pub(super) fn of_machine(sources: &Sources) -> Result<Option<Self>, SystemError> {
        Self::open(sources.path(b"/proc/pressure/memory"))
    }

    /// Opens the file `path`. `None` if the kernel does not measure lost time.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>, SystemError> {
        match File::open(CALL, path).map(Self) {
            Ok(reader) => match reader.stall() {
                Err(error) if error.errno == OFF => Ok(None),
                _ => Ok(Some(reader)),
            },
            Err(error) if error.errno == OFF || MISSING.contains(&error.errno) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the current figures.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be read or understood.
    ///
    /// # Complexity
    ///
    /// One read; some two microseconds.
    pub(crate) fn stall(&self) -> Result<MemoryStall, SystemError> {
        self.stall_in(&mut Vec::new())
    }

    /// Like [`stall`](Self::stall). `text` is the buffer.
    pub(crate) fn stall_in(&self, text: &mut Vec<u8>) -> Result<MemoryStall, SystemError> {
        self.0.record(text, |text| {
            let time = |kind| parse::stall(text, kind)?.ok_or(Garbled);
            let (some_avg10, some_total) = time("some")?;
            let (full_avg10, full_total) = time("full")?;
            // While all tasks wait, some task waits. The kernel rounds the two averages separately.
            if full_avg10 > some_avg10.saturating_add(1) {
                return Err(Garbled);
            }
            Ok(MemoryStall { some_avg10, some_total, full_avg10, full_total })
        })
    }
}
