#[cfg(feature = "std")]
use super::reclaiming::Reclaiming;
use crate::core::types::PressureLevel;
use core::fmt;
#[cfg(feature = "std")]
use std::sync::Arc;

/// The ledger's request to release memory, passed to [`MemoryManager::reclaim`](super::MemoryManager::reclaim).
///
/// A clone is for another thread that takes part in the reclaim; see [`run`](Self::run).
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, core::ReclaimTicket};
///
/// let ticket = ReclaimTicket::new(4096, PressureLevel::High);
/// assert_eq!((ticket.wanted(), ticket.most()), (4096, usize::MAX));
///
/// let ticket = ticket.at_most(5000); // 5000 bytes are borrowed, the rest is guaranteed
/// assert_eq!((ticket.wanted(), ticket.most()), (4096, 5000));
/// ```
#[derive(Clone)]
pub struct ReclaimTicket {
    wanted: usize,
    most: usize,
    level: PressureLevel,
    #[cfg(feature = "std")]
    reserve: Option<Arc<dyn EmergencyReserve>>,
}

impl ReclaimTicket {
    /// Makes a request for `wanted` bytes at pressure `level`.
    #[must_use]
    pub const fn new(wanted: usize, level: PressureLevel) -> Self {
        Self {
            wanted,
            most: usize::MAX,
            level,
            #[cfg(feature = "std")]
            reserve: None,
        }
    }

    /// Returns the same request with `bytes` as its maximum.
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        if self.wanted > bytes {
            self.wanted = bytes;
        }
        self
    }

    /// Returns the bytes to release: the bytes that the request lacks. In a budget of 4 MiB or more they include a
    /// small surplus, so that the next requests find free bytes. They are never more than [`most`](Self::most).
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Returns the most bytes that may be released: the bytes that the manager's tenant borrows. They are at least the
    /// [wanted](Self::wanted) bytes. All other bytes are within the tenant's guarantee, so their release would not help
    /// another tenant.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the pressure. It is [`Critical`](PressureLevel::Critical) if a request does not fit, and lower if
    /// memory is reclaimed before it is needed.
    #[must_use]
    pub const fn level(&self) -> PressureLevel {
        self.level
    }

    /// Runs `work` with `bytes` bytes of the tree's
    /// [emergency reserve](crate::budget::BudgetBuilder::emergency_reserve), which has an example. The bytes are
    /// returned when `work` ends. Returns `None`, and does not run `work`, if too few bytes are left. Never waits.
    #[cfg(feature = "std")]
    pub fn with_scratch<R>(&self, bytes: usize, work: impl FnOnce() -> R) -> Option<R> {
        let reserve = &**self.reserve.as_ref()?;
        let _scratch = reserve.take(bytes).then(|| Scratch { reserve, bytes })?;
        Some(work())
    }

    /// Runs `work` as a part of the reclaim: its reservations do not reclaim memory and do not wait. Use it on other
    /// threads that take part. The thread that calls [`reclaim`](super::MemoryManager::reclaim) needs no such call.
    ///
    /// # Examples
    ///
    /// A manager that encodes its entries on another thread before it drops them:
    ///
    /// ```
    /// use nebula_memory::core::{Progress, ReclaimTicket};
    ///
    /// fn reclaim(ticket: &ReclaimTicket) -> Progress {
    ///     std::thread::scope(|scope| {
    ///         scope.spawn(move || ticket.run(|| {
    ///             // A reservation here reclaims nothing and does not wait, as in `reclaim` itself.
    ///         }));
    ///     });
    ///     Progress::NOTHING
    /// }
    /// # let _ = reclaim(&ReclaimTicket::new(1, nebula_memory::PressureLevel::High));
    /// ```
    #[cfg(feature = "std")]
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _reclaiming = Reclaiming::enter();
        work()
    }

    /// Returns the same request with `reserve` as the source of [scratch](Self::with_scratch) bytes.
    #[cfg(feature = "std")]
    pub(crate) fn with_reserve(mut self, reserve: Arc<dyn EmergencyReserve>) -> Self {
        self.reserve = Some(reserve);
        self
    }
}

impl fmt::Debug for ReclaimTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReclaimTicket")
            .field("wanted", &self.wanted)
            .field("most", &self.most)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Bytes that a ledger keeps for managers while they reclaim memory. Without them a spill store would have no buffer
/// to write from when no other bytes are free.
#[cfg(feature = "std")]
pub(crate) trait EmergencyReserve: Send + Sync {
    /// Takes `bytes`, and returns whether enough were left. Never waits.
    fn take(&self, bytes: usize) -> bool;

    /// Gives back `bytes` that were taken.
    fn give_back(&self, bytes: usize);
}

/// Bytes of an emergency reserve. They are returned when the value is dropped.
#[cfg(feature = "std")]
struct Scratch<'r> {
    reserve: &'r dyn EmergencyReserve,
    bytes: usize,
}

#[cfg(feature = "std")]
impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.reserve.give_back(self.bytes);
    }
}
