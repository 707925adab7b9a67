//! Time lost for want of memory: the kernel's pressure stall information.

use super::{
    Sources,
    files::{File, MISSING},
    parse::{self, Garbled},
};
use crate::core::SystemError;
use alloc::vec::Vec;
use std::path::PathBuf;

const CALL: &str = "read how long memory was waited for";

/// The kernel was built with these files, and started without them (`EOPNOTSUPP`). Some kernels say so
/// when the file is opened, others when it is read.
const OFF: i32 = 95;

/// How much time was lost because memory was short: in reclaim, in swapping, or in reading dropped page
/// cache again.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// if let Ok(Some(reader)) = Sources::kernel().stall() {
///     let stall = reader.stall()?;
///     assert!(stall.some.avg10 <= 10_000 && stall.full.avg10 <= 10_000);
/// }
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryStall {
    /// While at least one task waited.
    pub some: StallTime,
    /// While every task that had work waited.
    pub full: StallTime,
}

/// One kind of lost time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StallTime {
    /// The share of the last ten seconds, in hundredths of a percent: 10 000 is all of them.
    pub avg10: u16,
    /// Since the kernel or the cgroup was started, in microseconds.
    pub total: u64,
}

/// Reads the lost time of the machine or of a cgroup again and again, from a file that is opened once.
#[derive(Debug)]
pub struct StallReader(File);

impl StallReader {
    /// See [`Sources::stall`].
    pub(super) fn of_machine(sources: &Sources) -> Result<Option<Self>, SystemError> {
        Self::open(sources.path(b"/proc/pressure/memory"))
    }

    /// Opens the file `path`. `None` where the kernel does not count.
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

    /// Reads the present figures.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be read or understood.
    ///
    /// # Complexity
    ///
    /// One reading; some two microseconds.
    pub fn stall(&self) -> Result<MemoryStall, SystemError> {
        self.stall_in(&mut Vec::new())
    }

    /// Like [`stall`](Self::stall), by way of `text`.
    pub(crate) fn stall_in(&self, text: &mut Vec<u8>) -> Result<MemoryStall, SystemError> {
        self.0.record(text, |text| {
            let time = |kind| {
                let (avg10, total) = parse::stall(text, kind)?.ok_or(Garbled)?;
                Ok(StallTime { avg10, total })
            };
            let stall = MemoryStall { some: time("some")?, full: time("full")? };
            // While all tasks wait, some task does. The two averages are rounded apart.
            let agrees = stall.full.avg10 <= stall.some.avg10.saturating_add(1);
            if agrees { Ok(stall) } else { Err(Garbled) }
        })
    }
}
