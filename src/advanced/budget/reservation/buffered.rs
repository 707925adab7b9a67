use super::{Budget, Reservation};
use crate::core::error::Refused;
use core::{fmt, mem};

/// A [`Reservation`] that keeps some of what is given back, for when it grows again; from
/// [`Budget::buffered_reservation`].
///
/// Growing and shrinking inside of that is an addition, without an atomic: for one owner who does it
/// all the time.
///
/// Nobody but this reservation sees that credit: it counts as used. At every node all credit of this
/// kind together is at most a 64th of the limit, and 64 KiB for one reservation; where that is less
/// than 1 KiB there is none. It is given back when this is dropped, or is used next after somebody
/// was refused.
///
/// # Examples
///
/// ```
/// use nebula_memory::Budget;
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let mut held = budget.buffered_reservation(1 << 12);
/// for _ in 0..1000 {
///     held.try_grow(100)?;
///     held.shrink(100);
/// }
/// assert!(held.size() == 0 && budget.usage().used <= 1 << 12);
/// drop(held);
/// assert_eq!(budget.usage().used, 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "dropping a reservation gives its bytes back at once"]
pub struct BufferedReservation {
    /// # Invariants
    ///
    /// Of `bytes`, and of up to `most` more that lie idle.
    charged: Reservation,
    bytes: usize,
    /// As the ledger was told.
    most: u32,
    /// What `most` is to be where the limits allow it.
    wanted: u32,
    /// How many charges come to the lock before there is credit again: it was recalled.
    cold: u32,
    /// Of the node's [`Line`](super::line::Line), when `most` was granted.
    recalls: u32,
}

/// How long a reservation whose credit was recalled is exact.
const COLD: u32 = 16;

impl BufferedReservation {
    pub(super) fn empty(budget: &Budget, credit: usize) -> Self {
        let recalls = budget.node.recalls();
        let (charged, wanted) = (budget.reservation(), narrow(credit));
        Self { charged, bytes: 0, most: 0, wanted, cold: 0, recalls }
    }

    /// Bytes held.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes
    }

    /// The node that the bytes were reserved from.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        self.charged.budget()
    }

    /// Adds `bytes`, taking cheaper memory back where they do not fit; see
    /// [`Budget::try_reserve`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; what is held stays as it was.
    #[inline]
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.spend(bytes) || self.refill(bytes) {
            return Ok(());
        }
        self.charged.try_grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Adds `bytes` only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; what is held stays as it was.
    #[inline]
    pub fn try_grow_spare(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.spend(bytes) || self.refill(bytes) {
            return Ok(());
        }
        self.charged.try_grow_spare(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back `bytes`, or all that is held if that is less. Returns what was given back.
    #[inline]
    pub fn shrink(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if self.charged.size() - self.bytes > self.most as usize || self.is_recalled() {
            self.settle();
        }
        bytes
    }

    /// What is held, without the credit.
    pub fn into_reservation(mut self) -> Reservation {
        self.charged.shrink(self.charged.size() - self.bytes);
        let exact = self.charged.budget().reservation();
        mem::replace(&mut self.charged, exact)
    }

    /// Takes `bytes` of the credit, if there are so many.
    #[inline]
    fn spend(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_add(bytes) {
            Some(bytes) if bytes <= self.charged.size() && !self.is_recalled() => {
                self.bytes = bytes;
                true
            }
            _ => false,
        }
    }

    /// Exchanges the credit for one that `bytes` are taken of already, if there is to be any and
    /// there is room for it.
    #[inline]
    fn refill(&mut self, bytes: usize) -> bool {
        self.wanted > 0 && self.refill_slowly(bytes)
    }

    #[cold]
    #[inline(never)]
    fn refill_slowly(&mut self, bytes: usize) -> bool {
        let node = &self.charged.budget().node;
        let now = node.recalls();
        let cold = if now == self.recalls { self.cold.saturating_sub(1) } else { COLD };
        let mut ledger = node.ledger();
        ledger.release(node.key(), self.charged.size() - self.bytes);
        let wish = if cold == 0 { self.wanted as usize } else { 0 };
        let granted = ledger.allow(node.key(), self.most as usize, wish);
        let half = granted / 2;
        let with_half = bytes.checked_add(half).filter(|_| granted > 0);
        let has_credit = with_half.is_some_and(|bytes| ledger.charge(node.key(), bytes).is_ok());
        if !has_credit {
            ledger.allow(node.key(), granted, 0);
        }
        let is_there = has_credit || ledger.admit_now(node.key(), bytes, None).is_ok();
        let woken = ledger.serve(node.key());
        drop(ledger);
        woken.wake();
        let (idle, most) = if has_credit { (half, narrow(granted)) } else { (0, 0) };
        (self.most, self.cold, self.recalls) = (most, cold, now);
        self.bytes += if is_there { bytes } else { 0 };
        self.charged.adopt(self.bytes + idle);
        is_there
    }

    /// Gives back what lies idle beyond half of the credit, or all of it if it was recalled.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        let keep = if self.is_recalled() { 0 } else { self.most / 2 };
        let idle = self.charged.size() - self.bytes;
        self.charged.shrink(idle - keep as usize);
        if keep == 0 {
            self.end_credit();
        }
    }

    /// Tells the ledger that nothing lies idle here any more.
    fn end_credit(&mut self) {
        let most = mem::take(&mut self.most);
        if most > 0 {
            let node = &self.charged.budget().node;
            node.ledger().allow(node.key(), most as usize, 0);
        }
    }

    /// Whether the credit is to be given back.
    #[inline]
    fn is_recalled(&self) -> bool {
        self.recalls != self.charged.budget().node.recalls()
    }
}

impl Drop for BufferedReservation {
    fn drop(&mut self) {
        self.end_credit();
    }
}

/// Bytes of credit, of which 64 KiB are the most that there is.
fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl fmt::Debug for BufferedReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedReservation")
            .field("budget", &self.budget().name())
            .field("bytes", &self.bytes)
            .field("idle", &(self.charged.size() - self.bytes))
            .finish()
    }
}
