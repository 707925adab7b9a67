use super::node::Node;
use crate::core::{Priority, ReclaimClass, Usage, types::NodeId};
use std::{
    string::{String, ToString},
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
    /// The managers registered with the node.
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

/// Reads the tree. No lock is held while a manager is asked for its figures.
pub(super) fn take(node: &Node) -> NodeSnapshot {
    let managers = node
        .managers()
        .iter()
        .filter_map(|registered| registered.upgrade())
        .map(|manager| ManagerSnapshot {
            name: manager.name().to_string(),
            class: manager.class(),
            usage: manager.usage(),
            reclaimable: manager.reclaimable().bytes,
        })
        .collect();
    NodeSnapshot {
        id: node.id(),
        name: node.name().to_string(),
        priority: node.priority(),
        guarantee: node.guarantee(),
        usage: node.usage(),
        managers,
        children: node.children().iter().map(|child| take(child)).collect(),
    }
}
