//! Files that are kept open, for what reads them again and again.

use super::{
    MachineMemory, ProcessMemory, Sources,
    files::File,
    page_size,
    parse::{self, Garbled},
};
use crate::core::SystemError;
use alloc::vec::Vec;

/// The process's figures, from files that are opened once.
///
/// They are those of the process that opened them, also in one that is forked off.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// if let Ok(process) = Sources::kernel().process() {
///     let before = process.memory()?;
///     let after = process.memory()?;
///     assert!(after.peak_resident >= before.resident);
/// }
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
#[derive(Debug)]
pub struct ProcessReader {
    statm: File,
    status: File,
}

impl ProcessReader {
    /// See [`Sources::process`].
    pub(super) fn open(sources: &Sources) -> Result<Self, SystemError> {
        const CALL: &str = "read the memory of the process";
        let statm = sources.open(CALL, b"/proc/self/statm")?;
        Ok(Self { statm, status: sources.open(CALL, b"/proc/self/status")? })
    }

    /// Reads the figures of now.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Complexity
    ///
    /// Two readings; some ten microseconds.
    ///
    /// # Examples
    ///
    /// See [`ProcessReader`].
    pub fn memory(&self) -> Result<ProcessMemory, SystemError> {
        self.memory_in(&mut Vec::new(), &mut None)
    }

    /// Reads the resident bytes alone, by way of `text`: one short file, a microsecond or two.
    pub(crate) fn resident_in(&self, text: &mut Vec<u8>) -> Result<u64, SystemError> {
        self.statm.record(text, |statm| {
            let (_, resident) = parse::pages(statm)?;
            resident.checked_mul(page_size() as u64).ok_or(Garbled)
        })
    }

    /// As [`memory`](Self::memory), by way of `text`, with what is known of the long file. Where that
    /// is nothing, or is to be compared with a limit, it is read, and known from then on.
    pub(crate) fn memory_in(
        &self,
        text: &mut Vec<u8>,
        known: &mut Option<LongFile>,
    ) -> Result<ProcessMemory, SystemError> {
        let (address_space, resident) = self.statm.record(text, |statm| {
            let (all, resident) = parse::pages(statm)?;
            // Lossless: no supported target has sizes wider than 64 bits.
            let bytes = |pages: u64| pages.checked_mul(page_size() as u64).ok_or(Garbled);
            Ok((bytes(all)?, bytes(resident)?))
        })?;
        let (address_limit, data_limit) = limits();
        let long = match *known {
            Some(long) if data_limit.is_none() => long,
            _ => *known.insert(self.status.record(text, |status| {
                Ok(LongFile {
                    peak: parse::kilobytes(status, "VmHWM")?,
                    data: parse::kilobytes(status, "VmData")?,
                })
            })?),
        };
        Ok(ProcessMemory {
            resident,
            peak_resident: long.peak.max(resident),
            address_space,
            address_limit,
            data: long.data,
            data_limit,
        })
    }
}

/// What the process's long file said, which is slow to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongFile {
    peak: u64,
    data: u64,
}

/// The bounds of this process's address space and of its data, where there are any.
fn limits() -> (Option<u64>, Option<u64>) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{Resource, getrlimit};
        (getrlimit(Resource::As).current, getrlimit(Resource::Data).current)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        (None, None)
    }
}

/// The machine's figures, from a file that is opened once.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// if let Ok(machine) = Sources::kernel().machine() {
///     assert!(machine.memory()?.available <= machine.memory()?.total);
/// }
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
#[derive(Debug)]
pub struct MachineReader(File);

impl MachineReader {
    /// See [`Sources::machine`].
    pub(super) fn open(sources: &Sources) -> Result<Self, SystemError> {
        sources.open("read the memory of the machine", b"/proc/meminfo").map(Self)
    }

    /// Reads the figures of now.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be read or understood.
    ///
    /// # Complexity
    ///
    /// One reading; some microseconds.
    ///
    /// # Examples
    ///
    /// See [`MachineReader`].
    pub fn memory(&self) -> Result<MachineMemory, SystemError> {
        self.memory_in(&mut Vec::new())
    }

    /// As [`memory`](Self::memory), by way of `text`.
    pub(crate) fn memory_in(&self, text: &mut Vec<u8>) -> Result<MachineMemory, SystemError> {
        self.0.record(text, |text| {
            Ok(MachineMemory {
                total: parse::kilobytes(text, "MemTotal")?,
                available: parse::kilobytes(text, "MemAvailable")?,
            })
        })
    }
}
