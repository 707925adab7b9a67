//! The spill file: its used and free parts, and the calls that read and write it.

use super::space::Space;
use crate::{
    syscalls::filesystem,
    utils::sync::{AtomicU64, Mutex, Ordering, lock},
};
use std::{fs::File, io, path::Path};

/// A file without a name, of a limited length.
#[derive(Debug)]
pub(super) struct SpillFile {
    file: File,
    /// Locked while the file is truncated, so that no thread takes space beyond the new end. Not locked while
    /// bytes are read or written.
    space: Mutex<Space>,
    /// A copy of the count in `space`, for readers without the lock.
    used: AtomicU64,
    limit: u64,
    is_memory_backed: Option<bool>,
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// The reason why bytes were not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// They would exceed the file's limit.
    OverLimit,
    Io(io::Error),
}

impl SpillFile {
    /// Makes an empty file in `directory` that grows to at most `limit` bytes.
    pub(super) fn create(directory: &Path, limit: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self {
            is_memory_backed: filesystem::is_memory_backed(&file),
            file,
            space: Mutex::new(Space::new(limit)),
            used: AtomicU64::new(0),
            limit,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    /// Writes `bytes` where there is space for them. Returns their position. If it fails, the space is free
    /// again.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<u64, WriteError> {
        let len = bytes.len() as u64;
        if len == 0 {
            return Ok(0);
        }
        let at = {
            let mut space = lock(&self.space);
            let at = space.take(len).ok_or(WriteError::OverLimit)?;
            self.used.store(space.used(), Ordering::Relaxed);
            at
        };
        match self.write_at(bytes, at) {
            Ok(()) => Ok(at),
            Err(error) => {
                self.free(at, len);
                Err(WriteError::Io(error))
            }
        }
    }

    /// Reads bytes at position `at` until `into` is full.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_read()?;
        read_at(&self.file, into, at)
    }

    /// Frees the space that [`write`](Self::write) took. If nothing is behind it, the file is truncated and the
    /// disk gets the space back.
    pub(super) fn free(&self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut space = lock(&self.space);
        space.give_back(at, len);
        if let Some(end) = space.tail()
            && self.set_len(end).is_ok()
        {
            space.cut_tail();
        }
        self.used.store(space.used(), Ordering::Relaxed);
    }

    /// Returns the bytes of the file that are in use.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the length of the file, in use or not.
    pub(super) fn len(&self) -> u64 {
        lock(&self.space).end()
    }

    /// Returns whether all bytes that the file may have are in use.
    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    pub(super) const fn is_memory_backed(&self) -> Option<bool> {
        self.is_memory_backed
    }

    /// Checks the space against itself and against the file. No other thread may use it meanwhile.
    ///
    /// # Panics
    ///
    /// If they do not agree.
    pub(super) fn validate(&self) {
        let space = lock(&self.space);
        space.validate();
        assert_eq!((space.used(), space.limit()), (self.used(), self.limit), "the copies agree");
        if let Ok(file) = self.file.metadata() {
            assert!(file.len() <= space.end(), "{} bytes beyond {}", file.len(), space.end());
        }
    }

    #[cfg(test)]
    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some((fits, error)) = self.faults.before_write(at, bytes.len()) {
            write_at(&self.file, &bytes[..fits], at)?;
            return Err(error);
        }
        write_at(&self.file, bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_cut()?;
        self.file.set_len(len)
    }
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                into = &mut into[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = &bytes[written..];
                at += written as u64;
            }
        }
    }
    Ok(())
}

/// A disk that fails, for tests.
#[cfg(test)]
pub(super) mod faults {
    use crate::utils::sync::{Mutex, lock};
    use std::io;

    #[derive(Debug, Default)]
    pub(in super::super) struct Faults(Mutex<Disk>);

    #[derive(Clone, Copy, Debug, Default)]
    pub(in super::super) struct Disk {
        /// The length at which a write fails half-way, as on a full disk.
        pub(in super::super) size: Option<u64>,
        /// Writes of more than this many bytes fail.
        pub(in super::super) breaks_above: Option<usize>,
        pub(in super::super) fails_reads: bool,
        /// Whether the file cannot be truncated.
        pub(in super::super) fails_cuts: bool,
        /// The number of writes that were tried.
        pub(in super::super) writes: usize,
    }

    fn broken() -> io::Error {
        io::Error::other("the disk is broken")
    }

    impl Faults {
        pub(in super::super) fn set(&self, disk: Disk) {
            *lock(&self.0) = disk;
        }

        pub(in super::super) fn writes(&self) -> usize {
            lock(&self.0).writes
        }

        /// Returns the number of bytes that are still written, and the error.
        pub(super) fn before_write(&self, at: u64, len: usize) -> Option<(usize, io::Error)> {
            let mut disk = lock(&self.0);
            disk.writes += 1;
            if disk.breaks_above.is_some_and(|most| len > most) {
                return Some((0, broken()));
            }
            let fits = usize::try_from(disk.size?.saturating_sub(at)).unwrap_or(usize::MAX);
            (fits < len).then(|| (fits, io::ErrorKind::StorageFull.into()))
        }

        pub(super) fn before_read(&self) -> io::Result<()> {
            if lock(&self.0).fails_reads { Err(broken()) } else { Ok(()) }
        }

        pub(super) fn before_cut(&self) -> io::Result<()> {
            if lock(&self.0).fails_cuts { Err(broken()) } else { Ok(()) }
        }
    }
}
