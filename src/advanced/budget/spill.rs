use super::{Budget, Reservation};
use crate::{
    core::{
        MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable, Refused,
    },
    utils::{
        swept::Swept,
        sync::{AtomicUsize, Mutex, Ordering, lock},
    },
};
use core::{fmt, mem};
use std::{
    boxed::Box,
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, TryLockError, Weak},
    vec::Vec,
};

/// Byte buffers that go to a temporary file when their memory is needed, and are read from there.
///
/// A manager of class [`Spill`](ReclaimClass::Spill): it is registered with its budget when it is
/// made. A write to a disk is slow, so it is asked for the sake of those who
/// [wait](Budget::reserve), and by [`Budget::reclaim`]. The buffers that were put in first go first.
///
/// The file has no name, and its space is used again; it goes with the last handle.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::SpillStore};
/// use std::io::Read;
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let store = SpillStore::new(&budget, "runs")?;
/// let run = store.put(vec![7; 800])?;
///
/// let held = budget.reserve_blocking(500)?; // does not fit beside the run
/// assert!(!run.is_in_memory());
/// let mut bytes = Vec::new();
/// run.reader().read_to_end(&mut bytes)?;
/// assert_eq!(bytes, [7; 800]);
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SpillStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: Box<str>,
    budget: Budget,
    file: File,
    space: Mutex<Space>,
    /// Those that may be in memory, the oldest first.
    queue: Mutex<Swept<Weak<Slot>>>,
    in_memory: AtomicUsize,
    peak: AtomicUsize,
}

/// The file, by what of it is free.
#[derive(Debug, Default)]
struct Space {
    /// Lengths by where they begin; no two border on each other.
    free: BTreeMap<u64, u64>,
    end: u64,
}

struct Slot {
    len: usize,
    content: Mutex<Content>,
    store: Arc<Inner>,
}

/// What an [`Arc`] of a buffer points to: its counts, and the buffer.
type Shared = ([usize; 2], Slot);

enum Content {
    Memory(Vec<u8>, Reservation),
    File(u64),
    /// Taken out.
    Nowhere,
}

impl SpillStore {
    /// Bytes that the store takes for a buffer beside its own, in memory or not; they are not charged.
    pub const OVERHEAD: usize = size_of::<Shared>() + size_of::<Weak<Slot>>();

    /// A store that charges `budget`, which it is registered with.
    ///
    /// # Errors
    ///
    /// Where no temporary file can be made.
    pub fn new(budget: &Budget, name: &str) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            name: name.into(),
            budget: budget.clone(),
            file: tempfile::tempfile()?,
            space: Mutex::default(),
            queue: Mutex::default(),
            in_memory: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        budget.register(&inner);
        Ok(Self { inner })
    }

    /// Keeps `bytes`, in memory as long as nobody needs it. The capacity of the vector is charged.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the budget has no room for them.
    ///
    /// # Examples
    ///
    /// See [`SpillStore`].
    pub fn put(&self, bytes: Vec<u8>) -> Result<Spilled, Refused> {
        let charge = self.inner.budget.try_reserve(bytes.capacity())?;
        Ok(self.put_charged(bytes, charge))
    }

    /// As [`put`](Self::put), of bytes that are charged already.
    pub fn put_charged(&self, bytes: Vec<u8>, charge: Reservation) -> Spilled {
        let inner = &self.inner;
        let before = inner.in_memory.fetch_add(charge.size(), Ordering::Relaxed);
        let now = before.wrapping_add(charge.size());
        inner.peak.fetch_max(now, Ordering::Relaxed);
        let (len, store) = (bytes.len(), Arc::clone(inner));
        let content = Mutex::new(Content::Memory(bytes, charge));
        let slot = Arc::new(Slot { len, content, store });
        lock(&inner.queue).add(Arc::downgrade(&slot), |slot| slot.strong_count() > 0);
        Spilled { slot }
    }

    /// Bytes that are in the file.
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        let space = lock(&self.inner.space);
        space.end - space.free.values().sum::<u64>()
    }
}

/// A buffer of a [`SpillStore`]; dropping it frees its memory, or its part of the file.
pub struct Spilled {
    slot: Arc<Slot>,
}

impl Spilled {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bytes are in memory at this moment.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(*lock(&self.slot.content), Content::Memory(..))
    }

    /// Reads from the beginning, wherever the bytes are. Nothing is charged: what the reader is
    /// buffered with is the caller's.
    ///
    /// # Examples
    ///
    /// See [`SpillStore`].
    #[must_use]
    pub fn reader(&self) -> SpillReader<'_> {
        SpillReader { slot: &self.slot, at: 0 }
    }

    /// Takes the bytes out, and their charge. Where they are in the file they are charged and read.
    ///
    /// # Errors
    ///
    /// With the buffer as it was: [`OutOfMemory`](io::ErrorKind::OutOfMemory) where the budget has
    /// no room, with the [`Refused`] as its source; otherwise what the file says.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SpillStore};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let store = SpillStore::new(&budget, "runs")?;
    /// let run = store.put(vec![7; 800])?;
    /// budget.reclaim(1);
    /// assert_eq!((store.spilled_bytes(), budget.usage().used), (800, 0));
    ///
    /// let (bytes, charge) = run.into_bytes().map_err(|(_, error)| error)?;
    /// assert_eq!((bytes.len(), charge.size(), store.spilled_bytes()), (800, 800, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_bytes(self) -> Result<(Vec<u8>, Reservation), (Self, io::Error)> {
        match self.take() {
            Ok(taken) => Ok(taken),
            Err(error) => Err((self, error)),
        }
    }

    fn take(&self) -> io::Result<(Vec<u8>, Reservation)> {
        let Slot { content, store, len } = &*self.slot;
        let mut charge = store.budget.reservation();
        let mut content = loop {
            let content = lock(content);
            if !matches!(*content, Content::File(_)) || charge.size() == *len {
                break content;
            }
            drop(content);
            // With no lock held: others may be asked for memory, this store among them.
            let charged = charge.try_resize(*len);
            charged.map_err(|refused| io::Error::new(io::ErrorKind::OutOfMemory, refused))?;
        };
        let taken = match &mut *content {
            Content::Memory(bytes, held) => {
                store.in_memory.fetch_sub(held.size(), Ordering::Relaxed);
                (mem::take(bytes), mem::replace(held, store.budget.reservation()))
            }
            Content::File(at) => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(*len)?;
                bytes.resize(*len, 0);
                read_at(&store.file, &mut bytes, *at)?;
                lock(&store.space).give_back(*at, *len as u64);
                (bytes, charge)
            }
            Content::Nowhere => unreachable!("bytes are taken out once: the handle goes with them"),
        };
        *content = Content::Nowhere;
        Ok(taken)
    }
}

/// Reads the bytes of a [`Spilled`]; from [`Spilled::reader`].
///
/// A part of them is read after a [`seek`](Seek::seek), which may go beyond the end as in a file.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::SpillStore};
/// use std::io::{Read, Seek, SeekFrom};
///
/// let store = SpillStore::new(&Budget::root("process").build()?, "index")?;
/// let index = store.put((0..200).collect())?;
/// let mut reader = index.reader();
/// reader.seek(SeekFrom::Start(100))?;
/// let mut part = [0; 2];
/// reader.read_exact(&mut part)?;
/// assert_eq!(part, [100, 101]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SpillReader<'a> {
    slot: &'a Slot,
    at: u64,
}

impl Read for SpillReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.slot.len);
        let len = into.len().min(self.slot.len - at);
        let into = &mut into[..len];
        match &*lock(&self.slot.content) {
            Content::Memory(bytes, _) => into.copy_from_slice(&bytes[at..at + len]),
            Content::File(begin) => read_at(&self.slot.store.file, into, begin + at as u64)?,
            Content::Nowhere => unreachable!("a reader borrows the handle"),
        }
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for SpillReader<'_> {
    /// Fails where the position would be negative, or beyond 64 bits.
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

impl Slot {
    /// Moves the bytes to the file; returns how many were given back.
    fn spill(&self, most: usize) -> io::Result<usize> {
        let mut content = match self.content.try_lock() {
            Ok(content) => content,
            Err(TryLockError::Poisoned(content)) => content.into_inner(),
            // In use, perhaps by this very thread.
            Err(TryLockError::WouldBlock) => return Ok(0),
        };
        let Content::Memory(bytes, charge) = &*content else { return Ok(0) };
        let freed = charge.size();
        if freed > most {
            return Ok(0);
        }
        let len = bytes.len() as u64;
        let at = lock(&self.store.space).take(len);
        if let Err(error) = write_at(&self.store.file, bytes, at) {
            lock(&self.store.space).give_back(at, len);
            return Err(error);
        }
        let gone = mem::replace(&mut *content, Content::File(at));
        drop(content);
        drop(gone);
        self.store.in_memory.fetch_sub(freed, Ordering::Relaxed);
        Ok(freed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        match &*lock(&self.content) {
            Content::Memory(_, charge) => {
                self.store.in_memory.fetch_sub(charge.size(), Ordering::Relaxed);
            }
            Content::File(at) => lock(&self.store.space).give_back(*at, self.len as u64),
            Content::Nowhere => {}
        }
    }
}

impl Space {
    /// So many bytes of the file: the first that are free, else at its end.
    fn take(&mut self, len: u64) -> u64 {
        let Some((&at, &free)) = self.free.iter().find(|(_, free)| **free >= len) else {
            let at = self.end;
            self.end += len;
            return at;
        };
        self.free.remove(&at);
        if free > len {
            self.free.insert(at + len, free - len);
        }
        at
    }

    fn give_back(&mut self, mut at: u64, mut len: u64) {
        if let Some(behind) = self.free.remove(&(at + len)) {
            len += behind;
        }
        if let Some((&before, &free)) = self.free.range(..at).next_back()
            && before + free == at
        {
            self.free.remove(&before);
            at = before;
            len += free;
        }
        if at + len == self.end {
            self.end = at;
        } else if len > 0 {
            self.free.insert(at, len);
        }
    }
}

impl MemoryUsage for Inner {
    fn used_bytes(&self) -> usize {
        self.in_memory.load(Ordering::Relaxed)
    }

    fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Inner {
    fn name(&self) -> &str {
        &self.name
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Spill
    }

    fn reclaimable(&self) -> Reclaimable {
        let bytes = self.used_bytes();
        // A microsecond for a kilobyte: what a disk takes.
        Reclaimable::new(bytes, bytes as u64 / 1024)
    }

    fn is_inline_safe(&self) -> bool {
        false
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        let mut freed = 0;
        let looks = self.queue.try_lock().map_or(0, |queue| queue.len());
        for _ in 0..looks {
            if freed >= ticket.wanted() {
                break;
            }
            let next = self.queue.try_lock().ok().and_then(|mut queue| queue.pop_front());
            let Some(slot) = next.and_then(|slot| slot.upgrade()) else { continue };
            match slot.spill(ticket.most() - freed) {
                Ok(bytes) => freed += bytes,
                Err(_) => {
                    lock(&self.queue).push_front(Arc::downgrade(&slot));
                    break;
                }
            }
            let stays = !matches!(*lock(&slot.content), Content::File(_));
            if stays {
                lock(&self.queue).push_back(Arc::downgrade(&slot));
            }
        }
        Progress::freed(freed)
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

impl fmt::Debug for SpillStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillStore")
            .field("name", &self.inner.name)
            .field("in_memory", &self.inner.used_bytes())
            .field("spilled", &self.spilled_bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Spilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spilled")
            .field("len", &self.len())
            .field("is_in_memory", &self.is_in_memory())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("len", &self.len).finish_non_exhaustive()
    }
}
