//! The slab of many threads.

use super::{
    Handle,
    kept::{BATCH, Kept},
    slot::{Removed, Slot},
};
use crate::{
    advanced::{
        budget::{Budget, SharedReservation},
        lockfree::{
            Full,
            blocks::Blocks,
            tagged::{Head, Link, NONE},
        },
    },
    core::AllocationError,
    utils::{
        sync::{AtomicPtr, AtomicUsize, Ordering},
        thread_number::thread_number,
    },
};
use core::{fmt, mem, ptr, ptr::NonNull};
use crossbeam_utils::CachePadded;
use std::{
    boxed::Box,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The threads that have a shard of their own. The others share one.
const SHARDS: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// A slab for many threads: values in numbered slots. Each value has a [`Handle`], which finds the value until it is
/// removed, and nothing afterwards.
///
/// [`get`](Self::get) returns a guard that *pins* the value: a value that is removed while it is pinned is not found any
/// longer, and the last guard drops it. Values never move.
///
/// # Layout
///
/// ```text
///   thread 0               thread 1               threads without a number
///   ┌────────────────┐     ┌────────────────┐     ┌────────────────┐
///   │ kept: 5 2      │     │ kept: 9        │     │                │   vacant slots for this thread alone
///   │ list: 7 ─► 1   │     │ list:          │     │ list: 4        │   vacant slots that others may take
///   └────────────────┘     └────────────────┘     └────────────────┘
///   blocks:  [1 … 8] [1 … 16] [1 … 32] …           slots, each with a word: generation, removed, pins
/// ```
///
/// - A thread takes vacant slots from its own shard, and returns them there. It keeps at most 16 for itself, without
///   an atomic read-modify-write. If it has more, it moves eight of them to its list. A slot that another thread
///   empties returns to the list of the thread that filled it. The blocks and lists of slots follow K. Fraser,
///   *Practical lock-freedom*, 2004. The shards of threads, to which other threads return slots, follow D. Leijen, B.
///   Zorn and L. de Moura, *Mimalloc: Free List Sharding in Action*, 2019.
/// - Before the slab grows, a thread takes vacant slots from the lists of other shards. So at most 16 vacant slots of
///   each other thread are out of its reach.
/// - A pin is a compare-and-swap of the slot's word, and its end is a subtraction. A removal is a compare-and-swap of
///   the same word. So a removal knows at one instant whether there are guards.
///
/// # Progress
///
/// [`get`](Self::get), [`contains`](Self::contains), [`remove`](Self::remove), [`take`](Self::take) and the end of a guard
/// are lock-free: an attempt is repeated only after another thread's took effect. [`insert`](Self::insert) takes a lock for
/// a slot that was never used, and allocates for a new block. No operation waits for a guard.
///
/// The drop of a value runs after its slot is vacant, outside of all locks. It may use the slab, and it may panic.
///
/// # Limits
///
/// At most 4.7 million slots. A slot is used for 2³¹ values, one after the other. Then it is *retired*: another slot,
/// which was never used, takes its place. Blocks are freed only when the slab is dropped. A list has a tag of 40 bits:
/// a thread would have to stop in the middle of an operation for exactly 2⁴⁰ returns to the list to be misled. Guards
/// that are forgotten keep their value until the slab is dropped.
///
/// # When not to use it
///
/// For the values of one thread: a [`LocalSlab`](super::LocalSlab) takes a fifth of the time to read a value, and two
/// fifths to insert and remove one. For one value that all threads read all the time: each pin writes to the word of
/// the value. The readers of an [`EpochSlab`](super::EpochSlab) write nothing.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::Slab;
/// use std::thread;
///
/// let sessions = Slab::new();
/// let handle = sessions.insert(String::from("session"));
/// thread::scope(|scope| {
///     scope.spawn(|| {
///         let session = sessions.get(handle).expect("not removed yet");
///         assert!(sessions.remove(handle));
///         // It is removed, but the guard has it still.
///         assert!(!sessions.contains(handle));
///         assert_eq!(*session, "session");
///     });
/// });
/// assert!(sessions.get(handle).is_none());
/// ```
pub struct Slab<T> {
    slots: Blocks<Slot<T>>,
    /// Combined with a thread's number by *or*: all ones send each thread to the shared shard, and 0 changes nothing.
    shares: usize,
    /// # Invariants
    ///
    /// Null, or a shard that is freed with the slab.
    shards: [AtomicPtr<CachePadded<Shard>>; SHARDS + 1],
    /// Dropped last: the memory is freed before its bytes are released.
    charge: Option<SharedReservation>,
}

/// The vacant slots of one thread, and the thread's counters.
struct Shard {
    /// For the thread whose shard it is.
    kept: Kept,
    list: Head,
    /// How many values the thread has inserted and removed. Each wraps around.
    inserted: AtomicUsize,
    removed: AtomicUsize,
    /// The shard that this one has stolen from last.
    victim: AtomicUsize,
}

const COMPONENT: &str = "slab";

impl<T> Slab<T> {
    /// The bytes of one slot: a value, and 16 bytes.
    pub const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// Creates an empty slab. It grows by blocks, each twice as large as the one before, up to 2¹⁸ slots.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Blocks::new(), 0, None)
    }

    fn over(slots: Blocks<Slot<T>>, shares: usize, charge: Option<SharedReservation>) -> Self {
        let shards = core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
        Self { slots, shares, shards, charge }
    }

    /// Creates an empty slab for at most `most` values at once, and at most 4.7 million. It grows as others do until then. A
    /// value that was removed counts until its last guard is dropped. With 0 each insertion is refused.
    ///
    /// No thread keeps vacant slots for itself, so none is out of reach: all threads share one list.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Slab;
    ///
    /// let slab = Slab::bounded(2);
    /// let first = slab.insert('a');
    /// slab.insert('b');
    /// assert!(slab.try_insert('c').is_err());
    /// slab.remove(first);
    /// assert!(slab.try_insert('c').is_ok());
    /// ```
    #[must_use]
    pub fn bounded(most: usize) -> Self {
        Self::over(Blocks::bounded(most), usize::MAX, None)
    }

    /// Like [`bounded`](Self::bounded), and charges `budget` as [`new_in`](Self::new_in) does.
    #[must_use]
    pub fn bounded_in(most: usize, budget: &Budget) -> Self {
        Self::over(Blocks::bounded(most), usize::MAX, Some(budget.shared_reservation()))
    }

    /// The number of this thread's shard, or a larger one for the shared shard.
    #[inline(always)]
    fn thread(&self) -> usize {
        thread_number() | self.shares
    }

    /// Like [`new`](Self::new), and charges `budget` for each block, from when it is allocated until the slab is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::Slab};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let slab = Slab::new_in(&budget);
    /// let mut count = 0;
    /// while slab.try_insert(7_u64).is_ok() {
    ///     count += 1;
    /// }
    /// assert_eq!(budget.usage().used, count * Slab::<u64>::SLOT_BYTES);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn new_in(budget: &Budget) -> Self {
        Self::over(Blocks::new(), 0, Some(budget.shared_reservation()))
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
    /// [`Full`] with the value, if no vacant slot is within reach, and the bound, the budget or the heap has no room for
    /// another slot.
    ///
    /// # Complexity
    ///
    /// Constant, without an atomic read-modify-write, if the thread keeps a vacant slot.
    #[inline]
    pub fn try_insert(&self, value: T) -> Result<Handle, Full<T>> {
        self.insert_as(self.thread(), value)
    }

    #[inline(always)]
    fn insert_as(&self, thread: usize, value: T) -> Result<Handle, Full<T>> {
        self.insert_with(thread, value, 0)
    }

    /// Inserts a value that is pinned already, once, as by a guard.
    #[inline(always)]
    pub(super) fn insert_pinned(&self, value: T) -> Result<Handle, Full<T>> {
        self.insert_with(self.thread(), value, 1)
    }

    #[inline(always)]
    fn insert_with(&self, thread: usize, value: T, pins: u64) -> Result<Handle, Full<T>> {
        let own = self.shard(thread);
        let kept = if thread < SHARDS { own.kept.pop() } else { None };
        let Some(number) = kept.or_else(|| self.vacant(thread, own).ok()) else {
            return Err(Full(value));
        };
        // SAFETY: the number of a slot that there is: this thread kept it, or took it under the lock of the unused ones, or out
        // of a list with acquire.
        let slot = unsafe { self.slots.at(number) };
        // SAFETY: slots live as long as the slab.
        let slot = unsafe { slot.as_ref() };
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        slot.home.store(thread.min(SHARDS) as u32, Ordering::Relaxed);
        count(thread, &own.inserted);
        // SAFETY: 1. The number was taken out of its list, by this thread alone. 2. The list orders it, as above.
        Ok(unsafe { slot.fill(number, value, pins) })
    }

    /// Finds a vacant slot that the thread does not keep.
    #[inline(never)]
    fn vacant(&self, thread: usize, own: &Shard) -> Result<u32, AllocationError> {
        let most = if thread < SHARDS { BATCH } else { 1 };
        loop {
            // A manager that was asked for a block's bytes may have removed values on this thread.
            let number = if thread < SHARDS { own.kept.pop() } else { None };
            let number = number.or_else(|| self.listed(own, &own.list, most));
            let number = number.or_else(|| self.unused(own, most));
            let number = number.or_else(|| self.steal(thread, own, most));
            if let Some(number) = number {
                return Ok(number);
            }
            self.slots.add_block(COMPONENT, self.charge.as_ref(), |_| Slot::new())?;
        }
    }

    /// Takes slots out of a list, at most so many: returns one, and keeps the others.
    fn listed(&self, own: &Shard, list: &Head, most: usize) -> Option<u32> {
        let mut numbers = [NONE; BATCH];
        let found = self.pop_some(list, &mut numbers[..most]);
        let (number, rest) = numbers[..found].split_first()?;
        for number in rest.iter().rev() {
            self.keep(own, *number);
        }
        Some(*number)
    }

    /// Takes slots that were never used, as [`listed`](Self::listed). They are neighbours, so that threads do not share
    /// cache lines.
    fn unused(&self, own: &Shard, most: usize) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let (first, count) = self.slots.next_unused(most as u32)?;
        for number in (first + 1..first + count).rev() {
            self.keep(own, number);
        }
        Some(first)
    }

    fn pop_some(&self, list: &Head, numbers: &mut [u32]) -> usize {
        list.pop_some(numbers, |number| {
            let slot = self.slots.find(number)?;
            // SAFETY: slots live as long as the slab.
            Some(unsafe { &(*slot.as_ptr()).below })
        })
    }

    /// Takes vacant slots out of the list of another shard, as [`listed`](Self::listed).
    #[cold]
    fn steal(&self, thread: usize, own: &Shard, most: usize) -> Option<u32> {
        let from = own.victim.load(Ordering::Relaxed);
        let others = (from..=SHARDS).chain(0..from).filter(|at| *at != thread);
        others.filter_map(|at| Some((at, self.existing(at)?))).find_map(|(at, shard)| {
            let number = self.listed(own, &shard.list, most)?;
            own.victim.store(at, Ordering::Relaxed);
            Some(number)
        })
    }

    /// Returns the slot of a handle, if there is one.
    #[inline(always)]
    pub(super) fn slot(&self, handle: Handle) -> Option<&Slot<T>> {
        let slot = self.slots.find(number(handle))?;
        // SAFETY: slots live as long as the slab.
        Some(unsafe { slot.as_ref() })
    }

    /// Returns a value, without pinning it. `None` if it was removed.
    ///
    /// # Safety
    ///
    /// If the value is found, it stays pinned as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn look(&self, handle: Handle) -> Option<&T> {
        // SAFETY: the caller's promise.
        unsafe { self.slot(handle)?.look(handle) }
    }

    /// Marks a value that is pinned as removed, so that it is not found any longer. Returns the number of its slot, and the
    /// slot's link, which is the caller's until the pin ends. `None` if it was removed before.
    #[inline(always)]
    pub(super) fn mark_removed(&self, handle: Handle) -> Option<(u32, &Link)> {
        match self.remove_as(self.thread(), handle, true) {
            Removed::Later => Some((number(handle), &self.slot(handle)?.below)),
            Removed::Before => None,
            Removed::Now(_) | Removed::Pinned => unreachable!("it is pinned"),
        }
    }

    /// Returns the link of a slot.
    ///
    /// # Safety
    ///
    /// As for [`Blocks::at`].
    pub(super) unsafe fn link(&self, number: u32) -> &Link {
        // SAFETY: the caller's promise.
        let slot = unsafe { self.slots.at(number) };
        // SAFETY: slots live as long as the slab.
        unsafe { &(*slot.as_ptr()).below }
    }

    /// Ends the only pin of a removed value, and drops the value. A panic of the drop ends here.
    ///
    /// # Safety
    ///
    /// 1. As for [`Blocks::at`].
    /// 2. The value is not used on account of this pin any longer.
    pub(super) unsafe fn unpin_removed(&self, number: u32) {
        // SAFETY: the caller's promise (1).
        let slot = unsafe { self.slots.at(number) };
        // SAFETY: slots live as long as the slab.
        let slot = unsafe { slot.as_ref() };
        // SAFETY: pinned (the caller's promise, 2).
        if let Some(value) = unsafe { slot.unpin() } {
            self.vacate(self.thread(), number, slot);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                // Its drop might panic, too.
                mem::forget(panic);
            }
        }
    }

    /// Iterates over the handles of values that were not removed.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.slots.numbers().filter_map(|number| {
            let slot = self.slots.find(number)?;
            // SAFETY: slots live as long as the slab.
            unsafe { slot.as_ref() }.handle(number)
        })
    }

    /// Returns whether the value of a handle has not been removed.
    #[must_use]
    #[inline]
    pub fn contains(&self, handle: Handle) -> bool {
        self.slot(handle).is_some_and(|slot| slot.has(handle))
    }

    /// Removes a value. Drops it here, or lets the last guard drop it. Returns `false` if it was removed before.
    ///
    /// # Complexity
    ///
    /// Constant: a compare-and-swap, and another one if another thread inserted the value.
    #[inline]
    pub fn remove(&self, handle: Handle) -> bool {
        let removed = self.remove_as(self.thread(), handle, true);
        matches!(removed, Removed::Now(_) | Removed::Later)
    }

    /// Removes and returns a value that no guard pins. `None` if guards do, or if it was removed before.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Slab;
    ///
    /// let slab = Slab::new();
    /// let handle = slab.insert('a');
    /// let guard = slab.get(handle);
    /// assert_eq!(slab.take(handle), None);
    /// drop(guard);
    /// assert_eq!(slab.take(handle), Some('a'));
    /// ```
    #[inline]
    pub fn take(&self, handle: Handle) -> Option<T> {
        match self.remove_as(self.thread(), handle, false) {
            Removed::Now(value) => Some(value),
            _ => None,
        }
    }

    #[inline(always)]
    fn remove_as(&self, thread: usize, handle: Handle, is_patient: bool) -> Removed<T> {
        let Some(slot) = self.slot(handle) else { return Removed::Before };
        let removed = slot.remove(handle, is_patient);
        match &removed {
            Removed::Now(_) => {
                count(thread, &self.shard(thread).removed);
                self.vacate(thread, number(handle), slot);
            }
            Removed::Later => count(thread, &self.shard(thread).removed),
            Removed::Pinned | Removed::Before => {}
        }
        removed
    }

    /// Puts a slot that this thread has emptied into the list of its home.
    #[inline(always)]
    fn vacate(&self, thread: usize, number: u32, slot: &Slot<T>) {
        if slot.is_spent() {
            self.slots.retire();
            return;
        }
        let home = slot.home.load(Ordering::Relaxed) as usize;
        let shard = self.shard(home);
        if home != thread || home >= SHARDS {
            shard.list.push(number, &slot.below);
        } else {
            self.keep(shard, number);
        }
    }

    /// Keeps a vacant slot for this thread, whose shard it is.
    #[inline(always)]
    fn keep(&self, own: &Shard, number: u32) {
        if !own.kept.push(number) {
            self.spill(own);
            let is_kept = own.kept.push(number);
            debug_assert!(is_kept, "half of them went");
        }
    }

    /// Moves the slots that the thread has kept for longest to its list, where others may take them.
    #[cold]
    #[inline(never)]
    fn spill(&self, own: &Shard) {
        let oldest = own.kept.pop_oldest().map(|number| {
            // SAFETY: the number of a slot that this thread keeps.
            let slot = unsafe { self.slots.at(number) };
            // SAFETY: slots live as long as the slab.
            (number, unsafe { &(*slot.as_ptr()).below })
        });
        for pair in oldest.windows(2) {
            pair[1].1.store(pair[0].0, Ordering::Relaxed);
        }
        let [(_, last), ..] = oldest;
        let [.., (first, _)] = oldest;
        own.list.push(first, last);
    }

    /// Ends the pin of a guard.
    ///
    /// # Safety
    ///
    /// The guard is not used any longer.
    #[inline(always)]
    pub(super) unsafe fn unpin(&self, slot: &Slot<T>, handle: Handle) {
        // SAFETY: the guard had pinned it.
        if let Some(value) = unsafe { slot.unpin() } {
            self.bury(slot, handle, value);
        }
    }

    #[cold]
    #[inline(never)]
    fn bury(&self, slot: &Slot<T>, handle: Handle, value: T) {
        self.vacate(self.thread(), number(handle), slot);
        drop(value);
    }

    /// Returns the number of values that were not removed. It is exact while no other thread inserts or removes.
    ///
    /// # Complexity
    ///
    /// Linear in the number of shards, at most 65.
    #[must_use]
    pub fn len(&self) -> usize {
        let shards = || (0..=SHARDS).filter_map(|at| self.existing(at));
        // The removed ones first: another thread's value that is removed meanwhile counts rather twice than not at all.
        let sum = |counter: fn(&Shard) -> &AtomicUsize| {
            shards().fold(0_usize, |sum, shard| {
                sum.wrapping_add(counter(shard).load(Ordering::Acquire))
            })
        };
        let removed = sum(|shard| &shard.removed);
        let len = sum(|shard| &shard.inserted).wrapping_sub(removed);
        // A thread's counter may be read before another thread's that it is ordered after.
        if len.cast_signed() < 0 { 0 } else { len }
    }

    /// Returns whether there are no values; see [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn existing(&self, at: usize) -> Option<&Shard> {
        let shard = NonNull::new(self.shards[at].load(Ordering::Acquire))?;
        // SAFETY: a shard that is freed with the slab (the invariants).
        Some(unsafe { shard.as_ref() })
    }

    #[inline(always)]
    fn shard(&self, thread: usize) -> &Shard {
        let at = thread.min(SHARDS);
        match self.existing(at) {
            Some(shard) => shard,
            None => self.new_shard(at),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_shard(&self, at: usize) -> &Shard {
        let shard = Shard {
            kept: Kept::new(),
            list: Head::new(),
            inserted: AtomicUsize::new(0),
            removed: AtomicUsize::new(0),
            victim: AtomicUsize::new(0),
        };
        let made = Box::into_raw(Box::new(CachePadded::new(shard)));
        let stored = self.shards[at].compare_exchange(
            ptr::null_mut(),
            made,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let shard = match stored {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: just made, and not stored.
                drop(unsafe { Box::from_raw(made) });
                other
            }
        };
        // SAFETY: stored, so it is freed with the slab only (the invariants).
        unsafe { &*shard }
    }
}

/// Returns the number of the slot of a handle.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it was 32 bits")]
const fn number(handle: Handle) -> u32 {
    handle.index() as u32
}

/// Adds one to a counter, which wraps around. A thread with a number is the only writer of its counters.
#[inline(always)]
fn count(thread: usize, counter: &AtomicUsize) {
    // Release: pairs with the acquire of `len`.
    if thread < SHARDS {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    } else {
        counter.fetch_add(1, Ordering::Release);
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            let shard = mem::replace(shard, AtomicPtr::new(ptr::null_mut()));
            let shard = shard.load(Ordering::Acquire);
            if !shard.is_null() {
                // SAFETY: stored by `new_shard` (the invariants), and taken out here.
                drop(unsafe { Box::from_raw(shard) });
            }
        }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
