use super::{super::Budget, Reservation};
use crate::core::error::Refused;
use core::{fmt, mem};

/// A [`Reservation`] that keeps some released bytes as credit, to grow by them again; from
/// [`Budget::buffered_reservation`].
///
/// Use it for one owner that grows and shrinks often. Within the credit, growing and shrinking are plain additions,
/// without an atomic operation.
///
/// The credit counts as used bytes. One reservation has at most 64 KiB of credit. At every node the credit of all
/// buffered reservations is at most a 64th of the limit. If that leaves less than 1 KiB for a reservation, it has no
/// credit. At most 64 nodes of a tree have such credit at once. The credit is released when the reservation is dropped.
/// After a request was refused, it is also released at the next use of the reservation.
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
#[must_use = "dropping a reservation releases its bytes at once"]
pub struct BufferedReservation {
    /// # Invariants
    ///
    /// Owns `bytes`, and up to `most` more bytes that are unused.
    charged: Reservation,
    bytes: usize,
    /// The largest credit, as the ledger knows it.
    most: u32,
    /// The value that `most` should have if the limits allow it.
    wanted: u32,
    /// The number of charges that take the lock before there is credit again, after credit was recalled.
    cold: u32,
    /// The number of recalls at the node when `most` was granted.
    recalls: u32,
}

/// The number of charges without credit after a recall.
const COLD: u32 = 16;

impl BufferedReservation {
    /// Takes over an empty reservation.
    pub(crate) fn new(charged: Reservation, credit: usize) -> Self {
        let (recalls, wanted) = (charged.budget().node.recalls(), narrow(credit));
        Self { charged, bytes: 0, most: 0, wanted, cold: 0, recalls }
    }

    /// Returns the reserved bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes
    }

    /// Returns the node that the bytes are reserved from.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        self.charged.budget()
    }

    /// Reserves `bytes` more. If they do not fit, reclaims memory from managers first; see
    /// [`Budget::try_reserve`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; the reservation does not change.
    #[inline]
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.spend(bytes) || self.refill(bytes) {
            return Ok(());
        }
        self.charged.try_grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Reserves `bytes` more only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; the reservation does not change.
    #[inline]
    pub fn try_grow_spare(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.spend(bytes) || self.refill(bytes) {
            return Ok(());
        }
        self.charged.try_grow_spare(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Releases `bytes`, or all reserved bytes if they are fewer. Returns the number of released bytes.
    #[inline]
    pub fn shrink(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if self.charged.size() - self.bytes > self.most as usize || self.is_recalled() {
            self.settle();
        }
        bytes
    }

    /// Releases the credit, and returns the rest as a plain reservation.
    pub fn into_reservation(mut self) -> Reservation {
        self.charged.shrink(self.charged.size() - self.bytes);
        let exact = self.charged.budget().reservation();
        mem::replace(&mut self.charged, exact)
    }

    /// Takes `bytes` of the credit. Returns whether the credit had enough.
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

    /// Charges `bytes`, and new credit if it is wanted and fits. Returns whether `bytes` are charged.
    #[inline]
    fn refill(&mut self, bytes: usize) -> bool {
        self.wanted > 0 && self.refill_locked(bytes)
    }

    #[cold]
    #[inline(never)]
    fn refill_locked(&mut self, bytes: usize) -> bool {
        let node = &self.charged.budget().node;
        let mut ledger = node.ledger();
        let (now, unused) = (node.recalls(), self.charged.size() - self.bytes);
        let is_recalled = now != self.recalls;
        if !is_recalled && self.most > 0 {
            // The usual case: the credit is used up, and nothing else has changed.
            let missing = bytes.saturating_sub(unused).saturating_add(self.most as usize / 2);
            if ledger.admit(node.key(), missing, None).is_ok() {
                drop(ledger);
                self.charged.adopt(self.charged.size() + missing);
                self.bytes += bytes;
                return true;
            }
        }
        let cold = if is_recalled { COLD } else { self.cold.saturating_sub(1) };
        let wish = if cold == 0 { self.wanted as usize } else { 0 };
        let most = ledger.allow_stranded(node.key(), self.most as usize, wish);
        let woken = ledger.give_back(node.key(), unused);
        let with_credit = bytes.checked_add(most / 2).filter(|_| most > 0);
        let with_credit = with_credit.filter(|all| ledger.admit(node.key(), *all, None).is_ok());
        if with_credit.is_none() {
            ledger.allow_stranded(node.key(), most, 0);
        }
        let is_there = with_credit.is_some() || ledger.admit(node.key(), bytes, None).is_ok();
        drop(ledger);
        woken.wake();
        (self.cold, self.recalls) = (cold, now);
        self.most = if with_credit.is_some() { narrow(most) } else { 0 };
        self.bytes += if is_there { bytes } else { 0 };
        self.charged.adopt(self.bytes + with_credit.map_or(0, |all| all - bytes));
        is_there
    }

    /// Releases the credit beyond half of `most`, or all of it if it was recalled.
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

    /// Tells the ledger that this reservation has no credit any more.
    fn end_credit(&mut self) {
        let most = mem::take(&mut self.most);
        if most > 0 {
            let node = &self.charged.budget().node;
            node.ledger().allow_stranded(node.key(), most as usize, 0);
        }
    }

    /// Returns whether the credit was recalled and must be released.
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

/// Converts the bytes of a credit, which never exceed 64 KiB.
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
