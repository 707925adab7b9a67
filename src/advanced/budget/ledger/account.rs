//! The account of a node: the figures that a charge reads and writes.

use crate::core::{error::Refused, types::NodeId};

/// Names a node to its ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) id: NodeId,
    /// Index of the node's account and of its record.
    pub(crate) at: u32,
}

/// The index that no account has.
pub(crate) const NONE: u32 = u32::MAX;

/// The limit of a node that has none. No sum of live objects reaches it.
pub(crate) const UNLIMITED: usize = usize::MAX;

/// The reasons why a charge or a release at this node has to update more than the account, as bits. Most nodes have
/// none.
pub(crate) mod watch {
    /// Requests wait at or below the node.
    pub(crate) const WAITERS: u8 = 1;
    /// Managers are registered at or below the node, so its parent orders it by borrowed bytes.
    pub(crate) const MANAGERS: u8 = 2;
    /// The parent's policy divides by weight among its active children.
    pub(crate) const SHARES: u8 = 4;
}

/// The figures that a charge reads and writes at one node, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Account {
    /// Bytes charged to the node: by its reservations, by its line and by its children.
    pub(crate) charged: usize,
    /// The highest value of `charged` before it last fell.
    pub(crate) peak: usize,
    pub(crate) limit: usize,
    pub(crate) guarantee: usize,
    /// The part of `charged` that children draw, without hidden ones.
    pub(crate) drawn: usize,
    /// Bytes ever released at or below the node; wraps around.
    pub(crate) released: usize,
    /// Index of the parent; [`NONE`] for a root.
    pub(crate) parent: u32,
    /// Open lines at and below the node.
    pub(crate) lines_below: u8,
    /// Charges that took the lock, up to [`WARM`](super::credit::WARM).
    pub(crate) warmth: u8,
    pub(crate) watch: u8,
    /// The size class of the borrowed bytes by which the parent orders this node.
    pub(crate) borrowed: u8,
    /// Nodes above this one.
    pub(crate) depth: u8,
    pub(crate) is_open: bool,
    pub(crate) is_closed: bool,
    /// Counted in the weights of the parent's active children.
    pub(crate) is_active: bool,
    /// The node belongs to its parent and no report shows it.
    pub(crate) is_hidden: bool,
}

const _: () = assert!(size_of::<Account>() == 64);

impl Account {
    pub(super) fn new(
        limit: usize,
        guarantee: usize,
        is_hidden: bool,
        parent: Option<(u32, &Self)>,
    ) -> Self {
        Self {
            charged: 0,
            peak: 0,
            limit,
            guarantee,
            drawn: 0,
            released: 0,
            parent: parent.map_or(NONE, |(at, _)| at),
            lines_below: 0,
            warmth: 0,
            watch: 0,
            borrowed: 0,
            depth: parent.map_or(0, |(_, above)| above.depth + 1),
            is_open: false,
            is_closed: parent.is_some_and(|(_, above)| above.is_closed),
            is_active: false,
            is_hidden,
        }
    }

    /// Returns the bytes that the parent is charged when this node is charged `bytes`.
    #[inline]
    pub(crate) fn draw(&self, bytes: usize) -> usize {
        bytes.max(self.guarantee)
    }

    /// Returns the bytes that the parent is charged for this node.
    #[inline]
    pub(crate) fn drawn_above(&self) -> usize {
        self.draw(self.charged)
    }

    /// Returns the unused bytes of the guarantee.
    #[inline]
    pub(crate) fn slack(&self) -> usize {
        self.guarantee.saturating_sub(self.charged)
    }

    /// Returns the bytes charged beyond the guarantee.
    #[inline]
    pub(crate) fn borrowed_bytes(&self) -> usize {
        self.charged.saturating_sub(self.guarantee)
    }

    /// Adds `bytes`. Returns the additional bytes to charge the parent for.
    #[inline]
    pub(super) fn add(&mut self, bytes: usize) -> usize {
        let before = self.charged;
        self.charged += bytes;
        // Most nodes have no guarantee; for them the parent's charge does not depend on this sum.
        if self.guarantee == 0 { bytes } else { self.draw(self.charged) - self.draw(before) }
    }

    /// Subtracts `bytes`. Returns the bytes to release at the parent.
    #[inline]
    pub(super) fn subtract(&mut self, bytes: usize) -> usize {
        debug_assert!(self.charged >= bytes, "released {bytes} of {}", self.charged);
        let before = self.charged;
        self.charged -= bytes;
        if self.guarantee == 0 { bytes } else { self.draw(before) - self.draw(self.charged) }
    }

    /// Returns the part of a change of `bytes` bytes in the parent's charge that counts as drawn there.
    #[inline]
    pub(super) fn shown(&self, bytes: usize) -> usize {
        if self.is_hidden { 0 } else { bytes }
    }

    /// Returns the bytes that may still be charged here, without regard to the nodes above.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.charged)
    }
}

/// The binding node, and the refusal that names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) at: Key,
    pub(crate) refused: Refused,
}

impl Binding {
    /// Returns the least bytes that have to be released at the node.
    pub(crate) fn missing(&self) -> usize {
        self.refused.requested.saturating_sub(self.refused.available).max(1)
    }
}
