#[cfg(feature = "std")]
use super::reclaiming::Reclaiming;
use crate::core::types::PressureLevel;
use core::fmt;
#[cfg(feature = "std")]
use std::sync::Arc;

/// A request to give memory back, passed to [`MemoryManager::reclaim`](super::MemoryManager::reclaim).
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

    /// Returns the bytes to give back: the bytes that the request lacks. In a large budget they include a small
    /// surplus, so that the next requests find free bytes. They are never more than [`most`](Self::most).
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Returns the most bytes that may be given back, at least the wanted bytes. It is the number of bytes that the
    /// manager's tenant borrows. Bytes beyond it are within the tenant's guarantee, and their release would help no
    /// other tenant.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the pressure. It is [`Critical`](PressureLevel::Critical) if a request does not fit, and lower if
    /// memory is reclaimed ahead of need.
    #[must_use]
    pub const fn level(&self) -> PressureLevel {
        self.level
    }

    /// Takes bytes of the tree's [emergency reserve](crate::budget::BudgetBuilder::emergency_reserve), which has an
    /// example. Returns `None` if too few are left. The bytes are given back when the value is dropped. Never waits.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn scratch(&self, bytes: usize) -> Option<Scratch> {
        Scratch::take(self.reserve.as_ref()?, bytes)
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

    /// Returns the same request with `reserve` as the source of [scratch](Self::scratch) bytes.
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

/// Bytes of the ledger's emergency reserve, from [`ReclaimTicket::scratch`]. They are given back when the value is dropped.
#[cfg(feature = "std")]
#[must_use = "dropping it gives the bytes back at once"]
pub struct Scratch {
    reserve: Arc<dyn EmergencyReserve>,
    bytes: usize,
}

#[cfg(feature = "std")]
impl Scratch {
    fn take(reserve: &Arc<dyn EmergencyReserve>, bytes: usize) -> Option<Self> {
        reserve.take(bytes).then(|| Self { reserve: Arc::clone(reserve), bytes })
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes
    }
}

#[cfg(feature = "std")]
impl Drop for Scratch {
    fn drop(&mut self) {
        self.reserve.give_back(self.bytes);
    }
}

#[cfg(feature = "std")]
impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
