use super::{Budget, reclaim};
use crate::core::error::Refused;
use core::{fmt, mem};

/// Bytes admitted by a [`Budget`], given back when this is dropped.
///
/// Owned and [`Send`]: it may outlive the scope, the thread and every handle to the budget it came
/// from. A reservation is a promise about memory, not memory: hold it beside what it pays for.
///
/// # Examples
///
/// ```
/// use nebula_memory::Budget;
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let mut whole = budget.try_reserve(600)?;
/// let part = whole.split(200).expect("600 are held");
/// assert_eq!((whole.size(), part.size(), budget.usage().used), (400, 200, 600));
///
/// drop(part);
/// assert_eq!(budget.usage().used, 400);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "dropping a reservation gives its bytes back at once"]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
    /// # Invariants
    ///
    /// What the node is charged for this reservation: `bytes`, and up to `credit.most` more that lie
    /// idle.
    charged: usize,
    credit: Credit,
}

/// What may lie idle in a reservation.
#[derive(Clone, Copy, Debug, Default)]
struct Credit {
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

impl Reservation {
    pub(super) fn empty(budget: Budget) -> Self {
        Self::of_charged(budget, 0)
    }

    /// Takes over bytes that the node was charged.
    pub(super) fn of_charged(budget: Budget, bytes: usize) -> Self {
        Self { budget, bytes, charged: bytes, credit: Credit::default() }
    }

    /// Keeps up to `bytes` of what is given back, and takes as many more than asked for, so that
    /// growing and shrinking inside of that is an addition, without an atomic: for a reservation that
    /// does it all the time.
    ///
    /// Nobody but this reservation sees that credit: it counts as used. At every node all credit of
    /// this kind together is at most a 64th of the limit, and 64 KiB for one reservation; where that
    /// is less than 1 KiB there is none. It is given back when the reservation is dropped, or is used
    /// next after somebody was refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(1 << 20).build()?;
    /// let mut held = budget.reservation().with_credit(1 << 12);
    /// for _ in 0..1000 {
    ///     held.try_grow(100)?;
    ///     held.shrink(100);
    /// }
    /// assert!(held.size() == 0 && budget.usage().used <= 1 << 12);
    /// drop(held);
    /// assert_eq!(budget.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn with_credit(mut self, bytes: usize) -> Self {
        self.credit.wanted = narrow(bytes);
        self.credit.recalls = self.budget.node.recalls();
        self
    }

    /// Bytes held.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes
    }

    /// The node that the bytes were reserved from.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Adds `bytes`, taking cheaper memory back where they do not fit; see
    /// [`Budget::try_reserve`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; what is held stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.try_reserve(60)?;
    /// assert!(held.try_grow(41).is_err());
    /// assert_eq!(held.size(), 60);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.spend(bytes) || self.refill(bytes) {
            return Ok(());
        }
        let node = &self.budget.node;
        if let Err(bar) = node.try_charge(bytes) {
            reclaim::until_admitted(node, bytes, bar)?;
        }
        self.charged += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes `bytes` of the credit, if there are so many.
    #[inline]
    fn spend(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_add(bytes) {
            Some(bytes) if bytes <= self.charged && !self.is_recalled() => {
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
        self.credit.wanted > 0 && self.refill_slowly(bytes)
    }

    #[cold]
    #[inline(never)]
    fn refill_slowly(&mut self, bytes: usize) -> bool {
        let Credit { most, wanted, cold, recalls } = self.credit;
        let node = &self.budget.node;
        let now = node.recalls();
        let cold = if now == recalls { cold.saturating_sub(1) } else { COLD };
        let mut ledger = node.ledger();
        ledger.release(node.key(), self.charged - self.bytes);
        let wish = if cold == 0 { wanted as usize } else { 0 };
        let granted = ledger.allow(node.key(), most as usize, wish);
        let half = granted / 2;
        let has_credit = granted > 0 && ledger.admit_spare(node.key(), bytes.saturating_add(half));
        if !has_credit {
            ledger.allow(node.key(), granted, 0);
        }
        let is_there = has_credit || ledger.admit_now(node.key(), bytes).is_ok();
        let woken = ledger.serve(node.key());
        drop(ledger);
        woken.wake();
        let (idle, most) = if has_credit { (half, narrow(granted)) } else { (0, 0) };
        self.credit = Credit { most, wanted, cold, recalls: now };
        self.bytes += if is_there { bytes } else { 0 };
        self.charged = self.bytes + idle;
        is_there
    }

    /// Gives back what lies idle beyond half of the credit, or all of it if it was recalled.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        let keep = if self.is_recalled() { 0 } else { self.credit.most / 2 };
        let charged = self.bytes + keep as usize;
        self.budget.node.release(mem::replace(&mut self.charged, charged) - charged);
        if keep == 0 {
            self.end_credit();
        }
    }

    /// Gives back all that lies idle, for good.
    fn end_credit(&mut self) {
        let node = &self.budget.node;
        node.release(mem::replace(&mut self.charged, self.bytes) - self.bytes);
        let most = mem::take(&mut self.credit.most);
        if most > 0 {
            node.ledger().allow(node.key(), most as usize, 0);
        }
    }

    /// Whether the credit is to be given back.
    #[inline]
    fn is_recalled(&self) -> bool {
        self.credit.recalls != self.budget.node.recalls()
    }

    /// Adds `bytes` only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; what is held stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.reservation();
    /// held.try_grow_spare(100)?;
    /// assert_eq!(held.size(), 100);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_grow_spare(&mut self, bytes: usize) -> Result<(), Refused> {
        if !self.spend(bytes) && !self.refill(bytes) {
            self.budget.node.charge(bytes)?;
            self.charged += bytes;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Gives back `bytes`, or all that is held if that is less. Returns what was given back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.try_reserve(60)?;
    /// assert_eq!(held.shrink(20), 20);
    /// assert_eq!(held.shrink(usize::MAX), 40);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn shrink(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let idle = self.charged - self.bytes;
        if self.credit.most == 0 {
            self.charged = self.bytes;
            self.budget.node.release(idle);
        } else if idle > self.credit.most as usize || self.is_recalled() {
            self.settle();
        }
        bytes
    }

    /// Grows or shrinks to hold `bytes` in all.
    ///
    /// # Errors
    ///
    /// [`Refused`] where it must grow and may not; what is held stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.try_reserve(60)?;
    /// held.try_resize(100)?;
    /// held.try_resize(10)?;
    /// assert_eq!(budget.usage().used, 10);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_resize(&mut self, bytes: usize) -> Result<(), Refused> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.try_grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }

    /// Takes `bytes` out into a reservation of their own, or `None` where fewer are held. The
    /// ledger does not change.
    ///
    /// # Examples
    ///
    /// See [`Reservation`].
    #[must_use = "dropping the part gives its bytes back at once"]
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        self.charged -= bytes;
        Some(Self::of_charged(self.budget.clone(), bytes))
    }

    /// Moves all that is held to another node. Nobody sees the bytes at both nodes, or at neither,
    /// and where the two are below one node that one's figures do not change.
    ///
    /// Nothing is taken back for it. Between two trees the bytes are reserved in the one before they
    /// are given back in the other.
    ///
    /// # Errors
    ///
    /// [`Refused`] where they do not fit there; what is held stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(100).build()?;
    /// let (a, b) = (process.child("a").build()?, process.child("b").build()?);
    /// let mut held = a.try_reserve(100)?;
    /// held.try_transfer(&b)?;
    /// assert_eq!((a.usage().used, b.usage().used, process.usage().peak), (0, 100, 100));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_transfer(&mut self, to: &Budget) -> Result<(), Refused> {
        self.end_credit();
        let (from, bytes) = (&self.budget.node, self.bytes);
        if from.is_relative(&to.node) {
            let moved = from.ledger().transfer(from.key(), to.node.key(), bytes);
            moved.map_err(|bar| bar.refused)?.wake();
        } else {
            to.node.charge(bytes)?;
            from.release(bytes);
        }
        self.budget = to.clone();
        Ok(())
    }

    /// Takes over what `other` holds. The ledger does not change.
    ///
    /// # Errors
    ///
    /// `other` itself, untouched, where it is from another node.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.try_reserve(10)?;
    /// held.merge(budget.try_reserve(20)?).expect("from the same budget");
    /// assert_eq!(held.size(), 30);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        if self.budget != other.budget {
            return Err(other);
        }
        let bytes = mem::take(&mut other.bytes);
        other.charged -= bytes;
        self.charged += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.node.release(self.charged);
        if self.credit.most > 0 {
            self.budget.node.ledger().allow(self.budget.node.key(), self.credit.most as usize, 0);
        }
    }
}

/// Bytes of credit, of which 64 KiB are the most that there is.
#[inline]
fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("budget", &self.budget.name())
            .field("bytes", &self.bytes)
            .finish()
    }
}
