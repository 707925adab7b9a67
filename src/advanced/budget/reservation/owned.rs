use super::super::{Budget, reclaim};
use crate::core::error::Refused;
use core::{fmt, mem};

/// Bytes reserved from a [`Budget`]; dropping the reservation releases them.
///
/// It is [`Send`] and has no lifetime: it may outlive the scope, the thread and every handle to its budget. A
/// reservation counts bytes and does not allocate them. Keep it next to the memory that it stands for.
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
#[must_use = "dropping a reservation releases its bytes at once"]
pub struct Reservation {
    budget: Budget,
    /// # Invariants
    ///
    /// The node is charged this number of bytes for this reservation.
    bytes: usize,
}

impl Reservation {
    /// Makes a reservation of bytes that are already charged to the node.
    #[inline]
    pub(crate) fn of_charged(budget: Budget, bytes: usize) -> Self {
        Self { budget, bytes }
    }

    /// Sets the size, after the node was charged `bytes` for this reservation.
    pub(crate) fn adopt(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// Returns the reserved bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes
    }

    /// Returns the node that the bytes are reserved from.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reserves `bytes` more. If they do not fit, reclaims memory from managers first; see
    /// [`Budget::try_reserve`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; the reservation does not change.
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
        let node = &self.budget.node;
        if !node.line().take(bytes) {
            reclaim::admit(node, bytes)?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Reserves `bytes` more only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; the reservation does not change.
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

    /// Adds bytes that exist already and cannot be refused, such as those of an infallible call of the host.
    ///
    /// Bytes beyond a limit are the node's [overdraft](crate::Usage::overdraft). Until they are released, no other
    /// request is admitted at that node. Bytes beyond a total of [`usize::MAX`] in one tree are not counted.
    ///
    /// # Complexity
    ///
    /// Like [`try_grow`](Self::try_grow). Reclaims nothing and runs no foreign code.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let mut held = budget.try_reserve(90)?;
    /// held.grow(30);
    /// assert_eq!((held.size(), budget.usage().overdraft), (120, 20));
    /// assert!(budget.try_reserve(1).is_err());
    ///
    /// held.shrink(50);
    /// assert_eq!(budget.try_reserve(30)?.size(), 30);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += self.budget.node.force(bytes);
    }

    /// Releases `bytes`, or all reserved bytes if they are fewer. Returns the number of released bytes.
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

    /// Grows or shrinks the reservation to `bytes` in total.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot grow. The reservation does not change.
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

    /// Moves `bytes` into a new reservation. Returns `None` if fewer are reserved. The node's figures do not change.
    #[must_use = "dropping the part releases its bytes at once"]
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Self::of_charged(self.budget.clone(), bytes))
    }

    /// Moves the reservation to another node. No thread sees the bytes at both nodes or at neither. The figures of
    /// nodes above both do not change.
    ///
    /// The move reclaims no memory. Between two trees, the bytes are reserved in the new tree before they are
    /// released in the old one.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the bytes do not fit the other node. The reservation does not change.
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
            moved.map_err(|binding| binding.refused)?.wake();
        } else {
            to.node.charge(bytes)?;
            from.release(bytes);
        }
        to.node.note_holder();
        self.budget = to.clone();
        Ok(())
    }

    /// Adds the bytes of another reservation to this one. The node's figures do not change.
    ///
    /// # Errors
    ///
    /// Returns `other` unchanged if it belongs to another node.
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
        if self.bytes > 0 {
            self.budget.node.release(self.bytes);
        }
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
