//! A bounded queue for many producers and many consumers.

mod slot;

use self::slot::{Slot, filled, vacant};
use super::{
    Full,
    backoff::Backoff,
    memory::Plan,
    order::{TOTAL_LOAD, TOTAL_SWAP},
};
use crate::{
    advanced::budget::{Budget, Reservation},
    core::AllocationError,
    utils::sync::{AtomicU64, Ordering, SwitchPoint},
};
use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr,
};
use crossbeam_utils::CachePadded;

/// A bounded first-in, first-out queue that many threads push to and pop from.
///
/// Its memory is allocated once. A push or a pop is one compare-and-swap; so is a whole batch, by
/// [`push_many`](Self::push_many) and [`pop_many`](Self::pop_many). Operations are linearizable: each takes
/// effect at one instant between its call and its return, batches too.
///
/// # Progress
///
/// Blocking at the slot; *not* lock-free. A thread claims a slot, moves the value, and publishes the slot. If the
/// operating system stops the thread between the claim and the publication, threads that get to this slot wait
/// for it, and yield meanwhile. Threads at other slots go on. No code of yours runs in between: no drop, no
/// iterator and no allocator. So a panic cannot leave a slot claimed. Signal handlers and code with real-time
/// deadlines must not use the queue; see [`IndexQueue`](super::IndexQueue).
///
/// # Algorithm
///
/// D. Vyukov, *Bounded MPMC queue*, 2010: each slot has a sequence number. Batches and the exact test for a full or
/// an empty queue are added to it.
///
/// ```text
///   head: next pop       tail: next push        position p uses slot p modulo the number of slots
///        │                    │
///  ┌─────▼──┬────────┬────────▼─────┬────────┐  sequence 2p      vacant for the push at p
///  │ 2·0+1  │ 2·1+1  │ 2·2          │ 2·3    │           2p + 1  filled by the push at p
///  │ value  │ value  │              │        │           2(p + slots): vacant for the next lap
///  └────────┴────────┴──────────────┴────────┘
/// ```
///
/// - `tail` and `head` are positions: 64-bit counts of all pushes and pops.
/// - A sequence number counts each position twice, so *filled at p* and *vacant for p + 1* differ. So a queue of one
///   slot is correct: a push never overwrites a value.
/// - A batch looks at the slots before its compare-and-swap, so it claims only slots that it can use at once. It publishes
///   its first slot last. A thread that waits for that slot then finds the whole batch.
///
/// # Limits
///
/// The capacity is rounded up to a power of two. Sequence numbers repeat after 2⁶³ pushes: after 292 years at one push per
/// nanosecond. A slot has 8 bytes in addition to the value. Neighbouring small values share a cache line.
///
/// # When not to use it
///
/// One producer and one consumer: a [`ring`](super::ring()) is faster. Threads that sleep until a value arrives: the queue
/// has no wake-up; use a channel. Many threads on few cores with nothing but the queue to do: a `Mutex<VecDeque>` may
/// be as fast, as contended compare-and-swaps cost more than a lock that is held for nanoseconds.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, lockfree::Queue};
/// use std::thread;
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let jobs = Queue::try_with_capacity_in(1000, &budget)?;
/// assert_eq!(jobs.capacity(), 1024);
/// assert_eq!(budget.usage().used, 1024 * Queue::<u64>::SLOT_BYTES);
///
/// for job in 0..1000_u64 {
///     jobs.push(job).expect("there is room");
/// }
/// let sum: u64 = thread::scope(|scope| {
///     let worker = || std::iter::from_fn(|| jobs.pop()).sum::<u64>();
///     let workers = [scope.spawn(worker), scope.spawn(worker)];
///     workers.into_iter().map(|worker| worker.join().unwrap()).sum()
/// });
/// assert_eq!(sum, 499_500);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Queue<T> {
    /// The position of the next push.
    tail: CachePadded<AtomicU64>,
    /// The position of the next pop.
    head: CachePadded<AtomicU64>,
    /// # Invariants
    ///
    /// The length is a power of two.
    slots: Box<[Slot<T>]>,
    switch: SwitchPoint,
    /// Dropped last: the memory is freed before its bytes are released.
    _charge: Option<Reservation>,
}

// SAFETY: a value is moved in by one thread and out by another one, which needs `T: Send`. No two threads use a
// value at once, as each position is claimed by one push and one pop.
unsafe impl<T: Send> Send for Queue<T> {}
// SAFETY: as above. No `&T` is given out.
unsafe impl<T: Send> Sync for Queue<T> {}

// A panic in user code happens only outside of operations: the queue stays consistent.
impl<T> UnwindSafe for Queue<T> {}
impl<T> RefUnwindSafe for Queue<T> {}

const COMPONENT: &str = "queue";

impl<T> Queue<T> {
    /// The bytes of one slot: a value and its sequence number.
    pub const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// Creates an empty queue with room for at least `capacity` values, and for at least one. The capacity is rounded up
    /// to a power of two.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the slots do not fit the address space or the heap.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Queue;
    ///
    /// let queue = Queue::try_with_capacity(3)?;
    /// assert_eq!(queue.capacity(), 4);
    /// queue.push('a').expect("there is room");
    /// assert_eq!((queue.pop(), queue.pop()), (Some('a'), None));
    ///
    /// let error = Queue::<u64>::try_with_capacity(usize::MAX).unwrap_err();
    /// assert_eq!(error.code(), "MEM:ALLOC:CAPACITY_OVERFLOW");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity(capacity: usize) -> Result<Self, AllocationError> {
        Self::planned(capacity, None)
    }

    /// Like [`try_with_capacity`](Self::try_with_capacity), and charges `budget` for the slots until the queue is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_with_capacity`](Self::try_with_capacity), and if the budget refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::Queue};
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let error = Queue::<u64>::try_with_capacity_in(100, &budget).unwrap_err();
    /// assert_eq!(error.code(), "MEM:BUDGET:TOO_LARGE");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity_in(capacity: usize, budget: &Budget) -> Result<Self, AllocationError> {
        Self::planned(capacity, Some(budget))
    }

    fn planned(capacity: usize, budget: Option<&Budget>) -> Result<Self, AllocationError> {
        let plan = Plan { component: COMPONENT, beside: 0, budget };
        let slots = plan.rounded::<Slot<T>>(capacity)?;
        let (slots, charge) = plan.slots(slots, |at| Slot::new(at as u64))?;
        let zero = || CachePadded::new(AtomicU64::new(0));
        Ok(Self { tail: zero(), head: zero(), slots, switch: SwitchPoint::new(), _charge: charge })
    }

    /// Returns the slot that `position` uses.
    #[inline(always)]
    fn slot(&self, position: u64) -> &Slot<T> {
        #[expect(clippy::cast_possible_truncation, reason = "the mask is shorter")]
        let at = position as usize & (self.slots.len() - 1);
        debug_assert!(at < self.slots.len());
        // SAFETY: the length is a power of two (the invariants), so the mask gives an index below it.
        unsafe { self.slots.get_unchecked(at) }
    }

    /// Appends a value.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, if the queue is full.
    ///
    /// # Complexity
    ///
    /// Constant, and one compare-and-swap unless other threads push at the same time.
    #[inline]
    pub fn push(&self, value: T) -> Result<(), Full<T>> {
        let mut backoff = Backoff::default();
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(tail);
            self.switch.here();
            if slot.sequence() == vacant(tail) {
                match self.claim(&self.tail, tail, 1) {
                    Ok(()) => {
                        // SAFETY: 1. claimed above; 2. seen vacant above.
                        unsafe { slot.fill(tail, value) };
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
                backoff.lost();
            } else {
                match self.tail_after(tail, &mut backoff) {
                    Some(now) => tail = now,
                    None => return Err(Full(value)),
                }
            }
        }
    }

    /// Removes and returns the oldest value. Returns `None` if the queue is empty.
    ///
    /// # Complexity
    ///
    /// Constant, and one compare-and-swap unless other threads pop at the same time.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let mut backoff = Backoff::default();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head);
            self.switch.here();
            if slot.sequence() == filled(head) {
                match self.claim(&self.head, head, 1) {
                    // SAFETY: 1. claimed just now; 2. seen filled above.
                    Ok(()) => return Some(unsafe { slot.take(head, self.slots.len() as u64) }),
                    Err(now) => head = now,
                }
                backoff.lost();
            } else {
                head = self.head_after(head, &mut backoff)?;
            }
        }
    }

    /// Moves as many `values` as there is room for into the queue, from the front, and returns their number. The others
    /// stay in the vector. Zero means that the queue is full, unless there are no values.
    ///
    /// The batch is contiguous: no other thread's value comes between its values. It may be shorter than the room in the
    /// queue while other threads are in the middle of a pop.
    ///
    /// # Complexity
    ///
    /// One compare-and-swap, unless other threads push at the same time, and a move of each value. Values that stay are moved
    /// to the front of the vector.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Queue;
    ///
    /// let queue = Queue::try_with_capacity(4)?;
    /// let mut lines = vec!["a", "b", "c", "d", "e"];
    /// assert_eq!(queue.push_many(&mut lines), 4);
    /// assert_eq!(lines, ["e"]);
    ///
    /// let mut batch = Vec::new();
    /// assert_eq!(queue.pop_many(&mut batch, 3), 3);
    /// assert_eq!(batch, ["a", "b", "c"]);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn push_many(&self, values: &mut Vec<T>) -> usize {
        let len = values.len();
        if len == 0 {
            return 0;
        }
        let Some((first, count)) = self.claim_vacant(len) else { return 0 };
        // From here to the end nothing panics. Until the rest is moved down the vector owns nothing.
        // SAFETY: zero elements are initialised.
        unsafe { values.set_len(0) };
        let from = values.as_mut_ptr();
        for at in (0..count).rev() {
            let position = first.wrapping_add(at as u64);
            // SAFETY: the claim is no longer than the vector was.
            let value = unsafe { from.add(at) };
            // SAFETY: the vector owned the value, and it does no longer. It is read once.
            let value = unsafe { value.read() };
            // SAFETY: 1, 2. `claim_vacant` claimed the position and saw its slot vacant.
            unsafe { self.slot(position).fill(position, value) };
        }
        // SAFETY: the claim is no longer than the vector was.
        let rest = unsafe { from.add(count) };
        // SAFETY: both are in the vector's memory, and the rest was initialised.
        unsafe { ptr::copy(rest, from, len - count) };
        // SAFETY: so many values were moved to the front.
        unsafe { values.set_len(len - count) };
        count
    }

    /// Moves at most `most` of the oldest values to the end of `values`, and returns their number. Zero means that the
    /// queue is empty, unless `most` is zero.
    ///
    /// The values are contiguous: no other thread pops one from between them. They may be fewer than the queue has
    /// while other threads are in the middle of a push.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`], which is called before a value is removed. It allocates nothing if the vector has room for
    /// `most` values.
    ///
    /// # Complexity
    ///
    /// One compare-and-swap, unless other threads pop at the same time, and a move of each value.
    pub fn pop_many(&self, values: &mut Vec<T>, most: usize) -> usize {
        let most = most.min(self.capacity());
        if values.capacity() - values.len() < most {
            values.reserve(most.min(self.len()));
        }
        // If the queue was empty just now, nothing was reserved. Values may have come since.
        let most = most.min(values.capacity() - values.len());
        if most == 0 {
            return 0;
        }
        let Some((first, count)) = self.claim_filled(most) else { return 0 };
        // From here to the end nothing panics.
        let len = values.len();
        // SAFETY: the length is within the vector's memory.
        let to = unsafe { values.as_mut_ptr().add(len) };
        for at in (0..count).rev() {
            let position = first.wrapping_add(at as u64);
            // SAFETY: 1, 2. `claim_filled` claimed the position and saw its slot filled.
            let value = unsafe { self.slot(position).take(position, self.slots.len() as u64) };
            // SAFETY: the claim is no longer than the vector's free memory.
            let to = unsafe { to.add(at) };
            // SAFETY: as above.
            unsafe { to.write(value) };
        }
        // SAFETY: so many values were written behind the others.
        unsafe { values.set_len(len + count) };
        count
    }

    /// Claims `count` positions from `at` on.
    ///
    /// # Errors
    ///
    /// The position now, if another thread has claimed `at`.
    #[inline(always)]
    fn claim(&self, end: &AtomicU64, at: u64, count: usize) -> Result<(), u64> {
        // SeqCst: pairs with the loads of `tail_after` and `head_after`. All threads agree on one order of
        // claims and these loads, on all queues. So a queue that is found full or empty was so at that instant.
        let next = at.wrapping_add(count as u64);
        self.switch.here();
        end.compare_exchange_weak(at, next, TOTAL_SWAP, Ordering::Relaxed).map(drop)
    }

    /// Claims up to `most` contiguous positions for pushes, whose slots were seen vacant. Returns the first position and
    /// the count, which is not zero. `None` if the queue is full.
    fn claim_vacant(&self, most: usize) -> Option<(u64, usize)> {
        let mut backoff = Backoff::default();
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            match self.run_of(tail, most, vacant) {
                0 => tail = self.tail_after(tail, &mut backoff)?,
                count => match self.claim(&self.tail, tail, count) {
                    Ok(()) => return Some((tail, count)),
                    Err(now) => {
                        tail = now;
                        backoff.lost();
                    }
                },
            }
        }
    }

    /// Like [`claim_vacant`](Self::claim_vacant), for pops and filled slots. `None` if the queue is empty.
    fn claim_filled(&self, most: usize) -> Option<(u64, usize)> {
        let mut backoff = Backoff::default();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            match self.run_of(head, most, filled) {
                0 => head = self.head_after(head, &mut backoff)?,
                count => match self.claim(&self.head, head, count) {
                    Ok(()) => return Some((head, count)),
                    Err(now) => {
                        head = now;
                        backoff.lost();
                    }
                },
            }
        }
    }

    /// Returns the number of positions from `first` on, up to `most`, whose slots have the wanted sequence number. A slot
    /// has the number of one position only, so there are never more than slots.
    #[inline(always)]
    fn run_of(&self, first: u64, most: usize, wanted: fn(u64) -> u64) -> usize {
        let is_wanted = |at: &usize| {
            let position = first.wrapping_add(*at as u64);
            self.switch.here();
            self.slot(position).sequence() == wanted(position)
        };
        (0..most).take_while(is_wanted).count()
    }

    /// Returns a position for another attempt to push, after the slot at `tail` was not vacant. `None` if the queue was
    /// full at an instant of this call. Waits if a pop has claimed the slot and not released it yet.
    #[cold]
    fn tail_after(&self, tail: u64, backoff: &mut Backoff) -> Option<u64> {
        self.switch.here();
        // SeqCst: pairs with the claims. Every position up to `tail` was claimed when `head` is read.
        let now = self.tail.load(TOTAL_LOAD);
        if now == tail {
            // SeqCst: as above. The push at `tail` needs the pop at `tail - slots`: if `head` is not beyond that, then no
            // thread has pushed at `tail` by now, and all slots are claimed.
            let head = self.head.load(TOTAL_LOAD);
            if tail.wrapping_sub(head) == self.slots.len() as u64 {
                return None;
            }
            backoff.wait();
        }
        Some(self.tail.load(Ordering::Relaxed))
    }

    /// Returns a position for another attempt to pop, after the slot at `head` was not filled. `None` if the queue was
    /// empty at an instant of this call. Waits if a push has claimed the slot and not published it yet.
    #[cold]
    fn head_after(&self, head: u64, backoff: &mut Backoff) -> Option<u64> {
        self.switch.here();
        // SeqCst: pairs with the claims. Every position below `head` was claimed by a pop when `tail` is read.
        let now = self.head.load(TOTAL_LOAD);
        if now == head {
            // SeqCst: as above. The pop at `head` needs the push at `head`: if `tail` is not beyond that, then the queue
            // is empty.
            if self.tail.load(TOTAL_LOAD) == head {
                return None;
            }
            backoff.wait();
        }
        Some(self.head.load(Ordering::Relaxed))
    }

    /// Returns the number of values, as of one instant of the call. Claimed values count as pushed or popped.
    #[must_use]
    pub fn len(&self) -> usize {
        // SeqCst: pairs with the claims; so does every load of the next two methods.
        let mut tail = self.tail.load(TOTAL_LOAD);
        loop {
            let head = self.head.load(TOTAL_LOAD);
            let now = self.tail.load(TOTAL_LOAD);
            if now == tail {
                // `head` may not be beyond a tail that was the same before and after.
                return usize::try_from(tail.wrapping_sub(head)).unwrap_or(usize::MAX);
            }
            tail = now;
        }
    }

    /// Returns whether the queue was empty at an instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // In this order: `tail` is never below an earlier `head`.
        let head = self.head.load(TOTAL_LOAD);
        self.tail.load(TOTAL_LOAD) == head
    }

    /// Returns whether the queue was full at an instant of the call.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // In this order: `head` is never so far below an earlier `tail` that more than all slots lie between.
        let tail = self.tail.load(TOTAL_LOAD);
        tail.wrapping_sub(self.head.load(TOTAL_LOAD)) == self.slots.len() as u64
    }

    /// Returns the most values that the queue has at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<T> Drop for Queue<T> {
    /// Drops the remaining values. If a drop panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, T>(&'a Queue<T>);
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                while self.0.pop().is_some() {}
            }
        }
        if core::mem::needs_drop::<T>() {
            // Runs once, and once more if it unwinds.
            let rest = Rest(self);
            while rest.0.pop().is_some() {}
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
