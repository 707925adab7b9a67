#[cfg(feature = "std")]
use super::reclaiming::Reclaiming;
use crate::core::types::PressureLevel;
use core::fmt;
#[cfg(feature = "std")]
use std::sync::Arc;

/// A request to give memory back, for a [`MemoryManager`](super::MemoryManager).
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
pub struct ReclaimTicket {
    wanted: usize,
    most: usize,
    level: PressureLevel,
    #[cfg(feature = "std")]
    reserve: Option<Arc<dyn EmergencyReserve>>,
}

impl ReclaimTicket {
    /// Asks for `wanted` bytes at pressure `level`.
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

    /// Returns the same request, for no more than `bytes`.
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        if self.wanted > bytes {
            self.wanted = bytes;
        }
        self
    }

    /// Returns how many bytes to give back: what the request lacks. In a large budget it includes a small surplus,
    /// so that the next requests find free bytes. It is never more than [`most`](Self::most).
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Returns the most bytes that may be given back, at least those wanted: the bytes that the manager's tenant
    /// borrows. Bytes beyond them are within the tenant's guarantee. No other tenant gains by their release.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the pressure: [`Critical`](PressureLevel::Critical) if a request does not fit, lower if memory is
    /// reclaimed ahead of need.
    #[must_use]
    pub const fn level(&self) -> PressureLevel {
        self.level
    }

    /// Takes bytes of the tree's
    /// [emergency reserve](crate::budget::BudgetBuilder::emergency_reserve), which has an example; `None` if fewer
    /// are left. They are given back when the value is dropped. Never waits.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn scratch(&self, bytes: usize) -> Option<Scratch> {
        Scratch::take(self.reserve.as_ref()?, bytes)
    }

    /// Returns a helper for another thread that helps to give memory back.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn helper(&self) -> ReclaimHelper {
        ReclaimHelper { reserve: self.reserve.clone() }
    }

    /// Returns the same request, with a reserve for the manager's [scratch](Self::scratch).
    #[cfg(feature = "std")]
    #[must_use]
    pub fn with_reserve(mut self, reserve: Arc<dyn EmergencyReserve>) -> Self {
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

/// Bytes that a ledger sets aside for managers while they give memory back. Without them a spill store would have no
/// buffer to write from, just when nothing else is free.
#[cfg(feature = "std")]
pub trait EmergencyReserve: Send + Sync {
    /// Takes `bytes`, and returns whether so many were left. Never waits.
    fn take(&self, bytes: usize) -> bool;

    /// Gives `bytes` back that were taken.
    fn give_back(&self, bytes: usize);
}

/// Bytes of an [`EmergencyReserve`], given back when this is dropped; from
/// [`ReclaimTicket::scratch`].
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

/// Lets another thread help a manager to give memory back; from [`ReclaimTicket::helper`].
///
/// # Examples
///
/// A manager that encodes its entries on another thread before it drops them:
///
/// ```
/// use nebula_memory::core::{Progress, ReclaimTicket};
///
/// fn reclaim(ticket: &ReclaimTicket) -> Progress {
///     let helper = ticket.helper();
///     std::thread::scope(|scope| {
///         scope.spawn(move || helper.run(|| {
///             // A reservation here reclaims nothing and does not wait, as in `reclaim` itself.
///         }));
///     });
///     Progress::NOTHING
/// }
/// # let _ = reclaim(&ReclaimTicket::new(1, nebula_memory::PressureLevel::High));
/// ```
#[cfg(feature = "std")]
#[derive(Clone)]
pub struct ReclaimHelper {
    reserve: Option<Arc<dyn EmergencyReserve>>,
}

#[cfg(feature = "std")]
impl ReclaimHelper {
    /// Runs `work` as a part of the reclaim: its reservations reclaim nothing and do not wait.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _reclaiming = Reclaiming::enter();
        work()
    }

    /// Like [`ReclaimTicket::scratch`].
    #[must_use]
    pub fn scratch(&self, bytes: usize) -> Option<Scratch> {
        Scratch::take(self.reserve.as_ref()?, bytes)
    }
}

#[cfg(feature = "std")]
impl fmt::Debug for ReclaimHelper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReclaimHelper").finish_non_exhaustive()
    }
}
