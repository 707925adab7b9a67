//! Traits between the ledger and components that hold memory.
//!
//! ```text
//!            charge / release                   reclaim(ticket)
//! component ───────────────────► budget node ───────────────────► MemoryManager
//!                                     ▲                                │
//!                                     └──────── release ◄──────────────┘
//! ```
//!
//! Implement [`MemoryUsage`] for a component that knows how many bytes it uses. Implement [`MemoryManager`] if it can
//! also release memory on request. Implement [`Resettable`] for a value that can be emptied and used again. All three
//! traits are object-safe.

#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
pub(crate) mod reclaiming;
mod ticket;

#[cfg(feature = "std")]
pub(crate) use self::clock::Clock;
#[cfg(feature = "std")]
pub use self::clock::ManualClock;
#[cfg(feature = "std")]
pub(crate) use self::ticket::EmergencyReserve;
pub use self::ticket::ReclaimTicket;

use crate::core::{
    error::ReclaimFailure,
    types::{ReclaimClass, Usage},
};
use core::fmt;

/// A component that reports how many bytes it uses.
///
/// All figures are in bytes. Reading them never waits, and they may be slightly out of date.
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
    /// Returns the bytes in use now.
    fn used_bytes(&self) -> usize;

    /// Returns the most bytes in use at any time: at least every earlier [`used_bytes`](Self::used_bytes).
    fn peak_bytes(&self) -> usize;

    /// Returns the most bytes that may be in use; `None` if only the budget above sets a bound.
    fn capacity_bytes(&self) -> Option<usize>;

    /// Returns all figures in one value. Override it if the component also counts refusals and reclaimed bytes.
    fn usage(&self) -> Usage {
        Usage::new(self.used_bytes(), self.peak_bytes(), self.capacity_bytes())
    }
}

/// A component that can release memory when the ledger asks, such as a cache, a pool or a spill store.
///
/// [Register](crate::budget::Budget::register) it with a budget, which keeps a weak reference. When a request does
/// not fit, the ledger asks managers at and below the binding node, the cheapest first, until the request fits.
/// [`Budget::register_fn`](crate::budget::Budget::register_fn) registers two closures as a manager.
///
/// # Contract
///
/// - [`class`](Self::class) is called once, when the manager is registered.
/// - [`reclaimable`](Self::reclaimable) must not wait for a lock and must not allocate. A reclaim calls it only for the
///   managers whose tenants borrow most. Before a request is refused, the ledger calls it for all managers below the
///   binding node.
/// - [`reclaim`](Self::reclaim) is called without a lock of the ledger. Several threads may call it at once, also a
///   thread that is inside this component already. Take locks that such a thread may hold with `try_lock`, and return
///   [`Progress::NOTHING`] if that fails.
/// - `reclaim` must release at most [`ticket.most()`](ReclaimTicket::most) bytes in total. If the next piece of memory
///   is larger than the bytes left of this number, it must keep the piece. The ledger cannot enforce this bound.
/// - `reclaim` releases the bytes (drops or shrinks the [`Reservation`]) before it returns. The ledger trusts its own
///   counters, not the returned [`Progress`].
/// - A reservation inside `reclaim` never reclaims and never waits: it is admitted if it fits, and refused if not. If
///   `reclaim` needs a buffer, take it from the [emergency reserve](ReclaimTicket::with_scratch). If another thread takes
///   part in the reclaim, run its work in [`ReclaimTicket::run`].
/// - If a manager panics, or offers bytes that it does not release, the ledger skips it for a growing number of
///   rounds. The caller of the ledger never sees a panic of a manager, not even a panic of its drop.
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

    /// Returns the kind of memory. The ledger asks managers in the order of their classes. Called once, when the
    /// manager is registered.
    fn class(&self) -> ReclaimClass;

    /// Returns the bytes that the manager could release now, and the cost to make them again.
    fn reclaimable(&self) -> Reclaimable;

    /// Returns the used bytes that no caller holds; by default all. A pool returns the bytes of its idle objects. The
    /// search for deadlocks assumes that the callers who hold the other bytes are at work.
    fn unheld_bytes(&self) -> usize {
        self.used_bytes()
    }

    /// Returns whether [`reclaim`](Self::reclaim) is quick enough to run inside a request, on the requesting thread;
    /// `true` by default. Return `false` for a slow manager, such as one that writes to a disk. A thread of the
    /// ledger then calls it, for requests that [wait](crate::budget::Budget::reserve). A manager that took longer than
    /// 100 ms twice in a row is treated in the same way, until it is faster.
    fn is_inline_safe(&self) -> bool {
        true
    }

    /// Releases about [`ticket.wanted()`](ReclaimTicket::wanted) bytes. If its memory comes in larger pieces, it may
    /// release more, up to [`ticket.most()`](ReclaimTicket::most).
    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress;

    /// Returns the I/O error of the last [`reclaim`](Self::reclaim) that failed, or `None` if one has succeeded
    /// since. Snapshots show the error. `None` by default.
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

/// A value that can be emptied and keeps its memory for the next use. A pool resets such a value when it is returned.
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
    /// Empties the value: drops its contents and keeps its memory.
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

    /// Counts the vector's own buffer, not the memory that its elements own.
    impl<T> MemoryUsage for Vec<T> {
        fn used_bytes(&self) -> usize {
            // Cannot overflow: a buffer has at most `isize::MAX` bytes, and none if `T` is zero-sized.
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

/// The bytes that a manager could release, and the cost to make them again; from [`MemoryManager::reclaimable`].
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
    /// The estimated time to make the bytes again, in microseconds. Managers of one class and priority are asked in
    /// the order of bytes per cost, the highest first.
    pub cost: u64,
}

impl Reclaimable {
    /// No byte could be released.
    pub const NOTHING: Self = Self::new(0, 0);

    /// Makes an offer of `bytes` bytes. Making them again takes `cost` microseconds.
    #[must_use]
    pub const fn new(bytes: usize, cost: u64) -> Self {
        Self { bytes, cost }
    }
}

/// The result of [`MemoryManager::reclaim`], as the manager reports it.
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
    /// The error that kept the manager from releasing more, if there was one. If the request is then refused, this is
    /// the source of its error.
    pub failure: Option<ReclaimFailure>,
}

impl Progress {
    /// No byte was released.
    pub const NOTHING: Self = Self::freed(0);

    /// Makes a report of `bytes` released.
    pub const fn freed(bytes: usize) -> Self {
        Self { bytes, failure: None }
    }

    /// Adds the error that kept the manager from releasing more.
    pub fn with_failure(mut self, failure: impl Into<ReclaimFailure>) -> Self {
        self.failure = Some(failure.into());
        self
    }
}
