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
    /// Two readings; some microseconds.
    ///
    /// # Examples
    ///
    /// See [`ProcessReader`].
    pub fn memory(&self) -> Result<ProcessMemory, SystemError> {
        let mut text = Vec::new();
        let resident = self.statm.figure(&mut text, |statm| {
            // Lossless: no supported target has sizes wider than 64 bits.
            parse::resident_pages(statm)?.checked_mul(page_size() as u64).ok_or(Garbled)
        })?;
        let peak = self.status.figure(&mut text, |status| parse::kilobytes(status, "VmHWM"))?;
        Ok(ProcessMemory { resident, peak_resident: peak.max(resident) })
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
        self.0.figure(&mut Vec::new(), |text| {
            Ok(MachineMemory {
                total: parse::kilobytes(text, "MemTotal")?,
                available: parse::kilobytes(text, "MemAvailable")?,
            })
        })
    }
}
