use super::super::{Budget, ledger::Node, reclaim};
use crate::core::error::Refused;
use core::fmt;
use std::sync::Arc;

/// A [`Reservation`](super::Reservation) that several threads grow and shrink; from
/// [`Budget::shared_reservation`].
///
/// Growing or shrinking is one compare-and-swap on a word of this reservation, whatever the depth of the node. The
/// reservation keeps up to 128 KiB of unused credit, which the ledger recalls when another request does not fit.
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
#[must_use = "dropping a reservation releases its bytes at once"]
pub struct SharedReservation {
    budget: Budget,
    /// A hidden node below the budget's node, without a limit. All its charges belong to this reservation.
    node: Arc<Node>,
}

impl SharedReservation {
    pub(crate) fn empty(budget: Budget) -> Self {
        budget.node.note_holder();
        let node = Node::hidden(&budget.node);
        Self { budget, node }
    }

    /// Returns the reserved bytes. Takes the ledger's lock.
    #[must_use]
    pub fn size(&self) -> usize {
        self.node.ledger().used(self.node.key())
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
    #[inline]
    pub fn try_grow(&self, bytes: usize) -> Result<(), Refused> {
        if self.node.line().take(bytes) { Ok(()) } else { reclaim::admit(&self.node, bytes) }
    }

    /// Reserves `bytes` more only if they are free now; see [`Budget::try_reserve_spare`].
    ///
    /// # Errors
    ///
    /// [`Refused`]; the reservation does not change.
    #[inline]
    pub fn try_grow_spare(&self, bytes: usize) -> Result<(), Refused> {
        self.node.charge(bytes)
    }

    /// Adds bytes that exist already and cannot be refused; see [`Reservation::grow`](super::Reservation::grow).
    pub fn grow(&self, bytes: usize) {
        self.node.force(bytes);
    }

    /// Releases `bytes`, or all reserved bytes if they are fewer. Returns the number of released bytes.
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
