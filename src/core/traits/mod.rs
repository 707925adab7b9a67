//! The three contracts between the ledger and whatever holds memory.
//!
//! ```text
//!            charge / release                   reclaim(ticket)
//! component ───────────────────► budget node ───────────────────► MemoryManager
//!                                     ▲                                │
//!                                     └──────── release ◄──────────────┘
//! ```
//!
//! Implement [`MemoryUsage`] for anything that can say what it holds, [`MemoryManager`] for what
//! can also give some of it back, and [`Resettable`] for what can be emptied and used again. All
//! three are object-safe.

#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
pub(crate) mod reclaiming;
mod ticket;

#[cfg(feature = "std")]
pub(crate) use self::clock::Clock;
#[cfg(feature = "std")]
pub use self::clock::ManualClock;
pub use self::ticket::ReclaimTicket;
#[cfg(feature = "std")]
pub use self::ticket::{EmergencyReserve, ReclaimHelper, Scratch};

use crate::core::{
    error::ReclaimFailure,
    types::{ReclaimClass, Usage},
};
use core::fmt;

/// A component that can say what it holds.
///
/// Every figure is in bytes, is read without waiting, and may be a moment old.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::MemoryUsage;
///
/// struct Table { rows: Vec<u64>, peak: usize }
///
/// impl MemoryUsage for Table {
///     fn used_bytes(&self) -> usize { self.rows.capacity() * size_of::<u64>() }
///     fn peak_bytes(&self) -> usize { self.peak.max(self.used_bytes()) }
///     fn capacity_bytes(&self) -> Option<usize> { None }
/// }
///
/// let table = Table { rows: Vec::with_capacity(4), peak: 0 };
/// assert_eq!(table.usage().used, 32);
/// ```
pub trait MemoryUsage {
    /// Bytes held now.
    fn used_bytes(&self) -> usize;

    /// The most bytes ever held at once; never less than [`used_bytes`](Self::used_bytes) was.
    fn peak_bytes(&self) -> usize;

    /// The most bytes that may be held, or `None` where only the budget above is a bound.
    fn capacity_bytes(&self) -> Option<usize>;

    /// All figures in one value. Override it where refusals and reclaimed bytes are counted too.
    fn usage(&self) -> Usage {
        Usage::new(self.used_bytes(), self.peak_bytes(), self.capacity_bytes())
    }
}

/// A component that holds memory and can give some back: a cache, a pool, a recycler of arenas.
///
/// The ledger keeps a weak reference to each registered manager. When a reservation does not fit it
/// asks the managers below the node that refused, cheapest first, until it does.
///
/// # Contract
///
/// - [`reclaimable`](Self::reclaimable) takes no lock and does not allocate: it is called for
///   every manager before any is chosen, and once more after each was asked.
/// - [`reclaim`](Self::reclaim) is called with no lock of the ledger held, possibly from several
///   threads at once, and possibly on a thread that is inside this component already: take locks
///   that such a thread may hold with `try_lock` and report [`Progress::NOTHING`] when that fails.
/// - It keeps a piece that is larger than what is left of [`ticket.most()`](ReclaimTicket::most).
///   The ledger asks for no more than a tenant borrows; that a manager gives no more is up to it.
/// - It releases what it gives back (drops the [`Reservation`] or shrinks it) before it returns:
///   the ledger believes its own counters, not the returned [`Progress`].
/// - A reservation made inside `reclaim` never starts another round of reclaim, and never waits; it
///   is admitted if it fits and refused if not. What is needed to give memory back, such as a buffer
///   to write from, comes from the ticket's [scratch](ReclaimTicket::scratch); threads that help take
///   a [helper](ReclaimTicket::helper) with them.
/// - A manager that panics, or promises bytes that the counters never see, is passed over for a
///   growing number of rounds. No panic of its, its drop included, reaches the caller of the ledger.
///
/// [`Reservation`]: crate::budget::Reservation
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use nebula_memory::{Budget, Reservation};
/// use nebula_memory::core::{
///     MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
/// };
///
/// /// Keeps one buffer warm; gives it back when asked.
/// struct Warm(Mutex<Option<(Vec<u8>, Reservation)>>);
///
/// impl MemoryUsage for Warm {
///     fn used_bytes(&self) -> usize {
///         self.0.try_lock().map_or(0, |warm| warm.as_ref().map_or(0, |(_, held)| held.size()))
///     }
///     fn peak_bytes(&self) -> usize { self.used_bytes() }
///     fn capacity_bytes(&self) -> Option<usize> { None }
/// }
///
/// impl MemoryManager for Warm {
///     fn name(&self) -> &str { "warm buffer" }
///     fn class(&self) -> ReclaimClass { ReclaimClass::Cache }
///     fn reclaimable(&self) -> Reclaimable { Reclaimable::new(self.used_bytes(), 1) }
///     fn reclaim(&self, _: &ReclaimTicket) -> Progress {
///         let Ok(mut warm) = self.0.try_lock() else { return Progress::NOTHING };
///         let taken = warm.take();
///         drop(warm);
///         Progress::freed(taken.map_or(0, |(_, held)| held.size()))
///     }
/// }
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let held = budget.try_reserve(800)?;
/// let warm = Arc::new(Warm(Mutex::new(Some((vec![0; 800], held)))));
/// budget.register(&warm);
///
/// let urgent = budget.try_reserve(500)?; // does not fit until the warm buffer is given back
/// assert_eq!(warm.used_bytes(), 0);
/// # drop(urgent);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub trait MemoryManager: MemoryUsage + Send + Sync {
    /// The name in reports.
    fn name(&self) -> &str;

    /// What kind of memory this is; decides when it is asked.
    fn class(&self) -> ReclaimClass;

    /// How much could be given back now, and what that would cost.
    fn reclaimable(&self) -> Reclaimable;

    /// Whether [`reclaim`](Self::reclaim) may be called on the thread of whoever needs memory, inside
    /// its request. One that takes long, such as a write to a disk, says no, and is asked by a thread
    /// of the ledger's on behalf of those who [wait](crate::budget::Budget::reserve). So is one that took
    /// longer than 100 ms twice in a row, until it is quicker.
    fn is_inline_safe(&self) -> bool {
        true
    }

    /// Gives back about [`ticket.wanted()`](ReclaimTicket::wanted) bytes; where memory comes in
    /// larger pieces more is allowed, up to [`ticket.most()`](ReclaimTicket::most).
    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress;

    /// Returns the I/O error of the most recent [`reclaim`](Self::reclaim) that had one, or `None` once one
    /// has succeeded since. It is shown in snapshots. `None` by default.
    fn failure(&self) -> Option<ReclaimFailure> {
        None
    }
}

impl fmt::Debug for dyn MemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryManager")
            .field("name", &self.name())
            .field("class", &self.class())
            .finish_non_exhaustive()
    }
}

/// Back to empty, keeping the memory for the next use.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::Resettable;
///
/// let mut buffer = b"abc".to_vec();
/// Resettable::reset(&mut buffer);
/// assert!(buffer.is_empty() && buffer.capacity() >= 3);
/// ```
pub trait Resettable {
    /// Empties the value; what it held is dropped, the memory stays.
    fn reset(&mut self);
}

#[cfg(feature = "alloc")]
mod containers {
    use super::{MemoryUsage, Resettable};
    use alloc::{string::String, vec::Vec};

    impl<T> Resettable for Vec<T> {
        fn reset(&mut self) {
            self.clear();
        }
    }

    /// The vector's own buffer; what its elements own beside it is not seen.
    impl<T> MemoryUsage for Vec<T> {
        fn used_bytes(&self) -> usize {
            // Cannot overflow: a buffer is at most `isize::MAX` bytes, and none for zero-sized `T`.
            self.capacity() * size_of::<T>()
        }

        fn peak_bytes(&self) -> usize {
            self.used_bytes()
        }

        fn capacity_bytes(&self) -> Option<usize> {
            None
        }
    }

    impl Resettable for String {
        fn reset(&mut self) {
            self.clear();
        }
    }

    impl MemoryUsage for String {
        fn used_bytes(&self) -> usize {
            self.capacity()
        }

        fn peak_bytes(&self) -> usize {
            self.used_bytes()
        }

        fn capacity_bytes(&self) -> Option<usize> {
            None
        }
    }
}

/// The bytes that a manager could release, and their price.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::Reclaimable;
///
/// let offer = Reclaimable::new(4096, 2);
/// assert_eq!((offer.bytes, offer.cost), (4096, 2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reclaimable {
    /// Bytes that could be released.
    pub bytes: usize,
    /// The time to make them again, in microseconds of work; an estimate. Managers of one class and priority
    /// are asked in the order of bytes per cost, the most first.
    pub cost: u64,
}

impl Reclaimable {
    /// No byte could be released.
    pub const NOTHING: Self = Self::new(0, 0);

    /// Offers `bytes` that would take `cost` microseconds to make again.
    #[must_use]
    pub const fn new(bytes: usize, cost: u64) -> Self {
        Self { bytes, cost }
    }
}

/// The result of a [`reclaim`](MemoryManager::reclaim), as the manager reports it.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::{Progress, ReclaimFailure};
/// use std::io;
///
/// let progress = Progress::freed(4096);
/// assert_eq!((progress.bytes, progress.failure), (4096, None));
///
/// // One buffer was written to the disk, and another was not.
/// let failure = ReclaimFailure::from(io::ErrorKind::StorageFull);
/// assert_eq!(progress.with_failure(failure).failure, Some(failure));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Progress {
    /// Bytes released to the ledger.
    pub bytes: usize,
    /// The error because of which it was not more, if there was one. A request that is refused
    /// nevertheless has it as its source.
    pub failure: Option<ReclaimFailure>,
}

impl Progress {
    /// No byte was released.
    pub const NOTHING: Self = Self::freed(0);

    /// Reports that `bytes` were released.
    pub const fn freed(bytes: usize) -> Self {
        Self { bytes, failure: None }
    }

    /// Adds the error because of which more could not be released.
    pub fn with_failure(mut self, failure: impl Into<ReclaimFailure>) -> Self {
        self.failure = Some(failure.into());
        self
    }
}
