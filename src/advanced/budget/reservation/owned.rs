use super::Budget;
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
    /// # Invariants
    ///
    /// The node is charged as many bytes for this reservation.
    bytes: usize,
}

impl Reservation {
    pub(super) fn empty(budget: Budget) -> Self {
        Self::of_charged(budget, 0)
    }

    /// Takes over bytes that the node was charged.
    pub(super) fn of_charged(budget: Budget, bytes: usize) -> Self {
        Self { budget, bytes }
    }

    /// Takes it that the node is charged `bytes` for this reservation.
    pub(super) fn adopt(&mut self, bytes: usize) {
        self.bytes = bytes;
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
        self.budget.node.admit(bytes)?;
        self.bytes += bytes;
        Ok(())
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
        self.budget.node.charge(bytes)?;
        self.bytes += bytes;
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
        self.budget.node.release(bytes);
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
        self.bytes += mem::take(&mut other.bytes);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.node.release(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("budget", &self.budget.name())
            .field("bytes", &self.bytes)
            .finish()
    }
}
