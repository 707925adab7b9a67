use super::ledger::{Key, Node, Reading, Registered};
use crate::{
    core::{Priority, ReclaimClass, ReclaimFailure, Usage, types::NodeId},
    utils::unwind::contained,
};
use std::{
    string::{String, ToString},
    thread,
    vec::Vec,
};

/// The figures of a node of the ledger, of its managers and of all nodes below it; from
/// [`Budget::snapshot`](super::Budget::snapshot).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// The node's identity.
    pub id: NodeId,
    /// The name that the node was made with.
    pub name: String,
    /// The priority of the node.
    pub priority: Priority,
    /// Bytes that the node can always reserve, whatever its siblings have reserved.
    pub guarantee: usize,
    /// Unused bytes of the guarantee. They are charged to the parent.
    pub unused_guarantee: usize,
    /// The figures of the node; they include those of its children.
    pub usage: Usage,
    /// The number of requests that wait at and below the node.
    pub waiting: usize,
    /// The figures of the node's [extra budget](super::Budget::overdraft), if it has one. `usage` does not include
    /// them.
    pub overdraft: Option<Usage>,
    /// The managers that are registered with the node. A manager that panics while its figures are read is left
    /// out; the node's own figures do not depend on it.
    pub managers: Vec<ManagerSnapshot>,
    /// The nodes below, in the order in which they were made.
    pub children: Vec<NodeSnapshot>,
}

/// The figures of a registered manager; from [`Budget::snapshot`](super::Budget::snapshot).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ManagerSnapshot {
    /// The manager's name.
    pub name: String,
    /// The class of its memory.
    pub class: ReclaimClass,
    /// The manager's own figures; they are part of its node's figures.
    pub usage: Usage,
    /// Bytes that the manager could release.
    pub reclaimable: usize,
    /// The number of times in a row that the manager offered bytes, was asked, and released nothing. From the
    /// second time on it is skipped for a growing number of rounds.
    pub failures: usize,
    /// The last error that kept the manager from releasing memory, if there was one.
    pub failure: Option<ReclaimFailure>,
    /// Whether the manager took too long at the last calls. It is then asked only for requests that wait.
    pub is_slow: bool,
}

/// Reads the tree in steps of about twenty microseconds under the lock, and calls the managers without it. No node
/// is kept alive meanwhile, so the guarantee of a tenant that ends is released at once.
///
/// The figures of one node are from one moment. Nodes that are read in two steps may be from two moments.
pub(super) fn take(node: &Node) -> NodeSnapshot {
    let mut read = Vec::new();
    let mut step = Vec::with_capacity(STEP);
    let mut from = Some(0);
    while let Some(at) = from {
        from = node.ledger().read_some(node.key(), at, &mut step);
        // The lock is free now, for longer than it was held, so that other threads make progress.
        read.extend(step.drain(..).map(Read::new));
        if from.is_some() {
            thread::yield_now();
        }
    }
    assemble(node, read)
}

/// The number of nodes that are read under one lock: about twenty microseconds.
const STEP: usize = 256;

/// A node that was read, before the tree is assembled.
struct Read {
    key: Key,
    parent: Option<Key>,
    snapshot: Option<NodeSnapshot>,
}

impl Read {
    fn new(reading: Reading) -> Self {
        let Reading { key, parent, .. } = reading;
        Self { key, parent, snapshot: Some(snapshot(reading)) }
    }
}

/// Assembles the tree from the nodes that were read. A node whose parent was not read was made meanwhile, and is
/// left out.
fn assemble(node: &Node, mut read: Vec<Read>) -> NodeSnapshot {
    // Identities grow: parents come before their children, and siblings are in the order in which they were made.
    read.sort_unstable_by_key(|read| read.key.id);
    let end = read.iter().map(|read| read.key.at as usize + 1).max().unwrap_or(0);
    // The position in `read` of each node, by the node's index.
    let mut places = std::vec![usize::MAX; end];
    for (place, read) in read.iter().enumerate() {
        places[read.key.at as usize] = place;
    }
    // Takes the youngest first, so that each node is complete before its parent takes it. This reverses the order
    // of siblings; it is reversed again when the parent itself is taken.
    for place in (1..read.len()).rev() {
        let Some(above) = read[place].parent else { continue };
        let parent = places.get(above.at as usize).copied().unwrap_or(usize::MAX);
        // Another node may have used the parent's index when the child was read.
        if parent < place
            && read[parent].key == above
            && let Some(mut child) = read[place].snapshot.take()
            && let Some(parent) = &mut read[parent].snapshot
        {
            child.children.reverse();
            parent.children.push(child);
        }
    }
    let top = read.into_iter().next().and_then(|read| read.snapshot);
    let mut top = top.unwrap_or_else(|| {
        let mut own = Vec::with_capacity(1);
        node.ledger().read_some(node.key(), node.key().at as usize, &mut own);
        snapshot(own.pop().expect("the handle keeps the node"))
    });
    top.children.reverse();
    top
}

fn snapshot(reading: Reading) -> NodeSnapshot {
    let Reading { key, shared, priority, guarantee, usage, unused_guarantee, waiting, .. } =
        reading;
    NodeSnapshot {
        id: key.id,
        name: shared.name.as_str().to_string(),
        priority,
        guarantee,
        unused_guarantee,
        usage,
        waiting,
        overdraft: shared.overdraft.as_ref().map(|node| node.usage()),
        managers: reading.managers.iter().filter_map(|manager| figures(manager)).collect(),
        children: Vec::new(),
    }
}

/// Returns the figures of a manager; `None` if it panics.
fn figures(registered: &Registered) -> Option<ManagerSnapshot> {
    let manager = registered.upgrade()?;
    contained(|| ManagerSnapshot {
        name: manager.name().to_string(),
        class: manager.class(),
        usage: manager.usage(),
        reclaimable: manager.reclaimable().bytes,
        failures: registered.failures(),
        failure: manager.failure(),
        is_slow: registered.is_slow(),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{super::Budget, Read, STEP, assemble};
    use std::vec::Vec;

    /// Between two steps a node ends, and another one takes its index in the ledger.
    #[test]
    fn a_child_is_not_put_below_the_node_whose_place_its_parent_took() {
        let process = Budget::root("process").build().unwrap();
        let gone = process.child("gone").build().unwrap();
        let siblings: Vec<_> =
            (0..2 * STEP).map(|_| process.child("sibling").build().unwrap()).collect();
        let (node, mut step) = (&process.node, Vec::with_capacity(STEP));
        let from = node.ledger().read_some(node.key(), 0, &mut step).expect("there are more");
        let mut read: Vec<Read> = step.drain(..).map(Read::new).collect();

        let place = gone.node.key().at;
        drop(gone);
        let other = process.child("other").build().unwrap();
        assert_eq!(other.node.key().at, place);
        let below = other.child("below").build().unwrap();
        let mut from = Some(from);
        while let Some(at) = from {
            from = node.ledger().read_some(node.key(), at, &mut step);
            read.extend(step.drain(..).map(Read::new));
        }
        let snapshot = assemble(node, read);
        let gone = &snapshot.children[0];
        assert_eq!((gone.name.as_str(), gone.children.len()), ("gone", 0));
        drop((siblings, below));
    }
}
