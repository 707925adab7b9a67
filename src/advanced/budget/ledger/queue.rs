//! Ordered queues, stored as one forest of treaps. Each entry has a *need*: the bytes that it needs from the queue's
//! node.
//!
//! A queue is a binary search tree by [`Entry::order`], and a heap by a pseudo-random weight, so that its
//! depth is logarithmic with high probability (Seidel and Aragon, "Randomized Search Trees", 1996). Each
//! tree node also stores the least need of its subtree. So a search for the first entry with at most a given need skips
//! subtrees whose least need is larger.
//!
//! Insertion, removal and search take logarithmic time in the queue's length. Reading the least need of a whole queue
//! takes constant time.

#[cfg(test)]
mod validate;

use super::account::NONE;
use std::vec::Vec;

/// A request that waits, or the first of the requests below a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number of the request `first`: smaller ones began to wait earlier. Unique within a queue.
    pub(super) order: u64,
    /// The request that stands for the entry: the first that its own node and those below it could admit.
    pub(super) first: u32,
    /// The child below which it waits; [`NONE`] for a request of the queue's own node.
    pub(super) child: u32,
    /// The bytes that `first` needs from this node.
    pub(super) first_need: usize,
    /// The least bytes that any request of the entry needs from this node.
    pub(super) need: usize,
}

/// A queue: the root of its tree in the forest, or [`NONE`].
pub(super) type Queue = u32;

/// The trees of all queues.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// Indices of `nodes` that no tree uses.
    vacant: Vec<u32>,
    seed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    entry: Entry,
    /// The least need in the subtree.
    least: usize,
    weight: u32,
    left: u32,
    right: u32,
}

impl Forest {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// Returns the least need in a queue; [`usize::MAX`] if it is empty.
    #[inline]
    pub(super) fn least(&self, queue: Queue) -> usize {
        if queue == NONE { usize::MAX } else { self.node(queue).least }
    }

    /// Returns the entry with the smallest order.
    pub(super) fn first(&self, queue: Queue) -> Option<&Entry> {
        let mut at = queue;
        let mut found = None;
        while at != NONE {
            let node = self.node(at);
            found = Some(&node.entry);
            at = node.left;
        }
        found
    }

    /// Returns the first entry after `after`, or of the whole queue, that needs at most `within` bytes.
    pub(super) fn first_within(
        &self,
        queue: Queue,
        within: usize,
        after: Option<u64>,
    ) -> Option<Entry> {
        if self.least(queue) > within || queue == NONE {
            return None;
        }
        let node = self.node(queue);
        if after.is_some_and(|after| node.entry.order <= after) {
            return self.first_within(node.right, within, after);
        }
        self.first_within(node.left, within, after)
            .or_else(|| (node.entry.need <= within).then_some(node.entry))
            .or_else(|| self.first_within(node.right, within, None))
    }

    /// Calls `visit` for each entry of a queue, in order.
    pub(super) fn for_each(&self, queue: Queue, visit: &mut impl FnMut(&Entry)) {
        if queue != NONE {
            let node = self.node(queue);
            self.for_each(node.left, visit);
            visit(&node.entry);
            self.for_each(node.right, visit);
        }
    }

    /// Adds an entry whose order is not in the queue.
    pub(super) fn insert(&mut self, queue: &mut Queue, entry: Entry) {
        // A multiplicative congruential generator: the weights only have to be independent of the orders.
        self.seed = self.seed.wrapping_mul(0x915F_77F5).wrapping_add(0x9E37_79B9);
        let weight = self.seed ^ (self.seed >> 15);
        let node = Node { entry, least: entry.need, weight, left: NONE, right: NONE };
        let at = match self.vacant.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2³² requests wait at once")
            }
        };
        let Entry { order, need, .. } = entry;
        // Where the new node comes: at the root, or below a node that is heavier.
        let (mut root, mut above, mut is_left) = (*queue, NONE, false);
        while root != NONE {
            let node = self.node_mut(root);
            if weight > node.weight {
                break;
            }
            node.least = node.least.min(need);
            (above, is_left) = (root, order < node.entry.order);
            root = if is_left { node.left } else { node.right };
        }
        if root != NONE {
            let (left, right) = self.split(root, order);
            let node = self.node_mut(at);
            (node.left, node.right) = (left, right);
            self.update(at);
        }
        if above == NONE {
            *queue = at;
        } else if is_left {
            self.node_mut(above).left = at;
        } else {
            self.node_mut(above).right = at;
        }
    }

    /// Splits a tree into the entries before `order`, and the others.
    fn split(&mut self, root: u32, order: u64) -> (u32, u32) {
        if root == NONE {
            return (NONE, NONE);
        }
        let halves = if self.node(root).entry.order < order {
            let (left, right) = self.split(self.node(root).right, order);
            self.node_mut(root).right = left;
            (root, right)
        } else {
            let (left, right) = self.split(self.node(root).left, order);
            self.node_mut(root).left = right;
            (left, root)
        };
        self.update(root);
        halves
    }

    /// Removes the entry with this order, if there is one.
    pub(super) fn remove(&mut self, queue: &mut Queue, order: u64) -> Option<Entry> {
        let (root, removed) = self.remove_below(*queue, order);
        *queue = root;
        let at = removed?;
        let entry = self.node(at).entry;
        self.vacant.push(at);
        if self.vacant.len() == self.nodes.len() {
            // Nobody waits: the memory of a crowd goes with it.
            (self.nodes, self.vacant) = (Vec::new(), Vec::new());
        }
        Some(entry)
    }

    fn remove_below(&mut self, root: u32, order: u64) -> (u32, Option<u32>) {
        if root == NONE {
            return (NONE, None);
        }
        let Node { entry: Entry { order: here, .. }, left, right, .. } = *self.node(root);
        if here == order {
            return (self.merge(left, right), Some(root));
        }
        let removed = if order < here {
            let (left, removed) = self.remove_below(left, order);
            self.node_mut(root).left = left;
            removed
        } else {
            let (right, removed) = self.remove_below(right, order);
            self.node_mut(root).right = right;
            removed
        };
        if removed.is_some() {
            self.update(root);
        }
        (root, removed)
    }

    /// Joins two trees. All orders of the left tree are smaller than those of the right tree.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE {
            return right;
        }
        if right == NONE {
            return left;
        }
        let root = if self.node(left).weight > self.node(right).weight {
            let below = self.merge(self.node(left).right, right);
            self.node_mut(left).right = below;
            left
        } else {
            let below = self.merge(left, self.node(right).left);
            self.node_mut(right).left = below;
            right
        };
        self.update(root);
        root
    }

    /// Computes the least need of a subtree from its parts.
    fn update(&mut self, at: u32) {
        let Node { entry: Entry { need, .. }, left, right, .. } = *self.node(at);
        self.node_mut(at).least = need.min(self.least(left)).min(self.least(right));
    }

    /// Replaces the existing entry with the same order.
    pub(super) fn replace(&mut self, queue: Queue, entry: Entry) {
        if queue == NONE {
            return;
        }
        let Node { entry: here, left, right, .. } = *self.node(queue);
        if here.order == entry.order {
            self.node_mut(queue).entry = entry;
        } else {
            self.replace(if entry.order < here.order { left } else { right }, entry);
        }
        self.update(queue);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Entry, Forest, NONE};
    use proptest::prelude::*;
    use std::{collections::BTreeMap, vec::Vec};

    fn entry(order: u64, need: usize) -> Entry {
        Entry { order, first: 0, child: NONE, first_need: need, need }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, usize),
        Remove(u64),
        Replace(u64, usize),
        Find(usize, Option<u64>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let order = 0..40_u64;
        let need = 0..20_usize;
        prop_oneof![
            3 => (order.clone(), need.clone()).prop_map(|(order, need)| Step::Insert(order, need)),
            2 => order.clone().prop_map(Step::Remove),
            1 => (order.clone(), need.clone()).prop_map(|(order, need)| Step::Replace(order, need)),
            2 => (need, proptest::option::of(order)).prop_map(|(need, after)| Step::Find(need, after)),
        ]
    }

    proptest! {
        #[test]
        fn a_queue_is_a_sorted_map(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut forest, mut queue, mut model) = (Forest::default(), NONE, BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(order, need) => {
                        if model.insert(order, need).is_some() {
                            forest.replace(queue, entry(order, need));
                        } else {
                            forest.insert(&mut queue, entry(order, need));
                        }
                    }
                    Step::Remove(order) => {
                        let removed = forest.remove(&mut queue, order).map(|entry| entry.need);
                        prop_assert_eq!(removed, model.remove(&order));
                    }
                    Step::Replace(order, need) => {
                        if let Some(before) = model.get_mut(&order) {
                            *before = need;
                            forest.replace(queue, entry(order, need));
                        }
                    }
                    Step::Find(within, after) => {
                        let found = forest.first_within(queue, within, after);
                        let expected = model
                            .iter()
                            .find(|(order, need)| {
                                **need <= within && after.is_none_or(|after| **order > after)
                            })
                            .map(|(order, need)| entry(*order, *need));
                        prop_assert_eq!(found, expected);
                    }
                }
                let least = model.values().copied().min().unwrap_or(usize::MAX);
                prop_assert_eq!(forest.least(queue), least);
                prop_assert_eq!(
                    forest.first(queue).map(|entry| entry.order),
                    model.keys().next().copied()
                );
                let mut orders = Vec::new();
                forest.for_each(queue, &mut |entry| orders.push(entry.order));
                prop_assert!(orders.iter().eq(model.keys()));
                forest.validate(core::iter::once(queue));
            }
        }
    }
}
