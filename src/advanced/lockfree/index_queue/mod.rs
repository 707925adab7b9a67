//! A lock-free queue of small numbers.
#![forbid(unsafe_code)]

use super::{
    Full,
    memory::Plan,
    order::{TOTAL_LOAD, TOTAL_SWAP},
};
use crate::{
    advanced::budget::{Budget, Reservation},
    core::AllocationError,
    utils::sync::{AtomicU64, Ordering, SwitchPoint},
};
use alloc::boxed::Box;
use core::fmt;
use crossbeam_utils::CachePadded;

/// A bounded first-in, first-out queue of the indices `0..capacity`. It is lock-free: no stopped thread blocks
/// another one.
///
/// Use it to pass the slots of an array between threads: as a list of free slots, or of slots that are ready. Writes to
/// a slot before its index is pushed are visible to the thread that pops the index.
///
/// # Progress
///
/// Lock-free. Each step is one atomic operation on one 64-bit word. A thread that stops anywhere, even for ever, delays
/// no other thread: another push finishes its work. An attempt is repeated only after another thread's operation took
/// effect. A single thread may be overtaken without bound, so it is not wait-free. No operation allocates, takes a lock
/// or calls the kernel, so a signal handler may use the queue.
///
/// # Algorithm
///
/// The circular queue (NCQ) of R. Nikolaev, *A Scalable, Portable, and Memory-Efficient Lock-Free FIFO Queue*, DISC
/// 2019, with an exact test for a full queue.
///
/// ```text
///                      63                 b  b-1         0     2ᵇ: number of cells,
///   cell of position p: │ lap = p >> b     │  index       │     the capacity rounded up to a power of two
///
///   head ──► next pop   a cell of the lap before head's: the queue is empty
///   tail ──► next push  a cell of tail's lap: the index is pushed, but tail does not count it yet
/// ```
///
/// - A push takes effect when it replaces a cell of the previous lap by its own lap and index. Then it advances `tail`.
///   A thread that finds a new cell which `tail` does not count yet advances `tail` itself.
/// - A pop reads the cell, and takes effect when it advances `head`. The cell stays as it is. So a push must know that
///   `head` has passed the cell. `passed`, next to `tail`, is a position that `head` has certainly passed. It is
///   updated only if the queue looks full according to it.
///
/// # Limits
///
/// At most [`MAX_CAPACITY`](Self::MAX_CAPACITY) indices, 2²⁴. So a lap has at least 40 bits. A lap and the number of
/// its cell are together a 64-bit position, whatever the capacity. So a cell or a position repeats after 2⁶⁴ pushes:
/// after 584 years at one push per nanosecond. A thread would have to stop for exactly that long to be
/// mistaken.
///
/// # When not to use it
///
/// Values that are not indices: a [`Queue`](super::Queue) is faster, with one compare-and-swap for a push in place of two.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::IndexQueue;
/// use std::sync::Mutex;
///
/// // The buffers are never moved. The queue has the indices of free buffers.
/// let buffers: [Mutex<Vec<u8>>; 3] = Default::default();
/// let free = IndexQueue::try_with_capacity(buffers.len())?;
/// for index in 0..buffers.len() {
///     free.push(index).expect("each index once");
/// }
///
/// let index = free.pop().expect("a free buffer");
/// buffers[index].lock().unwrap().extend(b"hello");
/// free.push(index).expect("popped above");
/// assert_eq!(free.len(), 3);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct IndexQueue {
    tail: CachePadded<Tail>,
    /// The position of the next pop.
    head: CachePadded<AtomicU64>,
    /// # Invariants
    ///
    /// The length is a power of two, and not below the capacity.
    cells: Box<[AtomicU64]>,
    capacity: usize,
    switch: SwitchPoint,
    _charge: Option<Reservation>,
}

struct Tail {
    /// The position of the next push, or one below it: the last push may not be counted yet.
    position: AtomicU64,
    /// A position that `head` was at once.
    passed: AtomicU64,
}

/// The outcome of one attempt to push.
enum Attempt {
    /// The index is in the cell of this position. `tail` does not count it yet.
    Placed(u64),
    Full,
    Retry,
}

const COMPONENT: &str = "index queue";

impl IndexQueue {
    /// The largest capacity, 2²⁴.
    pub const MAX_CAPACITY: usize = 1 << 24;

    /// The bytes of one cell.
    pub const CELL_BYTES: usize = size_of::<AtomicU64>();

    /// Creates an empty queue for the indices `0..capacity`, of which it holds `capacity` at once; at least one. It has as
    /// many cells as the next power of two.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if `capacity` is above [`MAX_CAPACITY`](Self::MAX_CAPACITY), or if the heap is exhausted.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::IndexQueue;
    ///
    /// let queue = IndexQueue::try_with_capacity(3)?;
    /// assert_eq!(queue.capacity(), 3);
    /// assert!(IndexQueue::try_with_capacity(IndexQueue::MAX_CAPACITY + 1).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity(capacity: usize) -> Result<Self, AllocationError> {
        Self::planned(capacity, None)
    }

    /// Like [`try_with_capacity`](Self::try_with_capacity), and charges `budget` for the cells until the queue is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_with_capacity`](Self::try_with_capacity), and if the budget refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::IndexQueue};
    ///
    /// let budget = Budget::root("process").limit(2000).build()?;
    /// let queue = IndexQueue::try_with_capacity_in(100, &budget)?;
    /// assert_eq!(budget.usage().used, 128 * IndexQueue::CELL_BYTES);
    /// drop(queue);
    /// assert_eq!(budget.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity_in(capacity: usize, budget: &Budget) -> Result<Self, AllocationError> {
        Self::planned(capacity, Some(budget))
    }

    fn planned(capacity: usize, budget: Option<&Budget>) -> Result<Self, AllocationError> {
        let plan = Plan { component: COMPONENT, beside: 0, budget };
        if capacity > Self::MAX_CAPACITY {
            return Err(AllocationError::capacity_overflow(COMPONENT, capacity, Self::CELL_BYTES));
        }
        let len = plan.rounded::<AtomicU64>(capacity)?;
        // All cells are of lap 0, so the first position is that of lap 1.
        let first = len as u64;
        let (cells, charge) = plan.slots(len, |_| AtomicU64::new(0))?;
        let tail = Tail { position: AtomicU64::new(first), passed: AtomicU64::new(first) };
        Ok(Self {
            tail: CachePadded::new(tail),
            head: CachePadded::new(AtomicU64::new(first)),
            cells,
            capacity: capacity.max(1),
            switch: SwitchPoint::new(),
            _charge: charge,
        })
    }

    #[inline(always)]
    fn mask(&self) -> u64 {
        self.cells.len() as u64 - 1
    }

    /// Returns the cell that `position` uses.
    #[inline(always)]
    fn cell(&self, position: u64) -> &AtomicU64 {
        #[expect(clippy::cast_possible_truncation, reason = "the mask is shorter")]
        let at = position as usize & (self.cells.len() - 1);
        &self.cells[at]
    }

    /// Returns the lap of a position or of a cell, in its place within the 64 bits.
    #[inline(always)]
    fn lap(&self, word: u64) -> u64 {
        word & !self.mask()
    }

    /// Appends an index.
    ///
    /// # Errors
    ///
    /// [`Full`] with the index, if the queue has [`capacity`](Self::capacity) indices. That cannot happen if no index is
    /// in the queue twice.
    ///
    /// # Panics
    ///
    /// If the index is not below the capacity.
    ///
    /// # Complexity
    ///
    /// Two compare-and-swaps, unless other threads push at the same time.
    #[inline]
    pub fn push(&self, index: usize) -> Result<(), Full<usize>> {
        assert!(index < self.capacity, "index {index} of {}", self.capacity);
        loop {
            match self.place(index) {
                Attempt::Placed(position) => {
                    self.advance_tail(position);
                    return Ok(());
                }
                Attempt::Full => return Err(Full(index)),
                Attempt::Retry => {}
            }
        }
    }

    /// Makes one attempt to put `index` in the cell of the next position, up to the instant at which the push takes
    /// effect.
    #[inline(always)]
    fn place(&self, index: usize) -> Attempt {
        self.switch.here();
        // Acquire: pairs with the release of `advance_tail`, so that the cells of all earlier positions are seen.
        let tail = self.tail.position.load(Ordering::Acquire);
        let cell = self.cell(tail);
        // Acquire: pairs with the compare-and-swap below. A thread that sees the cell of a later lap sees a later `tail`
        // in its next attempt.
        let before = cell.load(Ordering::Acquire);
        if self.lap(before) == self.lap(tail) {
            self.advance_tail(tail);
            return Attempt::Retry;
        }
        if self.lap(before) != self.lap(tail).wrapping_sub(self.cells.len() as u64) {
            return Attempt::Retry; // Another thread was a lap ahead: `tail` is outdated.
        }
        // Acquire: pairs with the release below. What `passed` says has happened before the push takes effect.
        if self.is_behind(tail, self.tail.passed.load(Ordering::Acquire)) {
            // SeqCst: pairs with that of `pop`. All threads agree on one order of these operations, on all queues. So a
            // queue that is found full was full at that instant.
            self.switch.here();
            let head = self.head.load(TOTAL_LOAD);
            if self.is_behind(tail, head) {
                return Attempt::Full;
            }
            // A thread may store an older position over a newer one. Both were passed.
            // Release: pairs with the acquire above.
            self.tail.passed.store(head, Ordering::Release);
        }
        self.switch.here();
        let placed = self.lap(tail) | index as u64;
        // SeqCst: pairs with the load of the cell in `pop`, which sees what this thread did before; and as above.
        let swapped = cell.compare_exchange_weak(before, placed, TOTAL_SWAP, Ordering::Relaxed);
        match swapped {
            Ok(_) => Attempt::Placed(tail),
            Err(_) => Attempt::Retry,
        }
    }

    /// Returns whether the queue is full for a push at `tail`, if the next pop is at `head`. The next pop may be beyond an
    /// outdated `tail`.
    #[inline(always)]
    fn is_behind(&self, tail: u64, head: u64) -> bool {
        tail.wrapping_sub(head).cast_signed() >= self.capacity.cast_signed() as i64
    }

    /// Lets `tail` count the push at `position`. Does nothing if another thread has done so.
    #[inline(always)]
    fn advance_tail(&self, position: u64) {
        let next = position.wrapping_add(1);
        self.switch.here();
        // Release: pairs with the acquire of `place`.
        let _ = self.tail.position.compare_exchange(
            position,
            next,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    /// Removes and returns the oldest index. Returns `None` if the queue is empty.
    ///
    /// # Complexity
    ///
    /// One compare-and-swap, unless other threads pop at the same time.
    #[inline]
    pub fn pop(&self) -> Option<usize> {
        // Acquire: pairs with the compare-and-swap of `head` below, so that nothing found here is older than the pop
        // before. An outdated position is noticed.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            self.switch.here();
            // SeqCst: pairs with the compare-and-swap of `place`.
            let cell = self.cell(head).load(TOTAL_LOAD);
            if self.lap(cell) == self.lap(head) {
                let next = head.wrapping_add(1);
                self.switch.here();
                // SeqCst: pairs with the load of `head` in `place`. Acquire, in failure: as above.
                match self.head.compare_exchange_weak(head, next, TOTAL_SWAP, Ordering::Acquire) {
                    #[expect(clippy::cast_possible_truncation, reason = "it was a `usize`")]
                    Ok(_) => return Some((cell & self.mask()) as usize),
                    Err(now) => head = now,
                }
            } else if self.lap(cell) == self.lap(head).wrapping_sub(self.cells.len() as u64) {
                // Nothing was pushed at `head` by now, so `head` was not outdated.
                return None;
            } else {
                // Acquire: as above.
                head = self.head.load(Ordering::Acquire);
            }
        }
    }

    /// Returns the number of indices, as of one instant of the call. A push that is under way may count or not.
    #[must_use]
    pub fn len(&self) -> usize {
        // SeqCst: one order with the operations, for this and the next two loads.
        let mut tail = self.tail.position.load(TOTAL_LOAD);
        loop {
            let head = self.head.load(TOTAL_LOAD);
            let now = self.tail.position.load(TOTAL_LOAD);
            if now == tail {
                // `head` may be beyond a `tail` that does not count a push yet.
                let len = tail.wrapping_sub(head).cast_signed().max(0);
                return usize::try_from(len).map_or(self.capacity, |len| len.min(self.capacity));
            }
            tail = now;
        }
    }

    /// Returns whether the queue was empty at an instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        loop {
            let head = self.head.load(TOTAL_LOAD);
            // SeqCst: pairs with the compare-and-swap of `place`.
            let cell = self.cell(head).load(TOTAL_LOAD);
            if self.lap(cell) == self.lap(head) {
                // SeqCst: if no thread has popped since, the index at `head` was there.
                if self.head.load(TOTAL_LOAD) == head {
                    return false;
                }
            } else if self.lap(cell) == self.lap(head).wrapping_sub(self.cells.len() as u64) {
                return true;
            }
        }
    }

    /// Returns the most indices that the queue has at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }
}

impl fmt::Debug for IndexQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexQueue")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
