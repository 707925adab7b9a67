use super::raw::{CONSUMER, PRODUCER, Region, Shared, values};
use crate::utils::sync::Ordering;
use alloc::sync::Arc;
use core::{cell::Cell, fmt};

/// The end of a [ring](super::ring()) that values are popped from.
///
/// When the producer is dropped, [`is_closed`](Self::is_closed) is `true`. The values that it pushed can still be popped.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::ring;
///
/// let (mut producer, mut consumer) = ring(4);
/// producer.push("last").expect("there is room");
/// drop(producer);
/// assert!(consumer.is_closed());
/// assert_eq!((consumer.pop(), consumer.pop()), (Some("last"), None));
/// ```
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    region: Region<T>,
    /// # Invariants
    ///
    /// The ring's `head`, which only this end changes.
    head: usize,
    /// # Invariants
    ///
    /// A value of the ring's `tail`, read with acquire ordering.
    seen_tail: Cell<usize>,
}

// SAFETY: the region points to the slots of `shared`, which is `Send` and `Sync` if `T` is `Send`. There is one consumer,
// and it is not `Sync`, so its `peek` gives no `&T` to two threads.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T> Consumer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        let region = shared.region();
        Self { shared, region, head: 0, seen_tail: Cell::new(0) }
    }

    /// Returns the number of values, as of the last `tail` that was seen.
    #[inline(always)]
    fn seen_len(&self) -> usize {
        self.seen_tail.get().wrapping_sub(self.head)
    }

    /// Returns at least `wanted` values if there are so many, and otherwise all.
    #[inline(always)]
    fn len_for(&self, wanted: usize) -> usize {
        let seen = self.seen_len();
        if seen >= wanted { seen } else { self.len() }
    }

    /// Gives `count` slots back to the producer.
    #[inline(always)]
    fn advance(&mut self, count: usize) {
        self.head = self.head.wrapping_add(count);
        // Release: pairs with the acquire of the producer: it overwrites the slots after their values were moved out.
        self.shared.head.store(self.head, Ordering::Release);
    }

    /// Removes and returns the oldest value. Returns `None` if the ring is empty.
    ///
    /// # Complexity
    ///
    /// Constant; wait-free.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.len_for(1) == 0 {
            return None;
        }
        self.shared.touch(self.head, 1);
        // SAFETY: `shared` keeps the ring alive.
        let slot = unsafe { self.region.slot(self.head) };
        // SAFETY: the slot at `head` is below `tail`, so it is the consumer's (the ring's invariants).
        let value = unsafe { slot.read() };
        self.advance(1);
        // SAFETY: the slot was initialised (the same invariants). The value is read once, as `head` is beyond it.
        Some(unsafe { value.assume_init() })
    }

    /// Moves the oldest values into `to`, as many as it has room for, and returns their number.
    ///
    /// # Complexity
    ///
    /// At most two copies, and one atomic store.
    pub fn pop_slice(&mut self, to: &mut [T]) -> usize
    where
        T: Copy,
    {
        let count = self.len_for(to.len()).min(to.len());
        let (first, second) = self.values(count);
        let (to_first, to_second) = to[..count].split_at_mut(first.len());
        to_first.copy_from_slice(first);
        to_second.copy_from_slice(second);
        self.advance(count);
        count
    }

    /// Returns all values, the oldest first, without removing them. The second part is empty unless the values go beyond
    /// the end of the ring's memory. [`consume`](Self::consume) removes values.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::ring;
    ///
    /// let (mut producer, mut consumer) = ring(16);
    /// producer.push_slice(b"first\nsecond");
    /// let (bytes, _) = consumer.peek();
    /// let end = bytes.iter().position(|&byte| byte == b'\n').expect("a whole line");
    /// assert_eq!(&bytes[..end], b"first");
    /// consumer.consume(end + 1);
    /// assert_eq!(consumer.len(), 6);
    /// ```
    #[must_use]
    pub fn peek(&self) -> (&[T], &[T]) {
        let count = self.len();
        self.values(count)
    }

    /// Returns the first `count` values.
    #[inline]
    fn values(&self, count: usize) -> (&[T], &[T]) {
        assert!(count <= self.seen_len());
        self.shared.touch(self.head, count);
        // SAFETY: `shared` keeps the ring alive; there are no more values than slots.
        let (first, second) = unsafe { self.region.parts(self.head, count) };
        // SAFETY: the slots are initialised and the consumer's (the ring's invariants). It stays borrowed, so no value is
        // moved out.
        let first = unsafe { values(first).as_ref() };
        // SAFETY: as above.
        let second = unsafe { values(second).as_ref() };
        (first, second)
    }

    /// Removes and drops the `count` oldest values. If a drop panics, all of them are still dropped and removed.
    ///
    /// # Panics
    ///
    /// If there are fewer values.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::ring;
    ///
    /// let (mut producer, mut consumer) = ring::<String>(4);
    /// for name in ["a", "b", "c"] {
    ///     producer.push(name.to_owned()).expect("there is room");
    /// }
    /// consumer.consume(2);
    /// assert_eq!(consumer.pop().as_deref(), Some("c"));
    /// ```
    pub fn consume(&mut self, count: usize) {
        /// Gives the slots back after the values were dropped, also if a drop unwinds.
        struct Consumed<'a, T>(&'a mut Consumer<T>, usize);
        impl<T> Drop for Consumed<'_, T> {
            fn drop(&mut self) {
                self.0.advance(self.1);
            }
        }
        let len = self.len_for(count);
        assert!(count <= len, "{count} of {len} values");
        let consumed = Consumed(self, count);
        let consumer = &*consumed.0;
        // SAFETY: 1. the region is this ring's, and there are no more values than slots. 2. The slots are initialised and
        // the consumer's. `consumed` makes them vacant, also if a drop unwinds.
        unsafe { consumer.shared.drop_values(consumer.region, consumer.head, count) };
    }

    /// Returns the number of values in the ring. The producer may be about to push more.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        // Acquire: pairs with the release of the producer's `advance`: its values are seen.
        self.seen_tail.set(self.shared.tail.load(Ordering::Acquire));
        self.seen_len()
    }

    /// Returns whether a pop fails now, unless the producer pushes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len_for(1) == 0
    }

    /// Returns the most values that the ring has at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.region.capacity()
    }

    /// Returns whether the producer was dropped. If so, all values that it pushed can be popped: `None` from a
    /// [`pop`](Self::pop) after this is the end.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed(PRODUCER)
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.close(CONSUMER);
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
