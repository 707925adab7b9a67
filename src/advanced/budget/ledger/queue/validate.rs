use super::{Entry, Forest, NONE, Queue};
use std::{collections::BTreeSet, vec::Vec};

impl Forest {
    /// Checks the order, the weights and the least needs of these queues, which are all that there are.
    pub(crate) fn validate(&self, queues: impl Iterator<Item = Queue>) {
        let mut seen = BTreeSet::new();
        for queue in queues.filter(|queue| *queue != NONE) {
            self.validate_below(queue, &mut seen);
            assert!(self.entries(queue).is_sorted_by(|one, other| one.order < other.order));
        }
        let vacant: BTreeSet<u32> = self.vacant.iter().copied().collect();
        assert_eq!(vacant.len(), self.vacant.len());
        assert!(seen.is_disjoint(&vacant), "a queue has a node that is vacant");
        assert_eq!(seen.len() + vacant.len(), self.nodes.len(), "a node is lost");
    }

    fn validate_below(&self, at: u32, seen: &mut BTreeSet<u32>) -> usize {
        if at == NONE {
            return usize::MAX;
        }
        assert!(seen.insert(at), "two queues have one node");
        let node = self.node(at);
        for below in [node.left, node.right] {
            assert!(below == NONE || self.node(below).weight <= node.weight, "not a heap");
        }
        let [left, right] = [node.left, node.right].map(|below| self.validate_below(below, seen));
        assert_eq!(node.least, node.entry.need.min(left).min(right), "the least need");
        node.least
    }

    /// All entries of a queue, in order.
    pub(crate) fn entries(&self, queue: Queue) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.for_each(queue, &mut |entry| entries.push(*entry));
        entries
    }
}
