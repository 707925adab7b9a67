//! The three contracts between the ledger and components that hold memory.
//!
//! ```text
//!            charge / release                   reclaim(ticket)
//! component ───────────────────► budget node ───────────────────► MemoryManager
//!                                     ▲                                │
//!                                     └──────── release ◄──────────────┘
//! ```
//!
//! Implement [`MemoryUsage`] for a component that knows its bytes, [`MemoryManager`] for one that can also give
//! some of them back, and [`Resettable`] for a value that can be emptied and used again. All three are
//! object-safe.

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

/// A component that reports the bytes that it holds.
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
    /// Returns the bytes held now.
    fn used_bytes(&self) -> usize;

    /// Returns the most bytes ever held at once: never less than [`used_bytes`](Self::used_bytes) was.
    fn peak_bytes(&self) -> usize;

    /// Returns the most bytes that may be held; `None` if only the budget above is a bound.
    fn capacity_bytes(&self) -> Option<usize>;

    /// Returns all figures in one value. Override it if you count refusals and reclaimed bytes too.
    fn usage(&self) -> Usage {
        Usage::new(self.used_bytes(), self.peak_bytes(), self.capacity_bytes())
    }
}

/// A component that holds memory and can give some back: a cache, a pool, a recycler of arenas.
///
/// [Register](crate::budget::Budget::register) it with a budget, which keeps a weak reference. When a request does not
/// fit, the ledger asks the managers at and below the node that is in the way, the cheapest first, until it fits.
/// [`Budget::register_fn`](crate::budget::Budget::register_fn) makes one of two closures.
///
/// # Contract
///
/// - [`class`](Self::class) is called once, when the manager is registered.
/// - [`reclaimable`](Self::reclaimable) waits for no lock and does not allocate. A reclaim calls it for few managers:
///   those whose tenants borrow most. Only before a request is refused all managers below the node are looked at.
/// - [`reclaim`](Self::reclaim) is called with no lock of the ledger held, possibly from several
///   threads at once, and possibly on a thread that is inside this component already: take locks
///   that such a thread may hold with `try_lock` and report [`Progress::NOTHING`] when that fails.
/// - It releases no more than [`ticket.most()`](ReclaimTicket::most) in all, and keeps a piece that is larger than
///   the rest. The ledger asks for no more than the tenant borrows, and cannot force a manager to keep to it.
/// - It releases bytes (drops or shrinks the [`Reservation`]) before it returns: the ledger trusts its own counters,
///   not the returned [`Progress`].
/// - A reservation inside `reclaim` never reclaims and never waits: it is admitted if it fits, and refused if not. A
///   buffer that is needed to give memory back comes from the ticket's [scratch](ReclaimTicket::scratch). Threads
///   that help take a [helper](ReclaimTicket::helper) with them.
/// - A manager that panics, or offers bytes that the counters never see, is passed over for a growing number of
///   rounds. None of its panics reaches the caller of the ledger, not even one of its drop.
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
    /// Returns the name for reports.
    fn name(&self) -> &str;

    /// Returns the kind of memory, which decides when the manager is asked. Called once, when it is registered.
    fn class(&self) -> ReclaimClass;

    /// Returns the bytes that could be given back now, and their price.
    fn reclaimable(&self) -> Reclaimable;

    /// Returns whether [`reclaim`](Self::reclaim) is quick enough to be called inside a request, on the requesting
    /// thread; `true` by default. A manager that takes long, such as one that writes to a disk, returns `false`: a
    /// thread of the ledger's calls it for requests that [wait](crate::budget::Budget::reserve). The same holds
    /// for a manager that took longer than 100 ms twice in a row, until it is quicker.
    fn is_inline_safe(&self) -> bool {
        true
    }

    /// Gives back about [`ticket.wanted()`](ReclaimTicket::wanted) bytes. If memory comes in larger pieces more is
    /// allowed, up to [`ticket.most()`](ReclaimTicket::most).
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

/// A value that can be emptied and keeps its memory for the next use.
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
    /// Empties the value: drops its contents, and keeps its memory.
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

    /// Counts the vector's own buffer, without memory that its elements own.
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

/// The bytes that a manager could release, and their price; from [`MemoryManager::reclaimable`].
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
