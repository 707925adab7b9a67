//! Readers that keep the files of the process and of the machine open.

use super::{
    MachineMemory, ProcessMemory, Sources,
    files::File,
    page_size,
    parse::{self, Garbled},
};
use crate::{
    core::SystemError,
    utils::sync::{AtomicU64, Ordering},
};
use alloc::vec::Vec;

/// Reads the memory of the process often, from files that are opened once.
///
/// After a fork, a reader in the child still reads the figures of the parent.
#[derive(Debug)]
pub(crate) struct ProcessReader {
    statm: File,
    /// Makes the figures more precise. `statm` alone has all that is required.
    status: Option<File>,
    /// The most resident bytes of any reading.
    seen: AtomicU64,
}

impl ProcessReader {
    /// Implements [`Sources::process`].
    pub(super) fn open(sources: &Sources) -> Result<Self, SystemError> {
        const CALL: &str = "read the memory of the process";
        let statm = sources.open(CALL, b"/proc/self/statm")?;
        let status = sources.open(CALL, b"/proc/self/status").ok();
        Ok(Self { statm, status, seen: AtomicU64::new(0) })
    }

    /// Reads the current figures.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Complexity
    ///
    /// Two reads; some ten microseconds.
    pub(crate) fn memory(&self) -> Result<ProcessMemory, SystemError> {
        self.memory_in(&mut Vec::new(), &mut None)
    }

    /// Reads only the resident bytes, from one short file, in a microsecond or two. `text` is the buffer.
    pub(crate) fn resident_in(&self, text: &mut Vec<u8>) -> Result<u64, SystemError> {
        self.pages_in(text).map(|(_, _, resident)| resident)
    }

    /// Like [`memory`](Self::memory). `text` is the buffer, and `known` holds the figures of the long file from an
    /// earlier reading. The long file is read again only if `known` is empty, or if the process has a limit on its
    /// data.
    pub(crate) fn memory_in(
        &self,
        text: &mut Vec<u8>,
        known: &mut Option<LongFile>,
    ) -> Result<ProcessMemory, SystemError> {
        let (pages, address_space, resident) = self.pages_in(text)?;
        let (address_limit, data_limit) = limits();
        let long = match *known {
            Some(long) if data_limit.is_none() => long,
            _ => *known.insert(self.long(text)),
        };
        // Relaxed: the figure orders nothing.
        let seen = self.seen.fetch_max(resident, Ordering::Relaxed).max(resident);
        let data = long.data.or_else(|| pages.data.and_then(|pages| bytes(pages).ok()));
        Ok(ProcessMemory {
            resident,
            peak_resident: long.peak.map_or(seen, |peak| peak.max(seen)),
            address_space,
            address_limit,
            data: data.unwrap_or(address_space),
            data_limit,
        })
    }

    /// Reads the short file. Returns its fields, the bytes of the address space, and the resident bytes.
    fn pages_in(&self, text: &mut Vec<u8>) -> Result<(parse::Pages, u64, u64), SystemError> {
        let (pages, address_space, resident) = self.statm.record(text, |statm| {
            let pages = parse::pages(statm)?;
            Ok((pages, bytes(pages.all)?, bytes(pages.resident)?))
        })?;
        if resident > address_space.saturating_add(IMPRECISION) {
            return Err(self.statm.contradiction("compare the resident pages with all pages"));
        }
        Ok((pages, address_space, resident))
    }

    /// Reads the long file. Figures that are missing or not understood are `None`.
    fn long(&self, text: &mut Vec<u8>) -> LongFile {
        let read = self.status.as_ref().and_then(|status| {
            let line = |status: &[u8], key| parse::kilobytes(status, key).ok();
            let long = |status: &[u8]| {
                Ok(LongFile { peak: line(status, "VmHWM"), data: line(status, "VmData") })
            };
            status.record(text, long).ok()
        });
        read.unwrap_or_default()
    }
}

/// How far the resident bytes may be off. The kernel counts resident pages per processor and adds them up late, and a
/// machine may have hundreds of processors.
const IMPRECISION: u64 = 256 << 20;

fn bytes(pages: u64) -> Result<u64, Garbled> {
    // Lossless: no supported target has sizes wider than 64 bits.
    pages.checked_mul(page_size() as u64).ok_or(Garbled)
}

/// The figures of the process's long file, which is slow to read. `None` if the kernel has no such line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LongFile {
    peak: Option<u64>,
    data: Option<u64>,
}

/// Returns the limits of this process's address space and data, if there are any.
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

/// Reads the memory of the machine often, from a file that is opened once.
#[derive(Debug)]
pub(crate) struct MachineReader(File);

impl MachineReader {
    /// Implements [`Sources::machine`].
    pub(super) fn open(sources: &Sources) -> Result<Self, SystemError> {
        sources.open("read the memory of the machine", b"/proc/meminfo").map(Self)
    }

    /// Reads the current figures.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be read or understood.
    ///
    /// # Complexity
    ///
    /// One read; some microseconds.
    pub(crate) fn memory(&self) -> Result<MachineMemory, SystemError> {
        self.memory_in(&mut Vec::new())
    }

    /// Like [`memory`](Self::memory). `text` is the buffer.
    pub(crate) fn memory_in(&self, text: &mut Vec<u8>) -> Result<MachineMemory, SystemError> {
        let machine = self.0.record(text, parse::machine)?;
        let total = self.positive(machine.total)?;
        let fits = |bytes: &u64| *bytes <= total;
        match machine.available.filter(fits).or(machine.droppable.filter(fits)) {
            Some(available) => Ok(MachineMemory { total, available }),
            None => Err(self.0.contradiction("compare MemAvailable with MemTotal")),
        }
    }

    /// Reads only the total.
    pub(super) fn total(&self) -> Result<u64, SystemError> {
        self.positive(self.0.record(&mut Vec::new(), parse::machine)?.total)
    }

    fn positive(&self, total: u64) -> Result<u64, SystemError> {
        match total {
            0 => Err(self.0.contradiction("use a MemTotal of 0")),
            total => Ok(total),
        }
    }
}
