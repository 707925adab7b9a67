use super::{
    account::Key,
    ledger::Ledger,
    node::Node,
    reclaim::{Registered, contained},
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
    /// What is held beyond the limits, and how much may be, if anything: it is no part of `usage`.
    pub overdraft: Option<Usage>,
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
    /// Times in a row that it was asked and gave nothing, though it had promised to; from the second on it is
    /// passed over for a growing number of rounds.
    pub failures: usize,
    /// Whether it took so long, the last times, that it is asked only on behalf of those who wait.
    pub is_slow: bool,
}

/// Reads the tree under the lock, and asks the managers when that is done: no node is held meanwhile,
/// so that a tenant that goes takes its guarantee with it at once.
pub(super) fn take(node: &Node) -> NodeSnapshot {
    let read = Reading::of(&node.ledger(), node.key());
    read.into_snapshot()
}

/// The figures of a node and of those below it, without copies of names: those wait for the lock to
/// be gone.
struct Reading {
    id: NodeId,
    name: Arc<str>,
    priority: Priority,
    guarantee: usize,
    usage: Usage,
    overdraft: Option<Arc<Node>>,
    managers: Vec<Arc<Registered>>,
    children: Vec<Self>,
}

impl Reading {
    fn of(ledger: &Ledger, key: Key) -> Self {
        let record = ledger.record(key);
        Self {
            id: key.id,
            name: Arc::clone(&record.name),
            priority: record.priority,
            guarantee: ledger[key].guarantee,
            usage: ledger.usage(key),
            overdraft: record.overdraft.clone(),
            managers: record.managers.iter().cloned().collect(),
            children: ledger.children(key).map(|child| Self::of(ledger, child)).collect(),
        }
    }

    fn into_snapshot(self) -> NodeSnapshot {
        let Self { id, name, priority, guarantee, usage, overdraft, managers, children } = self;
        let overdraft = overdraft.map(|node| node.usage());
        let name = name.to_string();
        let managers = managers.iter().filter_map(|manager| figures(manager)).collect();
        let children = children.into_iter().map(Self::into_snapshot).collect();
        NodeSnapshot { id, name, priority, guarantee, usage, overdraft, managers, children }
    }
}

/// `None` where the manager unwinds when it is asked.
fn figures(registered: &Registered) -> Option<ManagerSnapshot> {
    let manager = registered.upgrade()?;
    contained(|| ManagerSnapshot {
        name: manager.name().to_string(),
        class: manager.class(),
        usage: manager.usage(),
        reclaimable: manager.reclaimable().bytes,
        failures: registered.failures(),
        is_slow: registered.is_slow(),
    })
}
