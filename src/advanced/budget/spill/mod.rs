//! Byte buffers that are spilled to a file when the budget needs their memory.
//!
//! ```text
//!  SpillStore ──► queue of buffers in memory, the oldest first
//!       │              │ reclaim: write, release the charge
//!       │              ▼
//!       └───────► SpillFile ──► Space: which bytes of the file are in use
//!                      ▲
//!  Spilled ──► Slot ───┘ read back, free when dropped
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `space.rs` | the arithmetic of the holes in the file and of its limit |
//! | `file.rs` | the file, its space and the I/O |
//! | `options.rs` | the checks before a store is made |
//! | `reader.rs` | the position of a reader |

mod file;
mod options;
mod reader;
mod space;
#[cfg(test)]
mod tests;

pub use self::options::SpillOptions;

use self::reader::SpillReader;

use self::file::{SpillFile, WriteError};
use super::{Budget, Reservation};
use crate::{
    core::{
        MemoryError, MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket,
        Reclaimable, Refused, error::ReclaimFailure,
    },
    utils::{
        pruned_list::PrunedList,
        sync::{AtomicUsize, Mutex, Ordering, lock},
    },
};
use core::{fmt, mem};
use std::{
    boxed::Box,
    io,
    sync::{Arc, TryLockError, Weak},
    vec::Vec,
};

/// The number of failed writes after which one [`reclaim`](MemoryManager::reclaim) ends, because each may have
/// written half of its buffer. The next reclaim begins with other buffers.
const FAILED_WRITES_MAX: usize = 8;

/// Keeps byte buffers in memory, and spills them to a temporary file when the budget needs the memory.
///
/// Use it for data that is read once or rarely, and that may be larger than the memory, such as the sorted runs of a
/// merge. The store is a manager of class [`Spill`](ReclaimClass::Spill), registered with its budget. A
/// write to a disk is slow, so buffers are spilled only for requests that [wait](Budget::reserve), and by
/// [`Budget::reclaim`] and [`Budget::set_limit`]. The oldest buffers are spilled first. If a buffer cannot be spilled,
/// the store tries it again after all others.
///
/// The file has no name. It is deleted when the last handle to the store and the last buffer are dropped. Space
/// of dropped buffers is used again, and the file is truncated when nothing is left at its end.
///
/// # When the disk fails
///
/// A buffer that cannot be written stays in memory, and other buffers are spilled instead. The store keeps the
/// [last failure](Self::last_failure). If a request is then refused, this failure is the source of its error.
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
/// let reserved = budget.reserve_blocking(500)?; // does not fit beside the run
/// assert!(!run.is_in_memory());
/// let mut bytes = Vec::new();
/// run.reader().read_to_end(&mut bytes)?;
/// assert_eq!(bytes, [7; 800]);
/// # drop(reserved);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SpillStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: Box<str>,
    budget: Budget,
    file: SpillFile,
    /// The buffers that can be spilled, the oldest first. Some may already be in the file or dropped.
    queue: Mutex<PrunedList<Weak<Slot>>>,
    in_memory: AtomicUsize,
    peak: AtomicUsize,
    failures: Mutex<Failures>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    last: Option<ReclaimFailure>,
    count: u64,
    /// Whether the last reclaim that spilled or failed had a failure.
    is_current: bool,
}

struct Slot {
    len: usize,
    content: Mutex<Content>,
    store: Arc<Inner>,
}

/// The target of a buffer's [`Arc`]: its two counts, and the buffer.
type Shared = ([usize; 2], Slot);

enum Content {
    Memory(Vec<u8>, Reservation),
    /// The position of the bytes in the file.
    File(u64),
    /// The bytes were taken out.
    Nowhere,
}

/// The result of spilling one buffer.
enum Outcome {
    /// The buffer's memory is free; this number of bytes was charged for it.
    Freed(usize),
    /// The buffer was not in memory.
    Gone,
    /// The buffer is in use, or is larger than the request allows.
    Passed,
    /// The buffer would exceed the limit of the file.
    OverLimit,
    Failed(io::Error),
}

impl SpillStore {
    /// The bytes of memory that the store needs for each buffer, in addition to the buffer's content. They are needed
    /// for spilled buffers too, and are not charged.
    pub const OVERHEAD: usize = size_of::<Shared>() + size_of::<Weak<Slot>>();

    /// Makes a store that charges `budget`, with a file of any length in [`std::env::temp_dir`].
    ///
    /// # Errors
    ///
    /// The same as for [`SpillOptions::build`].
    pub fn new(budget: &Budget, name: &str) -> Result<Self, MemoryError> {
        Self::options(budget, name).build()
    }

    /// Returns options for a store that charges `budget` and is called `name` in reports.
    pub fn options(budget: &Budget, name: &str) -> SpillOptions {
        SpillOptions::new(budget, name)
    }

    /// Stores `bytes` in memory, until the budget needs the memory. The capacity of the vector is charged.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the budget has no room for them.
    pub fn put(&self, bytes: Vec<u8>) -> Result<Spilled, Refused> {
        let charge = self.inner.budget.try_reserve(bytes.capacity())?;
        Ok(self.put_charged(bytes, charge))
    }

    /// Stores `bytes` that are already charged. `charge` is released when they are spilled.
    pub fn put_charged(&self, bytes: Vec<u8>, charge: Reservation) -> Spilled {
        let inner = &self.inner;
        let charged = charge.size();
        let before = inner.in_memory.fetch_add(charged, Ordering::Relaxed);
        inner.peak.fetch_max(before.wrapping_add(charged), Ordering::Relaxed);
        let (len, store) = (bytes.len(), Arc::clone(inner));
        let content = Mutex::new(Content::Memory(bytes, charge));
        let slot = Arc::new(Slot { len, content, store });
        // A buffer without a charge releases nothing by a spill.
        if charged > 0 {
            lock(&inner.queue).add(Arc::downgrade(&slot), |slot| slot.strong_count() > 0);
        }
        Spilled { slot }
    }

    /// Returns the number of buffered bytes that are in the file.
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.inner.file.used()
    }

    /// Returns the length of the file in bytes: [`spilled_bytes`](Self::spilled_bytes) and the holes between
    /// them. It is at most [`max_disk_bytes`](SpillOptions::max_disk_bytes).
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.inner.file.len()
    }

    /// Returns whether the file is on a file system that is memory itself, such as `tmpfs`: then a spill frees no
    /// memory of the machine. Returns `None` if that is not known; only Linux reports it.
    #[must_use]
    pub fn is_memory_backed(&self) -> Option<bool> {
        self.inner.file.is_memory_backed()
    }

    /// Returns the reason of the last failure to spill a buffer; `None` if there was none.
    ///
    /// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) without an error number means that the file would exceed its
    /// [limit](SpillOptions::max_disk_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SpillStore};
    ///
    /// let budget = Budget::root("process").build()?;
    /// let store = SpillStore::options(&budget, "runs").max_disk_bytes(1000).build()?;
    /// let runs = [store.put(vec![1; 2000])?, store.put(vec![2; 600])?];
    ///
    /// assert_eq!(budget.reclaim(usize::MAX), 600, "the other is too large for the disk");
    /// assert!(runs[0].is_in_memory());
    /// let failure = store.last_failure().expect("one could not be spilled");
    /// assert_eq!(failure.kind(), std::io::ErrorKind::QuotaExceeded);
    /// assert_eq!(store.failures(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn last_failure(&self) -> Option<ReclaimFailure> {
        lock(&self.inner.failures).last
    }

    /// Returns the number of reclaims in which the store could not spill a buffer.
    #[must_use]
    pub fn failures(&self) -> u64 {
        lock(&self.inner.failures).count
    }

    /// Checks the store against itself, for tests. No other thread may use it meanwhile.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    #[doc(hidden)]
    pub fn validate(&self) {
        self.inner.validate();
    }
}

/// A buffer of a [`SpillStore`]. Dropping it frees its memory, or its part of the file.
pub struct Spilled {
    slot: Arc<Slot>,
}

impl Spilled {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot.len
    }

    /// Returns whether the length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the bytes are in memory now.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(*lock(&self.slot.content), Content::Memory(..))
    }

    /// Returns a reader at the beginning of the bytes, in memory or not. It charges no bytes. To read in small steps,
    /// put a [`BufReader`](io::BufReader) around it, and charge the bytes of that buffer yourself.
    ///
    /// [`seek`](io::Seek::seek) moves the reader to any position, also beyond the end of the bytes, like in a file.
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
    #[must_use]
    pub fn reader(&self) -> impl io::Read + io::Seek + fmt::Debug {
        SpillReader::new(&self.slot)
    }

    /// Removes the bytes from the store, and returns them with their charge. Bytes in the file are charged first,
    /// and then read.
    ///
    /// # Errors
    ///
    /// Returns the unchanged buffer with an error: [`OutOfMemory`](io::ErrorKind::OutOfMemory) if the budget has
    /// no room, with the [`Refused`] as its source; otherwise the error of the file.
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
            // No lock is held here: managers may be asked for memory, this store among them.
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
                store.file.read(&mut bytes, *at)?;
                store.file.free(*at, *len as u64);
                (bytes, charge)
            }
            Content::Nowhere => unreachable!("bytes are taken out once: the handle goes with them"),
        };
        *content = Content::Nowhere;
        Ok(taken)
    }
}

impl Slot {
    /// Moves the bytes to the file and releases their charge. Does nothing if the charge is more than `most`
    /// bytes, or the buffer has at least `too_long` bytes.
    fn spill(&self, most: usize, too_long: usize) -> Outcome {
        let mut content = match self.content.try_lock() {
            Ok(content) => content,
            Err(TryLockError::Poisoned(content)) => content.into_inner(),
            // The buffer is in use, perhaps by this thread.
            Err(TryLockError::WouldBlock) => return Outcome::Passed,
        };
        let Content::Memory(bytes, charge) = &*content else { return Outcome::Gone };
        let freed = charge.size();
        if freed > most || bytes.len() >= too_long {
            return Outcome::Passed;
        }
        let at = match self.store.file.write(bytes) {
            Ok(at) => at,
            Err(WriteError::OverLimit) => return Outcome::OverLimit,
            Err(WriteError::Io(error)) => return Outcome::Failed(error),
        };
        let spilled = mem::replace(&mut *content, Content::File(at));
        drop(content);
        // Before the charge is released: a waiter may be granted the bytes, and read this count.
        self.store.in_memory.fetch_sub(freed, Ordering::Relaxed);
        drop(spilled);
        Outcome::Freed(freed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        match &*lock(&self.content) {
            Content::Memory(_, charge) => {
                self.store.in_memory.fetch_sub(charge.size(), Ordering::Relaxed);
            }
            Content::File(at) => self.store.file.free(*at, self.len as u64),
            Content::Nowhere => {}
        }
    }
}

impl Inner {
    fn register(name: Box<str>, budget: Budget, file: SpillFile) -> Arc<Self> {
        let inner = Arc::new(Self {
            name,
            budget,
            file,
            queue: Mutex::default(),
            in_memory: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        inner.budget.register(&inner);
        inner
    }

    /// Removes and returns the oldest buffer of the queue. Returns `None` if it was dropped or the queue is in
    /// use.
    fn pop_oldest(&self) -> Option<Arc<Slot>> {
        self.queue.try_lock().ok()?.pop_front()?.upgrade()
    }

    /// Notes that a buffer could not be spilled. Each reclaim is counted once. Must be called before the reclaim
    /// ends: a waiter may be granted the memory of other buffers earlier, and read the count.
    fn note_failure(&self, failure: ReclaimFailure, is_first: bool) {
        let mut failures = lock(&self.failures);
        let count = failures.count + u64::from(is_first);
        *failures = Failures { last: Some(failure), count, is_current: true };
    }

    fn validate(&self) {
        self.file.validate();
        let queue = lock(&self.queue);
        let mut seen = Vec::new();
        let mut charged = 0;
        for slot in queue.iter().filter_map(Weak::upgrade) {
            if let Content::Memory(bytes, charge) = &*lock(&slot.content) {
                assert_eq!(bytes.len(), slot.len, "a buffer keeps its length");
                assert!(!seen.contains(&Arc::as_ptr(&slot)), "a buffer is in the queue once");
                charged += charge.size();
                seen.push(Arc::as_ptr(&slot));
            }
        }
        assert_eq!(charged, self.used_bytes(), "every buffer in memory can be spilled");
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
        if self.file.is_full() {
            return Reclaimable::NOTHING;
        }
        let bytes = self.used_bytes();
        // One microsecond per kilobyte, about the time that a disk takes.
        Reclaimable::new(bytes, bytes as u64 / 1024)
    }

    /// All buffers belong to callers.
    fn unheld_bytes(&self) -> usize {
        0
    }

    fn is_inline_safe(&self) -> bool {
        false
    }

    /// Spills buffers, the oldest first. A buffer that fails, or that cannot be spilled now, goes
    /// to the end of the queue.
    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        let (mut freed, mut failed) = (0, 0);
        let mut failure: Option<ReclaimFailure> = None;
        let mut too_long = usize::MAX;
        let looks = self.queue.try_lock().map_or(0, |queue| queue.len());
        for _ in 0..looks {
            if freed >= ticket.wanted() || failed == FAILED_WRITES_MAX {
                break;
            }
            let Some(slot) = self.pop_oldest() else { continue };
            match slot.spill(ticket.most() - freed, too_long) {
                Outcome::Freed(bytes) => {
                    freed += bytes;
                    continue;
                }
                Outcome::Gone => continue,
                Outcome::Passed => {}
                Outcome::OverLimit if failure.is_some() => {}
                Outcome::OverLimit => {
                    let over_limit = ReclaimFailure::from(io::ErrorKind::QuotaExceeded);
                    self.note_failure(over_limit, true);
                    failure = Some(over_limit);
                }
                Outcome::Failed(error) => {
                    let error = ReclaimFailure::from(&error);
                    self.note_failure(error, failure.is_none());
                    failed += 1;
                    failure = Some(error);
                    // If there is no space for these bytes, there is none for more.
                    if is_out_of_space(error.kind()) {
                        too_long = slot.len;
                    }
                }
            }
            lock(&self.queue).push_back(Arc::downgrade(&slot));
        }
        if freed > 0 && failure.is_none() {
            lock(&self.failures).is_current = false;
        }
        Progress { failure, ..Progress::freed(freed) }
    }

    fn failure(&self) -> Option<ReclaimFailure> {
        let failures = *lock(&self.failures);
        failures.last.filter(|_| failures.is_current)
    }
}

/// Returns whether a write failed because of missing space, so that a shorter one may succeed.
fn is_out_of_space(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

impl fmt::Debug for SpillStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillStore")
            .field("name", &self.inner.name)
            .field("in_memory", &self.inner.used_bytes())
            .field("spilled", &self.spilled_bytes())
            .field("disk_bytes", &self.disk_bytes())
            .field("is_memory_backed", &self.is_memory_backed())
            .field("last_failure", &self.last_failure())
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
