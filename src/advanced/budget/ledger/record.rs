//! What the ledger knows of a node beside its account, and the part that it shares with the node's handles.

use super::{
    Node,
    account::{NONE, UNLIMITED},
    line::Line,
    share::Sharing,
    wait::Waits,
};
use crate::{
    core::{Label, Priority, types::NodeId},
    integration::traits::context::tasks::Tasks,
    utils::sync::{AtomicU8, AtomicU32, Ordering},
};
use core::cmp::Reverse;
use std::{
    boxed::Box,
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    vec::Vec,
};

/// The figures of a node that a charge does not need.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: NodeId,
    pub(crate) shared: Arc<Shared>,
    /// The children are a list, in the order in which they were made.
    pub(super) first_child: u32,
    pub(super) last_child: u32,
    pub(super) previous: u32,
    pub(super) next: u32,
    pub(crate) weight: u32,
    /// How many tasks may hold memory of the node, where somebody said so; 0 where nobody did.
    pub(crate) workers: u32,
    /// Requests that wait at and below the node.
    pub(crate) waiting: u32,
    /// Requests at and below the node that were answered and whose answer nobody has fetched.
    pub(crate) answered: u32,
    /// How often the limit was set; wraps around.
    pub(crate) limits_set: u32,
    /// Where the node is in the list of open lines, if its line is open.
    pub(super) open_at: u8,
    pub(crate) priority: Priority,
    /// The node and its guarantee go when its work is done.
    pub(crate) is_temporary: bool,
    /// Bytes of guarantees below the node, of nodes that are not temporary.
    pub(crate) lasting_below: usize,
    /// Bytes of guarantees below the node.
    pub(crate) guaranteed_below: usize,
    pub(crate) refused: u64,
    pub(crate) reclaimed: u64,
    /// Bytes that managers at and below the node are being asked for on behalf of others.
    pub(crate) asked: usize,
    /// The most unused credit in buffered reservations from the node and from those below it.
    pub(super) stranded: usize,
    pub(super) waits: Option<Box<Waits>>,
    /// What few nodes have.
    pub(super) extra: Option<Box<Extra>>,
}

/// How many classes of managers there are.
pub(crate) const CLASSES: usize = crate::core::ReclaimClass::ALL.len();

/// How many orders the children with managers stand in: for each class that of managers to be asked, and
/// after all classes that of managers that rest.
pub(super) const ORDERS: usize = 2 * CLASSES;

/// The part of a record that most nodes do without.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) sharing: Sharing,
    /// The sum of the active children's weights, where the policy divides by weight.
    pub(super) active_weight: u64,
    /// Indices of the node's managers in the registry.
    pub(super) managers: Vec<u32>,
    /// Managers at and below the node, by order.
    pub(super) counts: [u32; ORDERS],
    /// The children with managers at or below them, by order: the largest borrowers first.
    pub(super) borrowers: [BTreeSet<(Reverse<u8>, u32)>; ORDERS],
}

impl Record {
    pub(super) fn new(spec: NodeSpec, shared: Arc<Shared>, priority: Priority) -> Self {
        let NodeSpec { weight, sharing, workers, is_temporary, .. } = spec;
        let extra = (!matches!(sharing, Sharing::Strict))
            .then(|| Box::new(Extra { sharing, ..Extra::default() }));
        Self {
            id: shared.id,
            shared,
            first_child: NONE,
            last_child: NONE,
            previous: NONE,
            next: NONE,
            weight,
            workers,
            waiting: 0,
            answered: 0,
            limits_set: 0,
            open_at: 0,
            priority,
            is_temporary,
            lasting_below: 0,
            guaranteed_below: 0,
            refused: 0,
            reclaimed: 0,
            asked: 0,
            stranded: 0,
            waits: None,
            extra,
        }
    }

    pub(crate) fn sharing(&self) -> &Sharing {
        self.extra.as_ref().map_or(&Sharing::Strict, |extra| &extra.sharing)
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// A node's name, held inline if it is short.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    /// The whole name, or what reports show of a long one.
    pub(crate) label: Label,
    long: Option<Box<str>>,
}

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        let long = (name.len() > Label::CAPACITY).then(|| name.into());
        Self { label: Label::new(name), long }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.label == Label::new("")
    }

    pub(crate) fn as_str(&self) -> &str {
        self.long.as_deref().unwrap_or_else(|| self.label.as_str())
    }
}

/// The part of a node that its ledger and its handles share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    /// How often buffered reservations were told to release their unused credit; wraps around.
    recalls: AtomicU32,
    /// Nodes above this one.
    pub(crate) depth: u8,
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    /// A ledger of its own; see [`Budget::overdraft`](crate::Budget::overdraft).
    pub(crate) overdraft: Option<Arc<Node>>,
    /// The tasks of the contexts that carry the node, once there is one.
    pub(crate) tasks: OnceLock<Arc<Tasks>>,
    /// 1 once a reservation of the node was begun outside of the contexts that carry the nearest node from this
    /// one up, or before there were any.
    strangers: AtomicU8,
    /// Last, and apart from the fields that are only read.
    pub(crate) line: Line,
}

impl Shared {
    pub(super) fn new(
        id: NodeId,
        name: Name,
        depth: u8,
        overdraft: Option<Arc<Node>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            recalls: AtomicU32::new(0),
            depth,
            id,
            name,
            overdraft,
            tasks: OnceLock::new(),
            strangers: AtomicU8::new(0),
            line: Line::new(),
        })
    }

    /// Notes that a task that is in none of the contexts may hold a reservation.
    pub(super) fn note_stranger(&self) {
        // Relaxed: read under the ledger's lock, which the reservation's charge or a later one takes.
        self.strangers.store(1, Ordering::Relaxed);
    }

    /// Whether a task that is not known by contexts may hold a reservation.
    #[inline]
    pub(super) fn has_strangers(&self) -> bool {
        self.strangers.load(Ordering::Relaxed) != 0
    }

    /// Tells buffered reservations of the node to release their unused credit.
    pub(super) fn recall(&self) {
        // Relaxed: a reservation that sees it late has credit that is charged.
        self.recalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often, modulo 2³².
    #[inline]
    pub(crate) fn recalls(&self) -> u32 {
        self.recalls.load(Ordering::Relaxed)
    }
}

/// The description of a node before it is made, as the builder has checked it.
#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    pub(crate) limit: usize,
    pub(crate) guarantee: usize,
    /// `None` for the parent's.
    pub(crate) priority: Option<Priority>,
    pub(crate) weight: u32,
    pub(crate) sharing: Sharing,
    pub(crate) workers: u32,
    pub(crate) is_hidden: bool,
    pub(crate) is_temporary: bool,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            limit: UNLIMITED,
            guarantee: 0,
            priority: None,
            weight: 1,
            sharing: Sharing::Strict,
            workers: 0,
            is_hidden: false,
            is_temporary: false,
        }
    }
}
