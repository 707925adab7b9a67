use super::{Content, Slot};
use crate::utils::sync::lock;
use std::io::{self, Read, Seek, SeekFrom};

/// Reads the bytes of a [`Spilled`](super::Spilled) buffer, in memory or not.
#[derive(Debug)]
pub(super) struct SpillReader<'a> {
    slot: &'a Slot,
    at: u64,
}

impl<'a> SpillReader<'a> {
    pub(super) const fn new(slot: &'a Slot) -> Self {
        Self { slot, at: 0 }
    }
}

impl Read for SpillReader<'_> {
    /// Reads as many bytes as `into` has room for and the buffer has left. If the file fails, the position does
    /// not change.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.slot.len);
        let len = into.len().min(self.slot.len - at);
        let into = &mut into[..len];
        match &*lock(&self.slot.content) {
            Content::Memory(bytes, _) => into.copy_from_slice(&bytes[at..at + len]),
            Content::File(begin) => self.slot.store.file.read(into, begin + at as u64)?,
            Content::Nowhere => unreachable!("a reader borrows the handle"),
        }
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for SpillReader<'_> {
    /// Moves the position. Fails if it would be negative or exceed 64 bits.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.slot.len as u64, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        let out_of_bounds = || {
            let what = std::format!("cannot seek {by} bytes from byte {from}");
            io::Error::new(io::ErrorKind::InvalidInput, what)
        };
        self.at = from.checked_add_signed(by).ok_or_else(out_of_bounds)?;
        Ok(self.at)
    }
}
