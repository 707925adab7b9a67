//! A bounded queue for one producer and one consumer.

mod consumer;
mod producer;
mod raw;

pub use self::{consumer::Consumer, producer::Producer};

use self::raw::Shared;
use crate::{advanced::budget::Budget, core::AllocationError};

/// Creates a bounded first-in, first-out queue for one producer and one consumer. Each end can be sent to a thread of
/// its own.
///
/// # Progress
///
/// Wait-free: a push or a pop is a bounded number of steps, whatever the other end does. There is no
/// read-modify-write: one atomic store, and an atomic load only if the ring looks full or empty.
///
/// # Algorithm
///
/// L. Lamport, *Specifying Concurrent Program Modules*, 1983, with the cached opposite indices of P. Lee, T. Bu and
/// G. Chandranmenon, *A Lock-Free, Cache-Efficient Multi-Core Synchronization Mechanism for Line-Rate Network Traffic
/// Monitoring* (`MCRingBuffer`), IPDPS 2010.
///
/// ```text
///             head              tail
///              │                 │
///  ┌───────┬───▼───┬───────┬─────▼─┬───────┐
///  │ spare │ value │ value │ spare │ spare │    position p uses slot p modulo the number of slots
///  └───────┴───────┴───────┴───────┴───────┘
///  consumer: head, and the last tail that it saw     producer: tail, and the last head that it saw
/// ```
///
/// `head` and `tail` are word-sized counts of all pops and pushes, which may wrap around. Each is on a cache line of its
/// own. An end reads the count of the other end only if the ring looks full or empty by the count that it read last.
///
/// # Limits
///
/// The capacity is rounded up to a power of two, and is at least one. There is no wake-up: an end that finds the ring full
/// or empty does something else, and comes back.
///
/// # When not to use it
///
/// Several producers or consumers: use a [`Queue`](super::Queue). It costs more than a ring, but less than a ring
/// behind a lock.
///
/// # Panics
///
/// If the slots cannot be allocated; see [`try_ring`].
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::ring;
/// use std::{hint, thread};
///
/// let (mut samples, mut inbox) = ring::<u64>(64);
/// let sum = thread::scope(|scope| {
///     scope.spawn(move || {
///         for sample in 1..=1000 {
///             while samples.push(sample).is_err() {
///                 thread::yield_now();
///             }
///         } // The producer is dropped here: the ring is closed.
///     });
///     let mut sum = 0;
///     loop {
///         let is_closed = inbox.is_closed();
///         match inbox.pop() {
///             Some(sample) => sum += sample,
///             None if is_closed => return sum,
///             None => thread::yield_now(),
///         }
///     }
/// });
/// assert_eq!(sum, 500_500);
/// ```
#[must_use]
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    match try_ring(capacity) {
        Ok(ends) => ends,
        Err(error) => panic!("{error}"),
    }
}

/// Like [`ring()`], and returns an error if the slots cannot be allocated.
///
/// # Errors
///
/// [`AllocationError`] if the slots do not fit the address space or the heap.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::try_ring;
///
/// let (mut producer, mut consumer) = try_ring(3)?;
/// assert_eq!(producer.capacity(), 4);
/// assert_eq!(producer.push_slice(b"hello"), 4);
/// let mut text = [0; 8];
/// let len = consumer.pop_slice(&mut text);
/// assert_eq!(&text[..len], b"hell");
/// assert!(try_ring::<u64>(usize::MAX).is_err());
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub fn try_ring<T>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), AllocationError> {
    Shared::new(capacity, None).map(ends)
}

/// Like [`try_ring`], and charges `budget` for the ring until both ends are dropped.
///
/// # Errors
///
/// As [`try_ring`], and if the budget refuses.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, lockfree::try_ring_in};
///
/// let budget = Budget::root("process").limit(64 << 10).build()?;
/// let (producer, consumer) = try_ring_in::<u64>(1024, &budget)?;
/// assert!((1024 * 8..1024 * 8 + 1024).contains(&budget.usage().used));
/// drop((producer, consumer));
/// assert_eq!(budget.usage().used, 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub fn try_ring_in<T>(
    capacity: usize,
    budget: &Budget,
) -> Result<(Producer<T>, Consumer<T>), AllocationError> {
    Shared::new(capacity, Some(budget)).map(ends)
}

fn ends<T>(shared: alloc::sync::Arc<Shared<T>>) -> (Producer<T>, Consumer<T>) {
    (Producer::new(alloc::sync::Arc::clone(&shared)), Consumer::new(shared))
}
