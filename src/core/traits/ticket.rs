#[cfg(feature = "std")]
use super::reclaiming::Reclaiming;
use crate::core::types::PressureLevel;
use core::fmt;
#[cfg(feature = "std")]
use std::sync::Arc;

/// A request to give memory back.
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

    /// The same request, for no more than `bytes`.
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        if self.wanted > bytes {
            self.wanted = bytes;
        }
        self
    }

    /// Bytes that are still missing.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// The bytes that may be given back, at least those wanted. What is given beyond them is taken
    /// from what the manager's own tenant was guaranteed, and nobody else gains by it.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// How tight memory is: [`Critical`](PressureLevel::Critical) when a reservation is about to
    /// be refused, lower when memory is taken back ahead of need.
    #[must_use]
    pub const fn level(&self) -> PressureLevel {
        self.level
    }

    /// Bytes from what the ledger has set aside for those who give memory back, if there are so many
    /// left; given back when the value is dropped.
    ///
    /// # Examples
    ///
    /// See [`BudgetBuilder::emergency_reserve`](crate::budget::BudgetBuilder::emergency_reserve).
    #[cfg(feature = "std")]
    #[must_use]
    pub fn scratch(&self, bytes: usize) -> Option<Scratch> {
        Scratch::take(self.reserve.as_ref()?, bytes)
    }

    /// What another thread takes with it that helps to give memory back.
    ///
    /// # Examples
    ///
    /// See [`ReclaimHelper`].
    #[cfg(feature = "std")]
    #[must_use]
    pub fn helper(&self) -> ReclaimHelper {
        ReclaimHelper { reserve: self.reserve.clone() }
    }

    /// The same request, with bytes set aside for who answers it.
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

/// Bytes that a ledger has set aside for those who give memory back: without it a spiller could not
/// have the buffer that it writes from, just when there is nothing left.
#[cfg(feature = "std")]
pub trait EmergencyReserve: Send + Sync {
    /// Takes `bytes`, if there are so many left. Never waits.
    fn take(&self, bytes: usize) -> bool;

    /// Gives back what was taken.
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

    /// Bytes held.
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

/// The privileges and the duties of a thread that takes memory back, for one that helps it; from
/// [`ReclaimTicket::helper`].
///
/// # Examples
///
/// A manager that encodes on another thread what it gives up:
///
/// ```
/// use nebula_memory::core::{Progress, ReclaimTicket};
///
/// fn reclaim(ticket: &ReclaimTicket) -> Progress {
///     let helper = ticket.helper();
///     std::thread::scope(|scope| {
///         scope.spawn(move || helper.run(|| {
///             // What is reserved here takes nothing back and does not wait, as in `reclaim` itself.
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
    /// Runs `work` as a part of taking memory back: what it reserves starts no other round, and does
    /// not wait.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _reclaiming = Reclaiming::enter();
        work()
    }

    /// As [`ReclaimTicket::scratch`].
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
