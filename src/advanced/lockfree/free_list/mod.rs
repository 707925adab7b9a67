//! A list of free indices, of which each thread keeps some.

mod caches;
mod indices;
mod links;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;

use self::{
    caches::{CACHE_BYTES, CACHES, Caches, ROOM},
    indices::Indices,
    links::{FREE, Item, index_of},
};
use super::memory::Plan;
use crate::{
    advanced::budget::{Budget, Reservation},
    allocator::magazines::{Chain, Depot},
    core::AllocationError,
    utils::{
        sync::{AtomicU32, Mutex, lock},
        thread_number::thread_number,
    },
};
use alloc::vec::Vec;
use core::{fmt, mem, ops::Range};
use crossbeam_utils::CachePadded;

const COMPONENT: &str = "free list";

/// The most indices that move between a thread and the depot at once: so many calls share one lock.
const MAGAZINE: usize = ROOM / 2;

/// The least capacity with which threads keep indices. In a smaller list one thread would soon keep all of them.
const MIN_CACHED: usize = if cfg!(any(loom, miri)) { 2 } else { 16 };

/// The number of calls with the lock after which the gate may open again. They share the cost of closing it.
const PATIENCE: usize = if cfg!(any(loom, miri)) { 1 } else { 256 };

/// The gate opens again only if at least one in so many indices is free: with fewer it would soon be closed again. No more
/// move at once, for the same reason.
const SCARCE: usize = 8;

/// The free indices of an array that many threads share: [`take`](Self::take) an index, use that slot of your array,
/// and [`give`](Self::give) the index back on any thread.
///
/// Use it for buffers, connections or slots of one size that you own as an array. Writes to a slot
/// before `give` are visible to the thread that takes the index next. An index is *out* from `take` until `give`.
///
/// # Algorithm
///
/// ```text
///   thread 1          thread 2
///   ┌────────────┐    ┌────────────┐
///   │ 7 3 9 …    │    │ 1 4        │      at most 2 m indices, each thread's own, behind a gate
///   └──────┬─────┘    └────────────┘
///          │ m at a time
///   ┌──────▼───────────────────────────────────────────┐
///   │ full chains ─► ─►   loose ─► ─►   never used: n… │    the depot, behind a lock
///   └──────────────────────────────────────────────────┘
///
///   link of each index, 32 bits:   │ free (1) │ next index of its list + 1, or 0 (31) │
/// ```
///
/// - Each thread keeps at most 2 *m* indices, and takes the index first that it gave last. It moves *m* indices at a
///   time between its own and a common depot, after J. Bonwick and J. Adams, *Magazines and Vmem*, 2001. *m* is an
///   eighth of the capacity, at least 1 and at most 32. If a thread gives more indices than it takes, the surplus goes
///   to the depot, where other threads take it. [`SharedBlockPool`](crate::allocator::SharedBlockPool) has the same
///   depot for blocks of memory.
/// - A thread that finds the depot empty closes the gate: no thread can then use its own indices without the lock. It moves
///   all these indices to the depot. The gate is the protocol of T. Dekker (in E. W. Dijkstra, *Cooperating sequential processes*, 1965). On Linux
///   one call of `membarrier` executes the barriers of all threads, so a thread that uses its own indices needs none.
///   Elsewhere each operation has a sequentially consistent fence.
/// - While indices are scarce the gate stays closed, and each call takes the lock. It opens after 256 calls, once an
///   eighth of the indices is free.
///
/// So no free index is out of reach: [`take`](Self::take) returns `None` only if at one instant of the call all indices
/// were out. There is one exception: if a filter of system calls forbids `membarrier` after the list was created, up to
/// 64 free indices of each other thread are out of reach.
///
/// # Progress
///
/// Wait-free while the thread has indices of its own: a few loads and stores, without an atomic read-modify-write.
/// Otherwise *blocking*: a lock is taken once for 32 indices, and a thread that closes the gate waits for threads that
/// are in the middle of a call.
///
/// # Limits
///
/// At most [`MAX_CAPACITY`](Self::MAX_CAPACITY) indices, 2³¹ − 2. The list has 4 bytes per index, and 24 KiB for the
/// indices of the threads if it has 16 indices or more. At most 64 running threads keep indices. A further thread, and a thread that
/// is about to end, takes the lock in each call.
///
/// # When not to use it
///
/// If an index must be passed on in order, or a stopped thread must not block others: see
/// [`IndexQueue`](super::IndexQueue). If nearly all indices are out all the time, each call takes the lock. For values
/// that are found by checked handles: see [`Slab`](super::Slab).
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::FreeList;
/// use std::{sync::Mutex, thread};
///
/// let buffers: Vec<Mutex<Vec<u8>>> = (0..100).map(|_| Mutex::default()).collect();
/// let free = FreeList::try_with_capacity(buffers.len())?;
/// thread::scope(|scope| {
///     for name in ["first", "second"] {
///         let (buffers, free) = (&buffers, &free);
///         scope.spawn(move || {
///             let index = free.take().expect("100 buffers for two threads");
///             buffers[index].lock().unwrap().extend(name.as_bytes());
///             assert!(free.give(index));
///         });
///     }
/// });
/// assert_eq!(free.available(), 100);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct FreeList {
    caches: Caches,
    indices: Indices,
    /// The number of indices in a full magazine.
    magazine: usize,
    shared: CachePadded<Mutex<Shared>>,
    _charge: Option<Reservation>,
}

/// The state that the lock protects.
struct Shared {
    depot: Depot<Indices>,
    /// Indices that were never taken.
    unused: Range<usize>,
    /// Whether the gate is closed, or no thread keeps indices.
    is_closed: bool,
    /// The calls that take the lock before the gate may open.
    patience: usize,
}

impl FreeList {
    /// The largest capacity: 2³¹ − 2 indices.
    pub const MAX_CAPACITY: usize = (FREE - 2) as usize;

    /// Creates a list in which the indices `0..capacity` are free. There may be none. Linear in the capacity.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if `capacity` is above [`MAX_CAPACITY`](Self::MAX_CAPACITY), or if the heap is exhausted.
    pub fn try_with_capacity(capacity: usize) -> Result<Self, AllocationError> {
        Self::charged_to(capacity, None)
    }

    /// Like [`try_with_capacity`](Self::try_with_capacity), and charges `budget` for the memory until the list is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_with_capacity`](Self::try_with_capacity), and if the budget refuses. Nothing stays allocated or charged.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::FreeList};
    ///
    /// let budget = Budget::root("process").limit(1 << 20).build()?;
    /// let free = FreeList::try_with_capacity_in(1000, &budget)?;
    /// assert!(budget.usage().used > 4 * free.capacity());
    /// assert!(FreeList::try_with_capacity_in(1_000_000, &budget).is_err());
    /// drop(free);
    /// assert_eq!(budget.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity_in(capacity: usize, budget: &Budget) -> Result<Self, AllocationError> {
        Self::charged_to(capacity, Some(budget))
    }

    fn charged_to(capacity: usize, budget: Option<&Budget>) -> Result<Self, AllocationError> {
        if capacity > Self::MAX_CAPACITY {
            return Err(AllocationError::capacity_overflow(COMPONENT, capacity, 1));
        }
        let magazine = (capacity / SCARCE).clamp(1, MAGAZINE);
        let (chains, caches) =
            (capacity.div_ceil(magazine), if capacity < MIN_CACHED { 0 } else { CACHES });
        let beside = chains * size_of::<Item>() + caches * CACHE_BYTES;
        let plan = Plan { component: COMPONENT, beside, budget };
        let (links, charge) = plan.slots(capacity, |_| AtomicU32::new(FREE))?;
        let (fulls, _): (Vec<Item>, _) = Plan { beside: 0, budget: None, ..plan }.room(chains)?;
        Ok(Self {
            caches: Caches::new(plan, caches, 2 * magazine)?,
            indices: Indices::new(links),
            magazine,
            shared: CachePadded::new(Mutex::new(Shared {
                depot: Depot::new(fulls, magazine),
                unused: 0..capacity,
                is_closed: caches == 0,
                patience: 0,
            })),
            _charge: charge,
        })
    }

    /// Takes a free index. Returns `None` if all indices are out.
    ///
    /// # Complexity
    ///
    /// Constant, without a lock, if the thread keeps an index. Otherwise constant, with a lock. If the depot is empty too,
    /// linear in the indices that threads keep, at most 64 of 64 threads, with one call to the kernel. The gate then stays
    /// closed for at least 256 calls that take the lock, unless [`available`](Self::available) is called.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::FreeList;
    ///
    /// let free = FreeList::try_with_capacity(2)?;
    /// let (first, second) = (free.take(), free.take());
    /// assert_ne!(first, second);
    /// assert_eq!(free.take(), None);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use = "an index that is not given back stays out"]
    #[inline]
    pub fn take(&self) -> Option<usize> {
        self.take_as(thread_number())
    }

    #[inline(always)]
    fn take_as(&self, thread: usize) -> Option<usize> {
        match self.caches.take(thread) {
            Some(item) => {
                self.indices.mark_out(item);
                Some(index_of(item))
            }
            None => self.take_slowly(thread),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_slowly(&self, thread: usize) -> Option<usize> {
        let mut shared = lock(&self.shared);
        if !shared.is_closed {
            let item = self.take_open(&mut shared, thread);
            if item.is_some() || !self.gather(&mut shared) {
                return item.map(index_of);
            }
        }
        let item = self.pop_one(&mut shared);
        self.count_call(&mut shared);
        item.map(index_of)
    }

    /// Takes an index under the lock, while the gate is open. What the thread may keep comes with it.
    fn take_open(&self, shared: &mut Shared, thread: usize) -> Option<Item> {
        let Some(own) = self.caches.own(thread) else { return self.pop_one(shared) };
        // It has some still if the kernel refused to close the gate in between.
        if let Some(item) = own.take() {
            self.indices.mark_out(item);
            return Some(item);
        }
        let mut chain = self.chain(shared, self.magazine)?;
        // SAFETY: the links of all indices; the chain is used here alone.
        let first = unsafe { chain.pop(&self.indices) }?;
        for _ in 1..self.magazine {
            // SAFETY: as above.
            let Some(item) = (unsafe { chain.pop(&self.indices) }) else { break };
            self.indices.mark_kept(item);
            own.put(item);
        }
        Some(first)
    }

    /// Takes a chain of at most so many free indices out of the depot: one, or a full magazine.
    fn chain(&self, shared: &mut Shared, most: usize) -> Option<Chain<Item>> {
        let Shared { depot, unused, .. } = shared;
        let cut = |most| {
            let mut chain = Chain::NONE;
            let first = unused.start;
            unused.start = unused.end.min(first + most);
            for item in (first..unused.start).rev().filter_map(|index| self.indices.item(index)) {
                // SAFETY: the links of all indices, and an index that was never used.
                unsafe { chain.push(&self.indices, item) };
            }
            chain
        };
        // SAFETY: the links of all indices; `cut` makes chains of indices that were never used.
        unsafe { depot.chain(&self.indices, most, cut) }
    }

    fn pop_one(&self, shared: &mut Shared) -> Option<Item> {
        let mut chain = self.chain(shared, 1)?;
        // SAFETY: the links of all indices; the chain is used here alone.
        unsafe { chain.pop(&self.indices) }
    }

    /// Closes the gate, and moves the indices that threads keep to the depot. Returns `false` if the kernel refuses.
    #[cold]
    fn gather(&self, shared: &mut Shared) -> bool {
        let Some(all) = self.caches.close() else { return false };
        let mut chain = Chain::NONE;
        for item in all {
            // SAFETY: the links of all indices, and an index that no thread keeps any longer.
            unsafe { chain.push(&self.indices, item) };
            if chain.len() == self.magazine {
                let full = mem::replace(&mut chain, Chain::NONE);
                // SAFETY: the links of all indices, and a full chain.
                unsafe { shared.depot.put_full(&self.indices, full) };
            }
        }
        // SAFETY: the links of all indices; the chain is used here alone.
        while let Some(item) = unsafe { chain.pop(&self.indices) } {
            // SAFETY: the links of all indices, and an index that is in no list.
            unsafe { shared.depot.put_loose(&self.indices, item) };
        }
        shared.is_closed = true;
        shared.patience = PATIENCE;
        true
    }

    /// Counts a call that has taken the lock. Opens the gate if enough calls have, and enough indices are free.
    fn count_call(&self, shared: &mut Shared) {
        if !shared.is_closed || self.caches.is_empty() {
            return;
        }
        shared.patience = shared.patience.saturating_sub(1);
        if shared.patience == 0 && shared.free() >= (self.capacity() / SCARCE).max(1) {
            shared.is_closed = false;
        }
    }

    /// Gives an index back, on any thread. Returns `false`, and changes nothing, if the index is free, or is not below the
    /// capacity.
    ///
    /// The `take` that returned the index must happen before this call. Passing the index on through a lock or a channel
    /// ensures that.
    ///
    /// Two mistakes are not detected: an index that is given by two threads at the same time, and one that was given
    /// back before and is out again. Then two threads may have one index at once, and indices may be lost. So unsafe code
    /// may rely on an index only if it controls all calls of `give`.
    ///
    /// # Complexity
    ///
    /// Constant, without a lock, unless the thread keeps as many indices as it may: then one lock for *m* of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::FreeList;
    ///
    /// let free = FreeList::try_with_capacity(2)?;
    /// let index = free.take().expect("two indices");
    /// assert!(free.give(index));
    /// assert!(!free.give(index), "given back before");
    /// assert!(!free.give(2), "there are the indices 0 and 1");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn give(&self, index: usize) -> bool {
        self.give_as(thread_number(), index)
    }

    #[inline(always)]
    fn give_as(&self, thread: usize, index: usize) -> bool {
        let Some(item) = self.indices.out(index) else { return false };
        self.indices.mark_kept(item);
        if !self.caches.put(thread, item) {
            self.give_slowly(thread, item);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn give_slowly(&self, thread: usize, item: Item) {
        let mut shared = lock(&self.shared);
        if !shared.is_closed
            && let Some(own) = self.caches.own(thread)
        {
            if own.put(item) {
                return;
            }
            let mut chain = Chain::NONE;
            own.take_oldest(self.magazine, |item| {
                // SAFETY: the links of all indices, and an index that the thread does not keep any longer.
                unsafe { chain.push(&self.indices, item) };
            });
            // SAFETY: the links of all indices. The thread kept twice as many, so this is a full chain.
            unsafe { shared.depot.put_full(&self.indices, chain) };
            if own.put(item) {
                return;
            }
        }
        // SAFETY: the links of all indices, and an index that is in no list.
        unsafe { shared.depot.put_loose(&self.indices, item) };
        self.count_call(&mut shared);
    }

    /// Returns how many indices are free at one instant of the call. Indices that threads keep are left out if the kernel
    /// refuses to close the gate.
    ///
    /// # Complexity
    ///
    /// Linear in what the threads keep, at most 64 indices of 64 threads, with a lock and a call to the kernel. It moves these
    /// indices to the depot, so call it rarely. Other threads wait for the lock meanwhile.
    #[must_use]
    pub fn available(&self) -> usize {
        let mut shared = lock(&self.shared);
        if !shared.is_closed && self.gather(&mut shared) {
            // Open at once, as it was.
            shared.is_closed = false;
        }
        // Indices that were given by two threads at once may be counted twice.
        shared.free().min(self.capacity())
    }

    /// Returns the number of indices, free or not.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.indices.len()
    }
}

impl Shared {
    /// Returns the number of free indices that no thread keeps.
    fn free(&self) -> usize {
        self.depot.free().wrapping_add(self.unused.len())
    }
}

impl fmt::Debug for FreeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeList").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
