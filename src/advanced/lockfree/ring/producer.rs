use super::raw::{CONSUMER, PRODUCER, Region, Shared};
use crate::{advanced::lockfree::Full, utils::sync::Ordering};
use alloc::sync::Arc;
use core::{cell::Cell, fmt, mem::MaybeUninit};

/// The end of a [ring](super::ring()) that values are pushed to.
///
/// When the consumer is dropped, [`is_closed`](Self::is_closed) is `true`. Pushes then still succeed until the ring is
/// full; the values are dropped with the ring.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::{Full, ring};
///
/// let (mut producer, consumer) = ring(2);
/// assert_eq!(producer.push_slice(&[1, 2, 3]), 2);
/// assert_eq!(producer.push(3), Err(Full(3)));
/// drop(consumer);
/// assert!(producer.is_closed(), "nobody will pop the values");
/// ```
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    region: Region<T>,
    /// # Invariants
    ///
    /// The ring's `tail`, which only this end changes.
    tail: usize,
    /// # Invariants
    ///
    /// A value of the ring's `head`, read with acquire ordering.
    seen_head: Cell<usize>,
}

// SAFETY: the region points to the slots of `shared`, which is `Send` and `Sync` if `T` is `Send`. There is one producer.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T> Producer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        let region = shared.region();
        Self { shared, region, tail: 0, seen_head: Cell::new(0) }
    }

    /// Returns the vacant slots, as of the last `head` that was seen.
    #[inline(always)]
    fn seen_vacant(&self) -> usize {
        self.capacity() - self.tail.wrapping_sub(self.seen_head.get())
    }

    /// Reads `head`, and returns the vacant slots.
    #[inline]
    fn vacant(&self) -> usize {
        // Acquire: pairs with the release of the consumer's `advance`: its values were moved out before they are
        // overwritten.
        self.seen_head.set(self.shared.head.load(Ordering::Acquire));
        self.seen_vacant()
    }

    /// Returns at least `wanted` vacant slots if there are so many, and otherwise all.
    #[inline(always)]
    fn vacant_for(&self, wanted: usize) -> usize {
        let seen = self.seen_vacant();
        if seen >= wanted { seen } else { self.vacant() }
    }

    /// Publishes `count` values.
    #[inline(always)]
    fn advance(&mut self, count: usize) {
        self.tail = self.tail.wrapping_add(count);
        // Release: pairs with the acquire of the consumer: it sees the values.
        self.shared.tail.store(self.tail, Ordering::Release);
    }

    /// Appends a value.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, if the ring is full.
    ///
    /// # Complexity
    ///
    /// Constant; wait-free.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), Full<T>> {
        if self.vacant_for(1) == 0 {
            return Err(Full(value));
        }
        self.shared.touch(self.tail, 1);
        // SAFETY: `shared` keeps the ring alive.
        let slot = unsafe { self.region.slot(self.tail) };
        // SAFETY: the slot at `tail` is vacant, so it is the producer's (the ring's invariants).
        unsafe { slot.write(MaybeUninit::new(value)) };
        self.advance(1);
        Ok(())
    }

    /// Appends as many of the values as there is room for, from the front, and returns their number.
    ///
    /// # Complexity
    ///
    /// At most two copies, and one atomic store.
    pub fn push_slice(&mut self, values: &[T]) -> usize
    where
        T: Copy,
    {
        let count = self.vacant_for(values.len()).min(values.len());
        let (first, second) = self.spare_parts(count);
        let (to_first, to_second) = values[..count].split_at(first.len());
        write_slice(first, to_first);
        write_slice(second, to_second);
        self.advance(count);
        count
    }

    /// Returns the vacant slots, in the order in which values will be popped from them. Write values to the first of them,
    /// and [`commit`](Self::commit) their number. The second part is empty unless the vacant slots go beyond the end of
    /// the ring's memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::ring;
    ///
    /// let (mut producer, mut consumer) = ring::<u32>(8);
    /// let (first, _) = producer.spare();
    /// for (slot, value) in first.iter_mut().zip([1, 2, 3]) {
    ///     slot.write(value);
    /// }
    /// // SAFETY: the first three slots were written.
    /// unsafe { producer.commit(3) };
    /// assert_eq!(consumer.peek(), (&[1, 2, 3][..], &[][..]));
    /// ```
    pub fn spare(&mut self) -> (&mut [MaybeUninit<T>], &mut [MaybeUninit<T>]) {
        let count = self.vacant();
        self.spare_parts(count)
    }

    /// Returns the first `count` slots that are vacant.
    #[inline]
    fn spare_parts(&mut self, count: usize) -> (&mut [MaybeUninit<T>], &mut [MaybeUninit<T>]) {
        assert!(count <= self.seen_vacant());
        self.shared.touch(self.tail, count);
        // SAFETY: `shared` keeps the ring alive; there are no more vacant slots than slots.
        let (mut first, mut second) = unsafe { self.region.parts(self.tail, count) };
        // SAFETY: the slots are vacant, so they are the producer's, which stays borrowed.
        let first = unsafe { first.as_mut() };
        // SAFETY: as above, and the parts do not overlap.
        let second = unsafe { second.as_mut() };
        (first, second)
    }

    /// Appends the values in the first `count` slots of [`spare`](Self::spare).
    ///
    /// # Panics
    ///
    /// If there are fewer vacant slots.
    ///
    /// # Safety
    ///
    /// The first `count` slots that `spare` returned were initialised since the last push or commit.
    pub unsafe fn commit(&mut self, count: usize) {
        let vacant = self.vacant_for(count);
        assert!(count <= vacant, "{count} values in {vacant} vacant slots");
        self.advance(count);
    }

    /// Returns the number of values in the ring. The consumer may be about to pop some.
    #[must_use]
    pub fn len(&self) -> usize {
        self.capacity() - self.vacant()
    }

    /// Returns whether the ring was empty at an instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether a push fails now, unless the consumer pops.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.vacant_for(1) == 0
    }

    /// Returns the most values that the ring has at once.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.region.capacity()
    }

    /// Returns whether the consumer was dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed(CONSUMER)
    }
}

/// Copies values to as many slots.
#[inline(always)]
fn write_slice<T: Copy>(slots: &mut [MaybeUninit<T>], values: &[T]) {
    assert_eq!(slots.len(), values.len());
    let to = slots.as_mut_ptr().cast::<T>();
    // SAFETY: both have the same length. The slots are borrowed uniquely, so they do not overlap.
    unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.close(PRODUCER);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
