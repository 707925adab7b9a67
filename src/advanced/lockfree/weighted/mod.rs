//! A queue that is bounded by the weight of its values.
#![forbid(unsafe_code)]

mod error;
mod options;
mod pop;
#[cfg(all(test, shuttle))]
mod shuttle_tests;

pub use self::{error::PushError, options::WeightedQueueOptions};

use self::{error::Cause, pop::Pop};
use super::Queue;
use crate::{
    advanced::budget::{Budget, Permits, Reservation, Reserve, block_on},
    core::Usage,
    utils::{
        sync::{AtomicU32, Ordering, yield_now},
        wakers::{AWAITED, Wakers},
    },
};
use core::{fmt, future::Future, mem, pin::pin, task::Poll, time::Duration};
use std::{boxed::Box, time::Instant};

/// A first-in, first-out queue for many threads and tasks, bounded by bytes as well as by count. Pushes wait for room,
/// and pops for values.
///
/// Use it between the stages of a service where a value owns heap memory: a thousand requests may have a thousand bytes
/// or a thousand megabytes. A function, the *weigher*, returns the bytes that a value owns. They are reserved on the
/// queue's own [`Budget`] from before the push until after the pop.
///
/// # Waiting
///
/// A push that does not fit waits in the [ledger's](crate::budget#waiting) queues, first for a slot and then for its
/// bytes. So higher priorities go first, managers are asked to release memory, and the wait ends when the
/// [context](crate::Context) is cancelled, or after the root's
/// [`default_timeout`](crate::budget::BudgetBuilder::default_timeout), which is 30 s unless it is set. While a large value
/// waits for bytes, smaller ones may overtake it for 10 ms.
///
/// A pop waits until there is a value. Of several waiting pops, the first is woken. Threads and tasks of any runtime
/// wait in one queue. A pop that is dropped loses no value and no wake-up. A push that is dropped returns its room, and
/// drops its value.
///
/// # Cost
///
/// A push and a pop together take 24 ns where nobody waits: the ledger reserves and releases the bytes and a slot. The
/// memory of the slots is allocated when the queue is built, and charged to the budget.
///
/// # Progress
///
/// Blocking: the ledger has locks. Weighers and drops run outside of them.
///
/// # When not to use it
///
/// For values that own no memory, or whose number alone is to be bounded: a [`Queue`] takes a quarter of the time.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, lockfree::WeightedQueue};
/// use std::thread;
///
/// let process = Budget::root("process").limit(1 << 20).build()?;
/// let pages: WeightedQueue<Vec<u8>> = WeightedQueue::options("pages")
///     .budget(&process)
///     .capacity(1000)
///     .max_bytes(4096)
///     .weigher(Vec::capacity)
///     .build()?;
///
/// pages.try_push(vec![0; 3000]).expect("there is room");
/// let error = pages.try_push(vec![0; 2000]).unwrap_err();
/// assert_eq!(error.value.len(), 2000); // nothing is lost
///
/// thread::scope(|scope| {
///     // Waits until the first page has been popped.
///     let producer = scope.spawn(|| pages.push_blocking(error.value));
///     assert_eq!(pages.pop_blocking().map(|page| page.len()), Some(3000));
///     producer.join().unwrap().expect("there is room now");
/// });
/// pages.close();
/// assert_eq!(pages.pop_blocking().map(|page| page.len()), Some(2000));
/// assert_eq!(pages.pop_blocking(), None);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct WeightedQueue<T> {
    queue: Queue<Item<T>>,
    /// One for each value in the queue, and for each push that has a slot.
    slots: Permits,
    weigher: Weigher<T>,
    /// Pops that wait.
    pops: Wakers,
    /// [`AWAITED`] and [`CLOSED`].
    flags: AtomicU32,
    budget: Budget,
}

type Weigher<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;

const CLOSED: u32 = 1;

struct Item<T> {
    value: T,
    bytes: Reservation,
}

/// The room for one value: a slot, which is given back when this is dropped, and the bytes.
struct Room<'q> {
    slot: Slot<'q>,
    bytes: Reservation,
}

struct Slot<'q>(&'q Permits);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

impl<T> WeightedQueue<T> {
    /// Returns options for a queue; `name` is the name of its node on the ledger.
    pub fn options(name: &str) -> WeightedQueueOptions<T> {
        WeightedQueueOptions::new(name)
    }

    /// Appends a value if there is room now.
    ///
    /// # Errors
    ///
    /// [`PushError`] with the value.
    pub fn try_push(&self, value: T) -> Result<(), PushError<T>> {
        let weight = (self.weigher)(&value);
        match self.try_room(weight) {
            Ok(room) => {
                self.put(room, value);
                Ok(())
            }
            Err(cause) => Err(cause.of(value)),
        }
    }

    /// Appends a value, and waits until there is room. If the future is dropped before it is ready, the value is dropped.
    ///
    /// # Errors
    ///
    /// [`PushError`] with the value, if the wait ends without room, if the value is heavier than can ever fit, or if the
    /// queue is closed.
    pub async fn push(&self, value: T) -> Result<(), PushError<T>> {
        let weight = (self.weigher)(&value);
        match self.room(weight).await {
            Ok(room) => {
                self.put(room, value);
                Ok(())
            }
            Err(cause) => Err(cause.of(value)),
        }
    }

    /// Like [`push`](Self::push), but blocks this thread.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_blocking(&self, value: T) -> Result<(), PushError<T>> {
        let mut push = pin!(self.push(value));
        block_on(&self.budget, None, |context| push.as_mut().poll(context))
    }

    fn try_room(&self, weight: usize) -> Result<Room<'_>, Cause> {
        self.slots.try_take(1).map_err(Cause::Slot)?;
        let slot = Slot(&self.slots);
        let bytes = self.budget.try_reserve(weight).map_err(Cause::Bytes)?;
        Ok(Room { slot, bytes })
    }

    async fn room(&self, weight: usize) -> Result<Room<'_>, Cause> {
        match self.try_room(weight) {
            Err(cause) if cause.may_pass() => {}
            now => return now,
        }
        let timeout = self.budget.default_timeout();
        let until = timeout.and_then(|timeout| self.budget.now().checked_add(timeout));
        let within = |reserve: Reserve| match until {
            Some(until) => reserve.deadline(until),
            None => reserve.no_timeout(),
        };
        let slot = within(self.slots.take(1, &self.budget)).await.map_err(Cause::Slot)?;
        Permits::adopt(slot);
        let slot = Slot(&self.slots);
        // Pops release bytes, and the ledger does not know who pops.
        let bytes = within(self.budget.reserve(weight).not_the_only_way());
        Ok(Room { slot, bytes: bytes.await.map_err(Cause::Bytes)? })
    }

    fn put(&self, Room { slot, bytes }: Room<'_>, value: T) {
        let mut item = Item { value, bytes };
        // The first attempt succeeds: there are as many slots as permits, or more.
        while let Err(full) = self.queue.push(item) {
            item = full.0;
            yield_now();
        }
        // It is the item's from here on.
        mem::forget(slot);
        // SeqCst: the push and this load come before or after the registration of a pop and its second look at the queue. So
        // one of the two sees the other.
        if self.flags.load(Ordering::SeqCst) & AWAITED != 0 {
            self.pops.wake_one(&self.flags);
        }
    }

    /// Removes and returns the oldest value. `None` if there is none now.
    pub fn try_pop(&self) -> Option<T> {
        let Item { value, bytes } = self.queue.pop()?;
        // The bytes first: the next push looks for them after it has a slot.
        drop(bytes);
        self.slots.give(1);
        Some(value)
    }

    /// Removes and returns the oldest value, and waits until there is one. `None` once the queue is closed and has no
    /// more values.
    pub async fn pop(&self) -> Option<T> {
        Pop::new(self).await
    }

    /// Like [`pop`](Self::pop), but blocks this thread.
    pub fn pop_blocking(&self) -> Option<T> {
        self.pop_until(None)
    }

    /// Like [`pop_blocking`](Self::pop_blocking), but waits at most for `timeout`. `None` also if there was no value in
    /// this time.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::WeightedQueue;
    /// use std::time::Duration;
    ///
    /// let queue: WeightedQueue<String> =
    ///     WeightedQueue::options("lines").weigher(String::capacity).build()?;
    /// assert_eq!(queue.pop_timeout(Duration::from_millis(5)), None);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn pop_timeout(&self, timeout: Duration) -> Option<T> {
        self.pop_until(self.budget.now().checked_add(timeout))
    }

    fn pop_until(&self, until: Option<Instant>) -> Option<T> {
        let mut pop = pin!(Pop::new(self));
        block_on(&self.budget, until, |context| {
            let polled = pop.as_mut().poll(context);
            let is_late = until.is_some_and(|until| self.budget.now() >= until);
            if polled.is_pending() && is_late { Poll::Ready(None) } else { polled }
        })
    }

    /// Refuses all pushes from now on, and ends all waits for room. The values in the queue can still be popped. A
    /// value whose push ends at the same time may come after them.
    pub fn close(&self) {
        self.flags.fetch_or(CLOSED, Ordering::SeqCst);
        self.slots.close();
        self.budget.close();
        self.pops.wake_all(&self.flags);
    }

    /// Returns whether the queue was [closed](Self::close).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Returns the number of values, as of one instant of the call.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns whether there were no values at one instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the largest number of values.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.most()
    }

    /// Returns the number of pushes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.slots.waiting() + self.budget.waiting()
    }

    /// Returns the bytes of the values, and of the pushes that have their bytes and are about to end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }
}

impl<T> Drop for WeightedQueue<T> {
    fn drop(&mut self) {
        // The values are dropped with the queue, and their bytes with them.
        self.slots.give(self.queue.len());
    }
}

impl<T> fmt::Debug for WeightedQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedQueue")
            .field("budget", &self.budget.name())
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
