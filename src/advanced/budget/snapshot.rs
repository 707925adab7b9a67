use super::{
    node::Node,
    reclaim::{Lent, Registered, contained},
};
use crate::core::{Priority, ReclaimClass, Usage, types::NodeId};
use std::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

/// What a node of the ledger held at one moment, with its managers and everything below it.
///
/// # Examples
///
/// See [`Budget::snapshot`](super::Budget::snapshot).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// The node's identity.
    pub id: NodeId,
    /// The name given when the node was made.
    pub name: String,
    /// How much the node matters when memory is taken back.
    pub priority: Priority,
    /// Bytes that are the node's whatever its siblings hold.
    pub guarantee: usize,
    /// The figures of the node; those of its children are part of them.
    pub usage: Usage,
    /// The managers registered with the node. One that panics when it is asked for its figures is
    /// left out; the node's own are whole without it.
    pub managers: Vec<ManagerSnapshot>,
    /// The nodes below, in the order in which they were made.
    pub children: Vec<NodeSnapshot>,
}

/// What a registered manager held at one moment.
///
/// # Examples
///
/// See [`Budget::snapshot`](super::Budget::snapshot).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ManagerSnapshot {
    /// The manager's name.
    pub name: String,
    /// What kind of memory it holds.
    pub class: ReclaimClass,
    /// Its own figures; they are part of its node's.
    pub usage: Usage,
    /// Bytes that it could give back.
    pub reclaimable: usize,
}

/// Reads the tree, and asks the managers when that is done: no lock is held meanwhile, and no node,
/// so that a tenant that goes takes its guarantee with it at once.
pub(super) fn take(node: &Node) -> NodeSnapshot {
    let mut managers = Vec::new();
    let mut snapshot = read(node, &mut managers);
    ask(&mut snapshot, &mut managers.into_iter());
    snapshot
}

/// The figures of `node` and of those below it; the managers of each go to `managers`, in the same
/// order.
fn read(node: &Node, managers: &mut Vec<Vec<Arc<Registered>>>) -> NodeSnapshot {
    managers.push(node.managers());
    NodeSnapshot {
        id: node.id(),
        name: node.name().to_string(),
        priority: node.priority(),
        guarantee: node.guarantee(),
        usage: node.usage(),
        managers: Vec::new(),
        children: node.children().iter().map(|child| read(child, managers)).collect(),
    }
}

fn ask(node: &mut NodeSnapshot, managers: &mut impl Iterator<Item = Vec<Arc<Registered>>>) {
    let registered = managers.next().unwrap_or_default();
    node.managers = registered.iter().filter_map(|manager| figures(&manager.upgrade()?)).collect();
    for child in &mut node.children {
        ask(child, managers);
    }
}

/// `None` where the manager unwinds when it is asked.
fn figures(manager: &Lent) -> Option<ManagerSnapshot> {
    contained(|| ManagerSnapshot {
        name: manager.name().to_string(),
        class: manager.class(),
        usage: manager.usage(),
        reclaimable: manager.reclaimable().bytes,
    })
}
