use super::{Budget, node::Node};
use crate::core::error::Refused;
use core::fmt;
use std::sync::Arc;

/// A [`Reservation`](super::Reservation) that several threads grow and shrink; from
/// [`Budget::shared_reservation`].
///
/// Growing and shrinking is one compare-and-swap on a word of its own, whatever the depth of the
/// node. The word has up to 64 KiB more than is held, as credit that the ledger takes back when
/// something else does not fit.
///
/// # Examples
///
/// ```
/// use nebula_memory::Budget;
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let open_files = budget.shared_reservation();
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| open_files.try_grow(100).expect("400 of 1000 bytes"));
///     }
/// });
/// assert_eq!((open_files.size(), budget.usage().used), (400, 400));
/// drop(open_files);
/// assert_eq!(budget.usage().used, 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "dropping a reservation gives its bytes back at once"]
pub struct SharedReservation {
    budget: Budget,
    /// Hidden below the budget's, with no limit of its own; all that it is charged is held here.
    node: Arc<Node>,
}

impl SharedReservation {
    pub(super) fn empty(budget: Budget) -> Self {
        let node = Node::hidden(&budget.node);
        Self { budget, node }
    }

    /// Bytes held. Takes the ledger's lock.
    #[must_use]
    pub fn size(&self) -> usize {
        self.node.ledger().used(self.node.key())
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
    #[inline]
    pub fn try_grow(&self, bytes: usize) -> Result<(), Refused> {
        self.node.admit(bytes)
    }

    /// Adds `bytes` only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; what is held stays as it was.
    #[inline]
    pub fn try_grow_spare(&self, bytes: usize) -> Result<(), Refused> {
        self.node.charge(bytes)
    }

    /// Gives back `bytes`, or all that is held if that is less. Returns what was given back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let held = budget.shared_reservation();
    /// held.try_grow(60)?;
    /// assert_eq!(held.shrink(20), 20);
    /// assert_eq!(held.shrink(usize::MAX), 40);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn shrink(&self, bytes: usize) -> usize {
        self.node.release_at_most(bytes)
    }
}

impl Drop for SharedReservation {
    fn drop(&mut self) {
        self.node.release_at_most(usize::MAX);
    }
}

impl fmt::Debug for SharedReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReservation")
            .field("budget", &self.budget.name())
            .field("bytes", &self.size())
            .finish()
    }
}
