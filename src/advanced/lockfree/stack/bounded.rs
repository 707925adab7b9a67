//! A bounded stack for many threads.

use super::slot::Slot;
use crate::{
    advanced::{
        budget::{Budget, Reservation},
        lockfree::{
            Full,
            memory::Plan,
            tagged::{Head, Link, NONE, NUMBER_BITS},
        },
    },
    core::AllocationError,
};
use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr,
};
use crossbeam_utils::CachePadded;

/// A bounded last-in, first-out stack that many threads push to and pop from. It is lock-free: no stopped thread blocks
/// another one.
///
/// Use it for interchangeable values, such as idle buffers or connections. A pop returns the latest value, which is
/// probably still in the processor's cache. The stack's memory is allocated once.
///
/// # Progress
///
/// Lock-free: an attempt is repeated only after another thread's operation took effect. A single thread may be overtaken
/// without bound, so it is not wait-free. [`push`](Self::push), [`pop`](Self::pop) and [`is_empty`](Self::is_empty) do
/// not allocate, take a lock or call the kernel, so a signal handler may use them.
///
/// A push or a pop takes effect at one instant between its call and its return, and so does a batch. A pop returns nothing
/// only if the stack was empty at some instant of the call. A thread in the middle of an operation occupies one slot, or the
/// slots of its batch. So *a push may be refused while the stack has fewer values than its capacity*. If a thread stops for
/// ever in an operation, its slots are lost, and the others go on. All threads agree on the order of the operations on one
/// stack, but not on the order across several stacks.
///
/// # Algorithm
///
/// R. K. Treiber, *Systems Programming: Coping with Parallelism*, 1986, twice: a list of free slots and a list of filled
/// ones. A push takes a slot from the first, moves the value into it, and puts it on the second.
///
/// ```text
///   free    │ tag (40 bits) │ 4 │ ──► slot 4 ──► slot 1 ──► 0
///   filled  │ tag (40 bits) │ 2 │ ──► slot 2 ──► slot 5 ──► slot 3 ──► 0
///
///   slot    │ number of the slot below │ value │           slots are numbered from 1 on; 0 stands for none
/// ```
///
/// - The tag counts the slots or chains that were put on the list. So a thread that was overtaken does not mistake a slot
///   that left the list and came back (the ABA problem).
/// - A batch is a chain of slots. It leaves a list by one compare-and-swap, and enters the other by another, whatever
///   its length.
///
/// # Limits
///
/// At most [`MAX_CAPACITY`](Self::MAX_CAPACITY) values, 2²⁴ − 1. A thread is misled only if exactly 2⁴⁰ pushes or
/// pops happen while it is stopped in the middle of an operation; at one in 3 ns that takes 55 minutes. A slot has 4 bytes in addition to the
/// value, and padding. The stack does not count its values.
///
/// # When not to use it
///
/// - If values must leave in the order in which they came: a [`Queue`](super::super::Queue) is as fast.
/// - If many threads do little else than push and pop: all of them change one word, so more threads do not push more values.
/// - If mostly one thread uses it: a `Mutex<Vec<T>>` takes a quarter less time. It also takes half the time if two
///   threads pass batches.
/// - If there is no bound: see [`UnboundedStack`](super::UnboundedStack).
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, lockfree::Stack};
/// use std::thread;
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let buffers = Stack::<Vec<u8>>::try_with_capacity_in(4, &budget)?;
/// assert_eq!(budget.usage().used, 4 * Stack::<Vec<u8>>::SLOT_BYTES);
///
/// thread::scope(|scope| {
///     for _ in 0..2 {
///         scope.spawn(|| {
///             for line in ["a line", "another line"] {
///                 let mut buffer = buffers.pop().unwrap_or_default();
///                 buffer.clear();
///                 buffer.extend(line.as_bytes());
///                 // A buffer that finds no room is dropped.
///                 let _ = buffers.push(buffer);
///             }
///         });
///     }
/// });
/// assert!(buffers.pop().is_some_and(|buffer| buffer.ends_with(b"line")));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Stack<T> {
    filled: CachePadded<Head>,
    free: CachePadded<Head>,
    /// # Invariants
    ///
    /// Slot `n` has index `n - 1`, and links to a slot or to [`NONE`]. Each slot is in one list, or with the thread that
    /// took it out of one. The slots in `filled` have a value, the slots in `free` have none.
    slots: Box<[Slot<T>]>,
    /// Dropped last: the memory is freed before its bytes are released.
    _charge: Option<Reservation>,
}

// SAFETY: a value is moved in by one thread and out by another one, which needs `T: Send`. No two threads use a
// slot at once, as one of them takes it out of its list.
unsafe impl<T: Send> Send for Stack<T> {}
// SAFETY: as above. No `&T` is given out.
unsafe impl<T: Send> Sync for Stack<T> {}

// A panic in user code happens only outside of operations: the stack stays consistent.
impl<T> UnwindSafe for Stack<T> {}
impl<T> RefUnwindSafe for Stack<T> {}

const COMPONENT: &str = "stack";

/// Slots that were taken out of a list: `count` from `first` on, by their links.
struct Chain {
    first: u32,
    last: u32,
    count: usize,
}

impl<T> Stack<T> {
    /// The bytes of one slot: a value and the number of the slot below.
    pub const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// The largest capacity.
    pub const MAX_CAPACITY: usize = (1 << NUMBER_BITS) - 1;

    /// Creates an empty stack with room for `capacity` values, and for at least one. Linear in the capacity.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the capacity is larger than [`MAX_CAPACITY`](Self::MAX_CAPACITY), or if the slots do not fit
    /// the address space or the heap.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Stack;
    ///
    /// let stack = Stack::try_with_capacity(3)?;
    /// assert_eq!(stack.capacity(), 3);
    /// stack.push('a').expect("there is room");
    /// stack.push('b').expect("there is room");
    /// assert_eq!((stack.pop(), stack.pop(), stack.pop()), (Some('b'), Some('a'), None));
    ///
    /// let error = Stack::<u64>::try_with_capacity(1 << 24).unwrap_err();
    /// assert_eq!(error.code(), "MEM:ALLOC:CAPACITY_OVERFLOW");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity(capacity: usize) -> Result<Self, AllocationError> {
        Self::planned(capacity, None)
    }

    /// Like [`try_with_capacity`](Self::try_with_capacity), and charges `budget` for the slots until the stack is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_with_capacity`](Self::try_with_capacity), and if the budget refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::Stack};
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let error = Stack::<u64>::try_with_capacity_in(100, &budget).unwrap_err();
    /// assert_eq!(error.code(), "MEM:BUDGET:TOO_LARGE");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity_in(capacity: usize, budget: &Budget) -> Result<Self, AllocationError> {
        Self::planned(capacity, Some(budget))
    }

    fn planned(capacity: usize, budget: Option<&Budget>) -> Result<Self, AllocationError> {
        let capacity = capacity.max(1);
        if capacity > Self::MAX_CAPACITY {
            return Err(AllocationError::capacity_overflow(COMPONENT, capacity, Self::SLOT_BYTES));
        }
        let plan = Plan { component: COMPONENT, beside: 0, budget };
        #[expect(clippy::cast_possible_truncation, reason = "at most 2²⁴ slots")]
        let (slots, charge) = plan.slots(capacity, |at| Slot::new(at as u32))?;
        let empty = || CachePadded::new(Head::new());
        let stack = Self { filled: empty(), free: empty(), slots, _charge: charge };
        // Each slot is above the one before, so the last is the first of the list.
        #[expect(clippy::cast_possible_truncation, reason = "at most 2²⁴ slots")]
        stack.free.push(capacity as u32, stack.link(1));
        Ok(stack)
    }

    /// Returns the slot with a number that is not [`NONE`].
    #[inline(always)]
    fn slot(&self, number: u32) -> &Slot<T> {
        &self.slots[number as usize - 1]
    }

    #[inline(always)]
    fn link(&self, number: u32) -> &Link {
        &self.slot(number).below
    }

    /// Takes the first slot out of a list. From then on it is this thread's.
    #[inline(always)]
    fn take(&self, list: &Head) -> Option<u32> {
        list.pop(|number| (number, self.link(number)))
    }

    /// Takes at most `most` slots out of a list, at one instant.
    fn take_chain(&self, list: &Head, most: usize) -> Option<Chain> {
        let (mut first, mut last) = (NONE, NONE);
        let count = list.pop_chain(
            most,
            |number| Some(self.link(number)),
            |at, number| {
                if at == 0 {
                    first = number;
                }
                last = number;
            },
        );
        (count > 0).then_some(Chain { first, last, count })
    }

    /// Takes a free slot. The push takes effect by [`publish`](Self::publish).
    #[inline(always)]
    pub(super) fn claim(&self) -> Option<u32> {
        self.take(&self.free)
    }

    /// Puts a value into a slot, and the slot on the stack.
    ///
    /// # Safety
    ///
    /// The slot is from [`claim`](Self::claim), by this thread, and is published once.
    #[inline(always)]
    pub(super) unsafe fn publish(&self, number: u32, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.slot(number).fill(value) };
        self.filled.push(number, self.link(number));
    }

    /// Takes a filled slot off the stack: here a pop takes effect. The slot is this thread's until
    /// [`vacate`](Self::vacate).
    #[inline(always)]
    pub(super) fn remove(&self) -> Option<u32> {
        self.take(&self.filled)
    }

    /// Moves the value out of a slot, and frees the slot.
    ///
    /// # Safety
    ///
    /// The slot is from [`remove`](Self::remove), by this thread, and is vacated once.
    #[inline(always)]
    pub(super) unsafe fn vacate(&self, number: u32) -> T {
        // SAFETY: the caller's promise.
        let value = unsafe { self.slot(number).take() };
        self.free.push(number, self.link(number));
        value
    }

    /// Puts a value on top.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, if no slot is free: each has a value or is used by a thread in the middle of an operation.
    ///
    /// # Complexity
    ///
    /// Constant, and two compare-and-swaps unless other threads use the stack at the same time.
    #[inline]
    pub fn push(&self, value: T) -> Result<(), Full<T>> {
        let Some(number) = self.claim() else { return Err(Full(value)) };
        // SAFETY: claimed just now.
        unsafe { self.publish(number, value) };
        Ok(())
    }

    /// Removes and returns the value on top, the latest. Returns `None` if the stack is empty.
    ///
    /// # Complexity
    ///
    /// Constant, and two compare-and-swaps unless other threads use the stack at the same time.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let number = self.remove()?;
        // SAFETY: removed just now.
        Some(unsafe { self.vacate(number) })
    }

    /// Moves values from the front of `values` onto the stack until no slot is free, and returns their number. The others stay
    /// in the vector. Zero means that no slot is free, unless `values` is empty.
    ///
    /// The values come onto the stack at one instant, the first one lowest, as if they were pushed one by one.
    ///
    /// # Complexity
    ///
    /// Two compare-and-swaps, and a move of each value. Each operation of another thread in the meantime repeats the
    /// walk along the free slots. Values that stay are moved to the front of the vector.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Stack;
    ///
    /// let stack = Stack::try_with_capacity(4)?;
    /// let mut lines = vec!["a", "b", "c", "d", "e"];
    /// assert_eq!(stack.push_many(&mut lines), 4);
    /// assert_eq!(lines, ["e"]);
    ///
    /// let mut batch = Vec::new();
    /// assert_eq!(stack.pop_many(&mut batch, 3), 3);
    /// assert_eq!(batch, ["d", "c", "b"]);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn push_many(&self, values: &mut Vec<T>) -> usize {
        let len = values.len();
        let Some(Chain { first, last, count }) = self.take_chain(&self.free, len) else { return 0 };
        // From here to the end nothing panics. Until the rest is moved down the vector owns nothing.
        // SAFETY: zero elements are initialised.
        unsafe { values.set_len(0) };
        let from = values.as_mut_ptr();
        let mut number = first;
        for at in (0..count).rev() {
            // SAFETY: the chain is no longer than the vector was.
            let value = unsafe { from.add(at) };
            // SAFETY: the vector owned the value, and it does no longer. It is read once.
            let value = unsafe { value.read() };
            let slot = self.slot(number);
            // SAFETY: `take_chain` took the slot out of the free ones.
            unsafe { slot.fill(value) };
            number = slot.next();
        }
        self.filled.push(first, self.link(last));
        // SAFETY: the chain is no longer than the vector was.
        let rest = unsafe { from.add(count) };
        // SAFETY: both are in the vector's memory, and the rest was initialised.
        unsafe { ptr::copy(rest, from, len - count) };
        // SAFETY: so many values were moved to the front.
        unsafe { values.set_len(len - count) };
        count
    }

    /// Moves at most `most` values from the top to the end of `values`, the latest first, and returns their number. Zero
    /// means that the stack is empty, unless `most` is zero.
    ///
    /// The values leave the stack at one instant.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`], which is called before a value is removed. Nothing is allocated if `values` has room for `most` more.
    ///
    /// # Complexity
    ///
    /// Two compare-and-swaps, and a move of each value. Each operation of another thread in the meantime repeats the
    /// walk along the slots.
    pub fn pop_many(&self, values: &mut Vec<T>, most: usize) -> usize {
        let most = most.min(self.capacity());
        if values.capacity() - values.len() < most {
            values.reserve(self.filled.count(most, |number| self.link(number)));
        }
        // If the stack was empty just now, nothing was reserved. Values may have come since.
        let most = most.min(values.capacity() - values.len());
        let Some(Chain { first, last, count }) = self.take_chain(&self.filled, most) else {
            return 0;
        };
        // From here to the end nothing panics.
        let len = values.len();
        // SAFETY: the length is within the vector's memory.
        let to = unsafe { values.as_mut_ptr().add(len) };
        let mut number = first;
        for at in 0..count {
            let slot = self.slot(number);
            // SAFETY: `take_chain` took the slot out of the filled ones. It is emptied once.
            let value = unsafe { slot.take() };
            // SAFETY: the chain is no longer than the vector's free memory.
            let to = unsafe { to.add(at) };
            // SAFETY: as above.
            unsafe { to.write(value) };
            number = slot.next();
        }
        self.free.push(first, self.link(last));
        // SAFETY: so many values were written behind the others.
        unsafe { values.set_len(len + count) };
        count
    }

    /// Returns whether the stack was empty a moment ago.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Returns the most values that the stack has at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Checks that no slot of a stack that no thread is using is in two lists. A slot may be in none, as a thread may have
    /// stopped with it. Returns the number of values.
    #[cfg(test)]
    pub(super) fn validate(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let counts = [&self.filled, &self.free].map(|list| {
            let numbers: Vec<_> = core::iter::from_fn(|| self.take(list)).collect();
            for number in numbers.iter().rev() {
                assert!(seen.insert(*number), "slot {number} is in two places");
                list.push(*number, self.link(*number));
            }
            numbers.len()
        });
        assert!(counts[0] + counts[1] <= self.capacity());
        counts[0]
    }
}

impl<T> Drop for Stack<T> {
    /// Drops the remaining values. If a drop panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, T>(&'a Stack<T>);
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

impl<T> fmt::Debug for Stack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("is_empty", &self.is_empty())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
