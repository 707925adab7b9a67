//! The record of a node: its data in the ledger that a charge does not need.

use super::{account::NONE, node::Shared, share::Sharing, spec::NodeSpec, wait::Waits};
use crate::core::types::NodeId;
use core::cmp::Reverse;
use std::{boxed::Box, collections::BTreeSet, sync::Arc, vec::Vec};

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
    /// The declared number of tasks that may hold memory of the node; 0 if none was declared.
    pub(crate) workers: u32,
    /// Requests that wait at and below the node.
    pub(crate) waiting: u32,
    /// Requests at and below the node whose answer was not fetched yet.
    pub(crate) answered: u32,
    /// The number of times that the limit was set; wraps around.
    pub(crate) limits_set: u32,
    /// Where the node is in the list of open lines, if its line is open.
    pub(super) open_at: u8,
    /// Whether the node and its guarantee end with its work.
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
    /// Data that only few nodes have.
    pub(super) extra: Option<Box<Extra>>,
}

/// How many classes of managers there are.
pub(crate) const CLASSES: usize = crate::core::ReclaimClass::ALL.len();

/// The number of orders of the children with managers: first one for each class for the managers to ask, then one for
/// each class for the resting managers.
pub(super) const ORDERS: usize = 2 * CLASSES;

/// The part of a record that most nodes do not have.
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
    pub(super) fn new(spec: NodeSpec, shared: Arc<Shared>) -> Self {
        let NodeSpec { weight, sharing, workers, is_temporary, .. } = spec;
        let extra = (!sharing.is_strict()).then(|| Box::new(Extra { sharing, ..Extra::default() }));
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
        self.extra.as_ref().map_or(&Sharing::STRICT, |extra| &extra.sharing)
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}
