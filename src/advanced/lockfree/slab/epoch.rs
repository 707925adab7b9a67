//! A slab whose readers write nothing.

use super::{Handle, Slab};
use crate::{
    advanced::{
        budget::Budget,
        lockfree::{
            Full,
            garbage::{Count, ROUNDS},
            tagged::{Head, NONE},
        },
    },
    utils::{
        sync::{AtomicUsize, Ordering},
        unwind::contained,
    },
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{cell::Cell, fmt};
use crossbeam_utils::CachePadded;
use std::sync::{Mutex, PoisonError};

/// A [`Slab`] for values that are read much more often than they are removed: a [reader](Self::reader) writes nothing that
/// other threads read, so threads that read one value do not slow each other down.
///
/// The price: a removed value is dropped later, on any thread, once no reader can be using it.
///
/// # Algorithm
///
/// The slots are those of a [`Slab`]. Each value is pinned once, by the slab itself. Readers do not pin it.
///
/// ```text
///   insert ──► in the slab ── remove ──► on the list of removed values ── 64 of them ──► crossbeam-epoch
///              pinned by the slab        no handle finds it                              no reader is left
///                                                                                        └──► dropped, slot vacant
/// ```
///
/// A reader is *pinned* in an epoch as long as it exists. Values that were removed are handed to `crossbeam-epoch`, which
/// drops them when each reader that existed at that time is gone (K. Fraser, *Practical lock-freedom*, 2004).
///
/// # Progress
///
/// [`SlabReader::get`] is wait-free: it loads the word of the slot. The other operations progress as those of [`Slab`] do. No operation waits for a
/// reader. But while a reader exists, no value that is removed meanwhile is dropped, in any `EpochSlab`. So drop
/// readers soon. [`waiting`](Self::waiting) counts these values.
///
/// # Limits
///
/// Those of [`Slab`]. Some 64 removed values may wait until another one is removed, or [`collect`](Self::collect) is called;
/// an insertion that finds no room calls it. All values that were not handed over are dropped with the slab. If a
/// value's drop panics, the panic hook runs, and the panic is caught, as the drop may run on any thread. The collector
/// allocates 2 KiB of its own for each 64 removed values until they are dropped, which no budget is charged for.
///
/// # When not to use it
///
/// If a value's drop must run at once, or on the thread that removes it, or if guards are kept for long: see [`Slab`].
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::EpochSlab;
/// use std::thread;
///
/// let routes = EpochSlab::new();
/// let handle = routes.insert(String::from("10.0.0.1"));
/// thread::scope(|scope| {
///     for _ in 0..2 {
///         scope.spawn(|| {
///             let reader = routes.reader();
///             // The other thread may have removed it.
///             if let Some(route) = reader.get(handle) {
///                 assert_eq!(route, "10.0.0.1");
///             }
///             routes.remove(handle);
///         });
///     }
/// });
/// assert!(routes.reader().get(handle).is_none());
/// ```
pub struct EpochSlab<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    removed: CachePadded<List>,
}

/// What the collector uses, also when the slab is gone.
struct Shared<T> {
    /// # Invariants
    ///
    /// Each value is pinned once, for this. The pin ends when the value was removed and no reader can be using it.
    slab: Slab<T>,
    /// The values that were removed and not dropped.
    waiting: AtomicUsize,
}

/// The slots of removed values that the collector does not have yet.
struct List {
    head: Head,
    count: Count,
}

impl<T: Send + Sync + 'static> EpochSlab<T> {
    /// The bytes of one slot: a value, and 16 bytes.
    pub const SLOT_BYTES: usize = Slab::<T>::SLOT_BYTES;

    /// Creates an empty slab. It grows as a [`Slab`] does.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Slab::new())
    }

    /// Like [`new`](Self::new), and charges `budget` for each block of slots, from when it is allocated until the slab is
    /// dropped and the collector has returned all values.
    #[must_use]
    pub fn new_in(budget: &Budget) -> Self {
        Self::over(Slab::new_in(budget))
    }

    fn over(slab: Slab<T>) -> Self {
        let list = List { head: Head::new(), count: Count::new() };
        Self {
            shared: Arc::new(Shared { slab, waiting: AtomicUsize::new(0) }),
            removed: CachePadded::new(list),
        }
    }

    /// Inserts a value, and returns its handle.
    ///
    /// # Panics
    ///
    /// If there is no room; see [`try_insert`](Self::try_insert).
    #[inline]
    pub fn insert(&self, value: T) -> Handle {
        self.try_insert(value).expect("room in the slab")
    }

    /// Inserts a value, and returns its handle.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, as for [`Slab::try_insert`]. Before it refuses, it calls [`collect`](Self::collect) up to
    /// 32 times.
    ///
    /// # Complexity
    ///
    /// As [`Slab::try_insert`], and as `collect` if there is no room.
    #[inline]
    pub fn try_insert(&self, value: T) -> Result<Handle, Full<T>> {
        self.shared.slab.insert_pinned(value).or_else(|Full(value)| self.insert_slowly(value))
    }

    #[cold]
    fn insert_slowly(&self, mut value: T) -> Result<Handle, Full<T>> {
        for _ in 0..ROUNDS {
            self.collect();
            match self.shared.slab.insert_pinned(value) {
                Ok(handle) => return Ok(handle),
                Err(Full(back)) => value = back,
            }
        }
        Err(Full(value))
    }

    /// Returns a reader, by which values can be found and used.
    ///
    /// # Complexity
    ///
    /// Constant: a store to a word of the thread, and a fence. Once in 128 times it also drops removed values that no reader
    /// uses, of any slab.
    #[must_use]
    #[inline]
    pub fn reader(&self) -> SlabReader<'_, T> {
        SlabReader { slab: self, _pinned: crossbeam_epoch::pin() }
    }

    /// Returns whether the value of a handle has not been removed.
    #[must_use]
    #[inline]
    pub fn contains(&self, handle: Handle) -> bool {
        self.shared.slab.contains(handle)
    }

    /// Removes a value: from here on no handle finds it. Returns `false` if it was removed before.
    ///
    /// # Complexity
    ///
    /// Constant: two compare-and-swaps and an addition. Once in 64 times it hands removed values over, and drops some that
    /// no reader uses, of any slab.
    #[inline]
    pub fn remove(&self, handle: Handle) -> bool {
        // The value stays in its slot: the slab has it pinned.
        let Some((number, link)) = self.shared.slab.mark_removed(handle) else { return false };
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let List { head, count } = &*self.removed;
        head.push(number, link);
        if count.add_one() {
            self.hand_over(&crossbeam_epoch::pin());
        }
        true
    }

    /// Hands the removed values to the collector.
    #[cold]
    fn hand_over(&self, guard: &crossbeam_epoch::Guard) {
        self.removed.count.clear();
        let first = self.removed.head.take();
        // In a model `crossbeam-epoch` would return them in a later execution.
        if first != NONE && !cfg!(loom) {
            let shared = Arc::clone(&self.shared);
            // No reader that begins from here on finds them: they were marked. Those that exist now delay this.
            guard.defer(move || drop_in_turn(Box::new(move || shared.drop_chain(first))));
            // Out of this thread's own garbage, which other threads do not reach.
            guard.flush();
        }
    }

    /// Hands removed values to the collector, and drops values that were handed over earlier, also of other slabs, if no
    /// reader can be using them.
    ///
    /// Every 64th removal does the same. Call this repeatedly to drop values while none is removed: what one call hands over,
    /// a later one drops, once every reader that existed then is gone.
    ///
    /// # Complexity
    ///
    /// Constant, and the drops of the values of at most eight batches.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::EpochSlab;
    ///
    /// let slab = EpochSlab::new();
    /// let handle = slab.insert(7);
    /// let reader = slab.reader();
    /// slab.remove(handle);
    /// slab.collect();
    /// assert_eq!(slab.waiting(), 1, "the reader might be using it");
    /// drop(reader);
    /// while slab.waiting() > 0 {
    ///     slab.collect();
    /// }
    /// ```
    pub fn collect(&self) {
        let guard = crossbeam_epoch::pin();
        self.hand_over(&guard);
        guard.flush();
    }

    /// Returns the number of values that were removed and are not dropped yet. Their slots are not vacant yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        // Acquire: pairs with the release of `drop_chain`, so that the drops are seen.
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Returns the number of values that were not removed. It is exact while no other thread inserts or removes.
    ///
    /// # Complexity
    ///
    /// As [`Slab::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.slab.len()
    }

    /// Returns whether there are no values; see [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Drops a chain of values.
type Chain = Box<dyn FnOnce() + Send>;

/// The chains that the collector returned to a thread that was dropping another one.
static POSTPONED: Mutex<Vec<Chain>> = Mutex::new(Vec::new());

/// Runs `chain`, and then the chains that were postponed. If this thread is already running a chain, postpones this one
/// instead. The drop of a value may remove other values, and so call the collector again: each call would nest inside the
/// one before.
fn drop_in_turn(chain: Chain) {
    std::thread_local! {
        static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
    }
    if IS_DROPPING.replace(true) {
        POSTPONED.lock().unwrap_or_else(PoisonError::into_inner).push(chain);
        return;
    }
    let mut next = Some(chain);
    while let Some(chain) = next {
        // The end of the shared part runs foreign code, too.
        contained(chain);
        next = POSTPONED.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }
    IS_DROPPING.set(false);
}

impl<T> Shared<T> {
    /// Drops the removed values of a chain of slots, which is the caller's alone, from `first` on. No reader uses them.
    fn drop_chain(&self, first: u32) {
        let mut next = first;
        while next != NONE {
            let number = next;
            // SAFETY: the number of a slot of the slab, from a list that it was taken out of with acquire.
            next = unsafe { self.slab.link(number) }.load(Ordering::Relaxed);
            // SAFETY: 1. As above. 2. `insert_pinned` pinned it, for the slab (the invariants). Nobody uses it on account of
            // this pin.
            unsafe { self.slab.unpin_removed(number) };
            // Afterwards: its drop may remove others.
            self.waiting.fetch_sub(1, Ordering::Release);
        }
    }
}

impl<T: Send + Sync + 'static> Drop for EpochSlab<T> {
    /// Drops the values that were not handed over. No reader exists, as readers borrow the slab.
    fn drop(&mut self) {
        self.shared.drop_chain(self.removed.head.take());
        // Now: the collector may keep the shared part for long.
        let slab = &self.shared.slab;
        for (number, _) in slab.handles().filter_map(|handle| slab.mark_removed(handle)) {
            // SAFETY: as in `drop_chain`.
            unsafe { slab.unpin_removed(number) };
        }
    }
}

impl<T: Send + Sync + 'static> Default for EpochSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for EpochSlab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochSlab")
            .field("len", &self.len())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// Finds values of an [`EpochSlab`] by their handles; from [`EpochSlab::reader`]. No value that it finds is dropped
/// while the reader exists. A reader is not [`Send`].
pub struct SlabReader<'s, T: Send + Sync + 'static> {
    slab: &'s EpochSlab<T>,
    _pinned: crossbeam_epoch::Guard,
}

impl<T: Send + Sync + 'static> SlabReader<'_, T> {
    /// Returns a value. `None` if it was removed.
    ///
    /// # Complexity
    ///
    /// Constant: two loads.
    #[must_use]
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        // SAFETY: a value that is found was not marked when this thread was pinned already, so it is unpinned after this
        // reader is gone: by `drop_chain` in the collector, or by the drop of the slab, which this borrows.
        unsafe { self.slab.shared.slab.look(handle) }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for SlabReader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabReader").finish_non_exhaustive()
    }
}
