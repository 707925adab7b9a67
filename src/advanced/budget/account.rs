//! What the ledger knows of a node.

use super::{
    credit::credit_within, ledger::UNLIMITED, line::Line, node::Node, reclaim::Registered,
};
use crate::{
    core::{Priority, error::Refused, types::NodeId},
    integration::traits::Policy,
    utils::swept::Swept,
};
use std::{collections::BTreeSet, sync::Arc};

/// Names an account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    /// First, so that keys are in the order in which the nodes were made.
    pub(super) id: NodeId,
    pub(super) at: usize,
}

/// What a charge of one node goes by; one line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Account {
    /// Bytes charged to the node: by its reservations and its line, and drawn by its children.
    pub(super) charged: usize,
    /// The highest that `charged` was before it last fell.
    pub(super) peak: usize,
    pub(super) limit: usize,
    pub(super) guarantee: usize,
    /// Place of the parent's account; [`NOWHERE`] for a root.
    pub(super) parent: usize,
    /// The most credit that the limits on the path allow; 0 where the node is exact.
    pub(super) credit: u32,
    /// Nodes at and below this one whose line is open.
    pub(super) open_below: u32,
    /// Charges that came to the lock, up to [`WARM`](super::credit::WARM).
    pub(super) warmth: u8,
    /// Whether the line is open.
    pub(super) is_open: bool,
    /// Whether no charge is admitted any more.
    pub(super) is_closed: bool,
}

const _: () = assert!(size_of::<Account>() == 64);

/// Where no account is.
pub(super) const NOWHERE: usize = usize::MAX;

impl Account {
    /// That of a new node below `parent`, whose account is `above`.
    pub(super) fn new(terms: &Terms, parent: Option<Key>, above: Option<&Self>) -> Self {
        Self {
            charged: 0,
            peak: 0,
            limit: terms.limit,
            guarantee: terms.guarantee,
            parent: parent.map_or(NOWHERE, |parent| parent.at),
            credit: credit_within(terms.limit).min(above.map_or(u32::MAX, |above| above.credit)),
            open_below: 0,
            warmth: 0,
            is_open: false,
            is_closed: above.is_some_and(|above| above.is_closed),
        }
    }

    /// What the parent is charged where this node is charged `bytes`.
    #[inline]
    pub(super) fn draw(&self, bytes: usize) -> usize {
        bytes.max(self.guarantee)
    }

    /// Adds `bytes`; returns by how much more is drawn from the parent.
    #[inline]
    pub(super) fn add(&mut self, bytes: usize) -> usize {
        let before = self.charged;
        self.charged += bytes;
        // Most have no guarantee; for them the processor goes on to the parent without these sums.
        if self.guarantee == 0 { bytes } else { self.draw(self.charged) - self.draw(before) }
    }

    /// Takes `bytes` off; returns by how much less is drawn from the parent.
    #[inline]
    pub(super) fn subtract(&mut self, bytes: usize) -> usize {
        debug_assert!(self.charged >= bytes, "released {bytes} of {}", self.charged);
        let before = self.charged;
        self.charged -= bytes;
        if self.guarantee == 0 { bytes } else { self.draw(before) - self.draw(self.charged) }
    }

    /// Bytes that are free here, whatever is above.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.charged)
    }
}

/// What else the ledger knows of a node.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) children: BTreeSet<Key>,
    pub(super) name: Arc<str>,
    pub(super) priority: Priority,
    pub(super) weight: u32,
    /// How it divides what it has among its children; [`Strict`](crate::integration::traits::Strict) if none.
    pub(super) policy: Option<Arc<dyn Policy>>,
    /// How many may be at work for the node at once; 0 where it is a part of its parent's that is
    /// counted apart, and shown nobody.
    pub(super) workers: u32,
    /// Whether the node goes when its work is done, and its guarantee with it.
    pub(super) is_temporary: bool,
    /// How often the limit was set; wraps around.
    pub(super) limits_set: u32,
    pub(super) refused: u64,
    pub(super) reclaimed: u64,
    /// Bytes that managers at and below the node are being asked for on behalf of others.
    pub(super) asked: usize,
    /// The most that may lie idle in reservations from the node and from those below it.
    pub(super) stranded: usize,
    pub(super) line: Arc<Line>,
    /// Of another tree.
    pub(super) overdraft: Option<Arc<Node>>,
    /// Where in the ledger's list of open lines this one is, if it is open.
    pub(super) open_at: usize,
    pub(super) managers: Swept<Arc<Registered>>,
    /// How many there are at and below the node.
    pub(super) managers_below: usize,
}

impl Record {
    pub(super) fn new(key: Key, terms: Terms, parts: Parts) -> Self {
        let Terms { name, priority, weight, policy, workers, is_temporary, .. } = terms;
        let Parts { line, overdraft, .. } = parts;
        Self {
            key,
            children: BTreeSet::new(),
            name,
            priority,
            weight,
            policy,
            workers,
            is_temporary,
            limits_set: 0,
            refused: 0,
            reclaimed: 0,
            asked: 0,
            stranded: 0,
            line,
            overdraft,
            open_at: 0,
            managers: Swept::default(),
            managers_below: 0,
        }
    }
}

/// A refusal, and the account that it names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub(super) at: Key,
    pub(super) refused: Refused,
}

impl Bar {
    /// Bytes that have to be given back at the node, at least.
    pub(super) fn missing(&self) -> usize {
        self.refused.requested.saturating_sub(self.refused.available).max(1)
    }
}

/// What a node is made from; checked by the builder.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: Arc<str>,
    pub(super) limit: usize,
    pub(super) guarantee: usize,
    pub(super) priority: Priority,
    pub(super) weight: u32,
    pub(super) policy: Option<Arc<dyn Policy>>,
    pub(super) workers: u32,
    pub(super) is_temporary: bool,
}

impl Terms {
    /// Those of a node about which no more is said.
    pub(super) const fn new(name: Arc<str>, priority: Priority) -> Self {
        Self {
            name,
            limit: UNLIMITED,
            guarantee: 0,
            priority,
            weight: 1,
            policy: None,
            workers: 1,
            is_temporary: false,
        }
    }
}

/// What a node shares with its account.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: NodeId,
    pub(super) line: Arc<Line>,
    pub(super) overdraft: Option<Arc<Node>>,
}
