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

/// The figures of a node of the ledger, its managers and everything below it; from
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
    /// Bytes that the node can always reserve, whatever its siblings hold.
    pub guarantee: usize,
    /// Unused bytes of the guarantee. The node above is charged for them.
    pub unused_guarantee: usize,
    /// The figures of the node; they include its children's.
    pub usage: Usage,
    /// Requests that wait at and below the node.
    pub waiting: usize,
    /// The figures of the node's [extra budget](super::Budget::overdraft), if it has one. `usage` does not include
    /// them.
    pub overdraft: Option<Usage>,
    /// The managers that are registered with the node. One that panics when it is asked for its figures is left
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
    /// The kind of its memory.
    pub class: ReclaimClass,
    /// Its own figures; they are part of its node's.
    pub usage: Usage,
    /// Bytes that it could give back.
    pub reclaimable: usize,
    /// Times in a row that it offered bytes, was asked, and gave nothing. From the second on it is passed over
    /// for a growing number of rounds.
    pub failures: usize,
    /// The last error that kept it from giving memory back, if there was one.
    pub failure: Option<ReclaimFailure>,
    /// Whether it took so long, the last times, that it is asked only for requests that wait.
    pub is_slow: bool,
}

/// Reads the tree in steps, and asks the managers without the lock, which is held for some ten microseconds at a
/// time. No node is kept alive meanwhile: the guarantee of a tenant that ends is released at once.
///
/// The figures of a node are of one moment. Two nodes that were read in two steps may be of two moments.
pub(super) fn take(node: &Node) -> NodeSnapshot {
    let mut read = Vec::new();
    let mut step = Vec::with_capacity(STEP);
    let mut from = Some(0);
    while let Some(at) = from {
        from = node.ledger().read_some(node.key(), at, &mut step);
        // The lock is free meanwhile, for longer than it was held: others get on.
        read.extend(step.drain(..).map(Read::new));
        if from.is_some() {
            thread::yield_now();
        }
    }
    assemble(node, read)
}

/// How many nodes are read under one lock: some twenty microseconds' work.
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
    // Identities grow: parents come before their children, and siblings in the order in which they were made.
    read.sort_unstable_by_key(|read| read.key.id);
    let end = read.iter().map(|read| read.key.at as usize + 1).max().unwrap_or(0);
    // The position in `read` of each node, by the node's index.
    let mut places = std::vec![usize::MAX; end];
    for (place, read) in read.iter().enumerate() {
        places[read.key.at as usize] = place;
    }
    // The youngest first, so that each is whole before its parent takes it. The order of siblings is reversed
    // then, and is turned round when the parent itself is taken.
    for place in (1..read.len()).rev() {
        let Some(above) = read[place].parent else { continue };
        let parent = places.get(above.at as usize).copied().unwrap_or(usize::MAX);
        // Another node may have had the parent's place when that was read.
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

    /// Between two steps a node goes, and another one takes its place in the ledger.
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
