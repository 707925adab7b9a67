//! Reads the ledger: the figures of one node in constant time, and of a subtree in steps.

use super::{Key, Ledger, Registered, UNLIMITED, account::NONE, node::Shared};
use crate::core::{Priority, Usage};
use std::{sync::Arc, vec::Vec};

/// One node as it was read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) key: Key,
    pub(crate) parent: Option<Key>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) priority: Priority,
    pub(crate) guarantee: usize,
    pub(crate) usage: Usage,
    /// Unused bytes of the guarantee.
    pub(crate) unused_guarantee: usize,
    pub(crate) waiting: usize,
    pub(crate) managers: Vec<Arc<Registered>>,
}

/// The index of a record, of which there are fewer than 2³².
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

impl Ledger {
    /// Returns the bytes reserved at and below the node: the charged bytes without unused credit in lines.
    pub(crate) fn used(&self, key: Key) -> usize {
        self[key].charged - self.unused(key)
    }

    pub(crate) fn usage(&self, key: Key) -> Usage {
        let account = &self[key];
        let limit = (account.limit != UNLIMITED).then_some(account.limit);
        let peak = account.peak.max(account.charged);
        let used = self.used(key);
        let mut usage = Usage::new(used, peak, limit);
        let record = self.record(key);
        usage.refused = record.refused;
        usage.reclaimed = record.reclaimed;
        usage.overdraft = used.saturating_sub(account.limit);
        usage
    }

    /// Returns the unused bytes of all guarantees of the tree.
    pub(crate) fn undrawn(&self) -> usize {
        self.undrawn
    }

    /// Reads nodes at and below `top`, in the order of their indices, beginning at index `from`, until `into` is full.
    /// Returns the index to continue at, if there are more.
    ///
    /// Allocates only the lists of managers.
    pub(crate) fn read_some(
        &self,
        top: Key,
        from: usize,
        into: &mut Vec<Reading>,
    ) -> Option<usize> {
        // Looking at an index takes a few nanoseconds, reading a node some ten times that.
        const LOOKS: usize = 8;
        let end = self.records.len();
        let mut at = from;
        let last = end.min(from.saturating_add(LOOKS * into.capacity()));
        while at < last && into.len() < into.capacity() {
            if self.records[at].is_some() {
                let key = self.key_at(index(at));
                if !self[key].is_hidden && self.is_below(key, top) {
                    into.push(self.read(key));
                }
            }
            at += 1;
        }
        (at < end).then_some(at)
    }

    fn read(&self, key: Key) -> Reading {
        let (account, record) = (&self[key], self.record(key));
        Reading {
            key,
            parent: self.parent(key),
            shared: Arc::clone(&record.shared),
            priority: record.shared.priority(),
            guarantee: account.guarantee,
            usage: self.usage(key),
            unused_guarantee: account.guarantee.saturating_sub(self.used(key)),
            waiting: record.waiting as usize,
            managers: self.managers_of(key).cloned().collect(),
        }
    }

    /// Passes the bytes charged directly to each node at and below `top`, in a range of indices, for a report of the
    /// largest holders. Returns the index to continue at.
    pub(crate) fn holders_in(
        &self,
        top: Key,
        from: usize,
        count: usize,
        mut visit: impl FnMut(Key, usize, &Arc<Shared>),
    ) -> Option<usize> {
        let end = self.records.len();
        let last = end.min(from.saturating_add(count));
        for at in from..last {
            let Some(record) = &self.records[at] else { continue };
            let key = Key { id: record.id, at: index(at) };
            if !self[key].is_hidden && self.is_below(key, top) {
                visit(key, self.direct(key), &record.shared);
            }
        }
        (last < end).then_some(last)
    }

    /// Returns whether a release here lowers the charge of a node that is over its limit or closed.
    pub(crate) fn is_over_limit(&self, key: Key) -> bool {
        if self[key].is_closed {
            return true;
        }
        let mut at = key.at;
        while at != NONE {
            let account = &self.accounts[at as usize];
            if account.charged > account.limit {
                return true;
            }
            if account.charged <= account.guarantee {
                return false;
            }
            at = account.parent;
        }
        false
    }
}
