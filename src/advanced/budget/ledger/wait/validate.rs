use super::{Entry, Key, Ledger, NONE, PRIORITIES, ROOT, Waiter, watch};
use std::{collections::BTreeSet, vec::Vec};

impl Ledger {
    /// Checks the requests that wait, their queues, and that none of them could be served.
    pub(crate) fn validate_waits(&self, keys: &[Key]) {
        let waiters = &self.waiters;
        let slots: Vec<(u32, &Waiter)> = (0_u32..)
            .zip(&waiters.slots)
            .filter_map(|(slot, waiter)| Some((slot, waiter.as_ref()?)))
            .collect();
        let waiting: Vec<_> = slots.iter().copied().filter(|(_, waiter)| waiter.waits()).collect();
        assert_eq!(waiters.waiting, waiting.len());
        assert_eq!(waiters.vacant.len() + slots.len(), waiters.slots.len());
        let due: BTreeSet<_> =
            waiting.iter().filter_map(|(slot, waiter)| Some((waiter.due()?, *slot))).collect();
        let listed = waiters.due.iter().filter_map(|std::cmp::Reverse((due, number, slot))| {
            waiters.is_due(*due, *number, *slot).then_some((*due, *slot))
        });
        assert_eq!(listed.collect::<BTreeSet<_>>(), due, "and those that do not wait any more");
        assert!(waiters.due.len() <= 2 * waiters.waiting + super::DUE_MORE + 1);
        let mut blocked = BTreeSet::new();
        let mut queues = Vec::new();
        for key in keys {
            let below = waiting.iter().filter(|(_, waiter)| self.is_below(waiter.key, *key));
            let largest = below.clone().map(|(_, waiter)| waiter.bytes).max();
            let record = self.record(*key);
            assert_eq!(record.waiting as usize, below.count());
            let answered = slots.iter().filter(|(_, waiter)| !waiter.waits());
            let answered = answered.filter(|(_, waiter)| self.is_below(waiter.key, *key)).count();
            assert_eq!(record.answered as usize, answered);
            assert_eq!(record.waits.is_some(), record.waiting > 0);
            assert_eq!(self[*key].watch & watch::WAITERS != 0, record.waiting > 0);
            let Some(waits) = &record.waits else { continue };
            assert!(largest.is_none_or(|largest| largest <= waits.largest));
            let is_blocked =
                (0..PRIORITIES).any(|class| self.blocked_first(key.at, class).is_some());
            assert_eq!(waits.is_blocked, is_blocked);
            if is_blocked {
                blocked.insert(key.at);
            }
            queues.extend(waits.queues.iter().map(|queue| queue.queue));
            self.validate_queues(*key, &waiting);
        }
        assert_eq!(waiters.blocked, blocked);
        waiters.forest.validate(queues.into_iter());
        self.validate_service(&waiting);
        let room = self.accounts[ROOT as usize].room();
        for class in 0..PRIORITIES {
            assert!(self.servable(ROOT, class, room).is_none(), "a request could be served");
        }
    }

    /// Checks that a node's queues have its own requests and what its children export.
    fn validate_queues(&self, key: Key, waiting: &[(u32, &Waiter)]) {
        for class in 0..PRIORITIES {
            let queue = self.node_queue(key.at, class).expect("the node has queues");
            let own = waiting
                .iter()
                .filter(|(_, waiter)| waiter.key == key && waiter.priority as usize == class);
            let own = own.map(|(slot, waiter)| Entry {
                order: waiter.number,
                first: *slot,
                child: NONE,
                first_need: waiter.bytes,
                need: waiter.bytes,
            });
            let children = self.children(key).filter_map(|child| {
                let known = self.node_queue(child.at, class)?.export;
                assert_eq!(known, self.export(child.at, class), "stale at {child:?}");
                known
            });
            let mut expected: Vec<Entry> = own.chain(children).collect();
            expected.sort_by_key(|entry| entry.order);
            assert_eq!(self.waiters.forest.entries(queue.queue), expected, "at {key:?}");
            if self.parent(key).is_none() {
                assert_eq!(queue.export, None);
            }
        }
    }

    /// Whether the node's parent admits by shares.
    fn is_by_share(&self, key: Key) -> bool {
        let parent = self.parent(key);
        parent.is_some_and(|parent| self.record(parent).sharing().admits_by_share())
    }

    /// Checks that each request that waits does not fit, or is kept back by one before it that is overdue
    /// and does not fit at a node of which both need bytes.
    ///
    /// Where admission goes by shares it may also be kept back for a sibling within its share.
    fn validate_service(&self, waiting: &[(u32, &Waiter)]) {
        let now = self.waiters.clock.now();
        for (_, waiter) in waiting {
            if self.probe(waiter.key, waiter.bytes).is_some() {
                continue;
            }
            let mut needs = Vec::new();
            let mut more = waiter.bytes;
            let mut is_by_share = false;
            for key in self.path(waiter.key) {
                if more > 0 {
                    needs.push(key);
                    is_by_share |= self.is_by_share(key);
                }
                more = more.saturating_sub(self[key].slack());
            }
            let is_kept = waiting.iter().any(|(_, other)| {
                let is_before = (other.priority, waiter.number) > (waiter.priority, other.number);
                let is_overdue = other.overtaken.is_overdue(|| now);
                let binding = self.probe(other.key, other.bytes);
                is_before && is_overdue && binding.is_some_and(|found| needs.contains(&found.at))
            });
            assert!(is_kept || is_by_share, "{waiter:?} fits");
        }
    }
}
