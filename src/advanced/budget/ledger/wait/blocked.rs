//! The requests that do not fit, for which memory has to be released.

use super::{
    super::{Key, Ledger},
    PRIORITIES,
};
use crate::integration::traits::context::WaitId;
use core::cmp::Reverse;

/// A request that does not fit a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocked {
    pub(crate) at: Key,
    /// The request's own node, and its bytes.
    pub(crate) request: (Key, usize),
    pub(crate) slot: u32,
    pub(crate) number: u64,
    /// Bytes charged to the node.
    pub(crate) charged: usize,
    /// The least bytes that have to be released at the node.
    pub(crate) missing: usize,
}

impl Ledger {
    /// Returns the next node after `after` whose first request does not fit and below which managers are registered,
    /// with the request and the bytes that it needs from the node.
    pub(crate) fn next_blocked(&self, after: Option<u32>) -> Option<Blocked> {
        let from = after.map_or(0, |after| after + 1);
        let mut blocked = self.waiters.blocked.range(from..).copied();
        blocked.find_map(|at| {
            let binding = self.key_at(at);
            if self.has_managers(binding) { self.blocked_at(binding) } else { None }
        })
    }

    /// Returns the first request of the highest priority that does not fit a node.
    pub(crate) fn blocked_at(&self, binding: Key) -> Option<Blocked> {
        if !self.has(binding) {
            return None;
        }
        let first =
            (0..PRIORITIES).rev().find_map(|class| self.blocked_first(binding.at, class))?;
        let waiter = self.waiters.slot(first.first);
        let room = self[binding].room();
        Some(Blocked {
            at: binding,
            request: (waiter.key, waiter.bytes),
            slot: first.first,
            number: waiter.number,
            charged: self[binding].charged,
            missing: first.first_need - room,
        })
    }

    /// Returns whether a blocked request was answered since, or the node is charged fewer bytes than `charged`.
    pub(crate) fn is_nearer(&self, blocked: Blocked, charged: usize) -> bool {
        let id = WaitId { slot: blocked.slot, number: blocked.number };
        if self.waiters.get(id).is_none_or(|waiter| !waiter.waits()) {
            return true;
        }
        self.has(blocked.at) && self[blocked.at].charged < charged
    }

    /// Iterates over the nodes whose first request does not fit.
    pub(crate) fn blocked_nodes(&self) -> impl Iterator<Item = Key> + '_ {
        self.waiters.blocked.iter().map(|at| self.key_at(*at))
    }

    /// Returns the youngest request of the lowest priority that does not fit a node. Linear in the waiting requests.
    pub(crate) fn youngest_blocked(&self, binding: Key) -> Option<WaitId> {
        let slots = self.waiting_below(binding).into_iter().filter(|slot| {
            let waiter = self.waiters.slot(*slot);
            self.probe(waiter.key, waiter.bytes).is_some_and(|found| found.at == binding)
        });
        let rank = |slot: &u32| {
            let waiter = self.waiters.slot(*slot);
            (Reverse(waiter.priority), waiter.number)
        };
        let youngest = slots.max_by_key(rank)?;
        Some(WaitId { slot: youngest, number: self.waiters.slot(youngest).number })
    }
}
