//! The nodes of the tree: their insertion and removal, and their positions.

use super::{
    Key, Ledger, NodeSpec, Shared, Woken,
    account::{Account, NONE, watch},
    record::Record,
};
use core::{cmp::Reverse, iter};
use std::sync::Arc;

/// Up to this number of nodes, their memory is kept however few are in use.
pub(super) const FEW: usize = 64;

impl Ledger {
    /// Makes a node. The parent is already charged for its guarantee.
    pub(crate) fn insert(
        &mut self,
        spec: NodeSpec,
        shared: Arc<Shared>,
        parent: Option<Key>,
    ) -> Key {
        debug_assert!(spec.guarantee <= spec.limit);
        let at = self.vacancy();
        let key = Key { id: shared.id, at };
        let above = parent.map(|parent| (parent.at, &self[parent]));
        let mut account = Account::new(spec.limit, spec.guarantee, spec.is_hidden, above);
        let priority = spec.priority.or(parent.map(|parent| self.record(parent).shared.priority()));
        shared.set_priority(priority.unwrap_or_default());
        let guarantee = spec.guarantee;
        let mut record = Record::new(spec, shared);
        if let Some(parent) = parent {
            // Bytes of the parent's that nobody was known to hold are a guarantee from now on.
            self.waiters.note_change();
            self[parent].drawn += guarantee;
            self.undrawn += guarantee;
            let above = self.record_mut(parent);
            if above.sharing().divides_by_weight() && !account.is_hidden {
                account.watch |= watch::SHARES;
            }
            record.previous = above.last_child;
            let last = core::mem::replace(&mut above.last_child, at);
            match last {
                NONE => above.first_child = at,
                last => self.record_at_mut(last).next = at,
            }
        }
        if at as usize == self.accounts.len() {
            self.accounts.push(account);
            self.records.push(Some(record));
        } else {
            self.accounts[at as usize] = account;
            self.records[at as usize] = Some(record);
        }
        if guarantee > 0 {
            self.promise(key, (0, 0));
        }
        self.declared += usize::from(self.record(key).workers > 0);
        key
    }

    /// Returns the lowest index without a record, so that the lists can become shorter again.
    pub(super) fn vacancy(&mut self) -> u32 {
        while let Some(Reverse(at)) = self.vacant.pop() {
            if self.records.get(at as usize).is_some_and(Option::is_none) {
                return at;
            }
        }
        u32::try_from(self.accounts.len()).expect("a tree has fewer than 2³² nodes")
    }

    /// Removes a node without handles, and serves requests that wait for its guarantee.
    pub(crate) fn remove(&mut self, key: Key) -> (Record, Woken) {
        self.settle(key);
        self.forget_managers(key);
        let parent = self.parent(key);
        if parent.is_none() {
            self.release(key, self.set_aside);
        }
        debug_assert_eq!(self[key].charged, 0, "a reservation keeps its node alive");
        let mut woken = Woken::default();
        if let Some(parent) = parent {
            if self[key].is_active {
                self.change_weight(parent, self.record(key).weight.into(), 0);
            }
            let guarantee = self[key].guarantee;
            if guarantee > 0 {
                let before = self.promises(key);
                self[key].guarantee = 0;
                self.promise(key, before);
                self.undrawn -= guarantee;
                self[parent].drawn -= guarantee;
                self.release(parent, guarantee);
            }
            self.unlink(key, parent);
            woken = self.serve();
        }
        self.declared -= usize::from(self.record(key).workers > 0);
        self.tracked -= usize::from(self.record(key).shared.tasks.get().is_some());
        let record = self.records[key.at as usize].take();
        self.vacate(key.at);
        (record.expect("a node outlives the use of its key"), woken)
    }

    pub(super) fn unlink(&mut self, key: Key, parent: Key) {
        let Record { previous, next, .. } = *self.record(key);
        match previous {
            NONE => self.record_mut(parent).first_child = next,
            previous => self.record_at_mut(previous).next = next,
        }
        match next {
            NONE => self.record_mut(parent).last_child = previous,
            next => self.record_at_mut(next).previous = previous,
        }
    }

    /// Frees the memory of removed nodes once it is most of the lists.
    pub(super) fn vacate(&mut self, at: u32) {
        if at as usize + 1 < self.records.len() {
            self.vacant.push(Reverse(at));
        }
        while matches!(self.records.last(), Some(None)) {
            self.records.pop();
            self.accounts.pop();
        }
        if self.records.len() < self.records.capacity() / 4 && self.records.capacity() > FEW {
            let len = self.records.len();
            self.records.shrink_to(2 * len);
            self.accounts.shrink_to(2 * len);
            let is_vacant = |at: &Reverse<u32>| (at.0 as usize) < len;
            self.vacant.retain(is_vacant);
            self.vacant.shrink_to(len);
        }
    }

    /// Returns the sum of the guarantees of a node and of the nodes below it, with and without temporary nodes.
    pub(super) fn promises(&self, key: Key) -> (usize, usize) {
        let (record, guarantee) = (self.record(key), self[key].guarantee);
        let lasting = if record.is_temporary { 0 } else { guarantee.max(record.lasting_below) };
        (guarantee.max(record.guaranteed_below), lasting)
    }

    /// Updates the sums of guarantees above a node after its own sums changed from `before`.
    pub(super) fn promise(&mut self, mut key: Key, mut before: (usize, usize)) {
        while let Some(parent) = self.parent(key) {
            let now = self.promises(key);
            if now == before {
                return;
            }
            let own = self.promises(parent);
            let record = self.record_mut(parent);
            record.guaranteed_below = record.guaranteed_below - before.0 + now.0;
            record.lasting_below = record.lasting_below - before.1 + now.1;
            (key, before) = (parent, own);
        }
    }

    /// Returns the node's own guarantee, or the sum of the guarantees below it if that is more.
    pub(crate) fn guaranteed(&self, key: Key) -> usize {
        self.promises(key).0
    }

    /// Charges a new root for its emergency reserve, which is less than its limit.
    pub(crate) fn set_aside(&mut self, root: Key, bytes: usize) {
        self.set_aside = bytes;
        self[root].charged += bytes;
    }

    pub(super) fn record_at(&self, at: u32) -> &Record {
        self.records[at as usize].as_ref().expect("a node outlives those below it")
    }

    pub(super) fn record_at_mut(&mut self, at: u32) -> &mut Record {
        self.records[at as usize].as_mut().expect("a node outlives those below it")
    }

    pub(crate) fn record(&self, key: Key) -> &Record {
        self.record_at(key.at)
    }

    pub(crate) fn record_mut(&mut self, key: Key) -> &mut Record {
        self.record_at_mut(key.at)
    }

    /// Returns whether a node still exists.
    pub(crate) fn has(&self, key: Key) -> bool {
        let record = self.records.get(key.at as usize).and_then(Option::as_ref);
        record.is_some_and(|record| record.id == key.id)
    }

    pub(super) fn key_at(&self, at: u32) -> Key {
        Key { id: self.record_at(at).id, at }
    }

    /// Returns the node above.
    pub(crate) fn parent(&self, key: Key) -> Option<Key> {
        let above = self[key].parent;
        (above != NONE).then(|| self.key_at(above))
    }

    /// Iterates over the node and the nodes above it, the root last.
    pub(crate) fn path(&self, key: Key) -> impl Iterator<Item = Key> + '_ {
        iter::successors(Some(key), |key| self.parent(*key))
    }

    /// Returns whether `key` is at or below `above`.
    pub(crate) fn is_below(&self, key: Key, above: Key) -> bool {
        let depth = self[above].depth;
        let mut at = key.at;
        while self.accounts[at as usize].depth > depth {
            at = self.accounts[at as usize].parent;
        }
        at == above.at
    }

    /// Returns the child of `above` that `key` is at or below; `None` if `key` is `above`.
    pub(crate) fn child_towards(&self, above: Key, key: Key) -> Option<Key> {
        let depth = self[above].depth;
        let mut at = key.at;
        while self.accounts[at as usize].depth > depth + 1 {
            at = self.accounts[at as usize].parent;
        }
        (self.accounts[at as usize].parent == above.at).then(|| self.key_at(at))
    }

    /// Iterates over the children, in the order in which they were made.
    pub(crate) fn children(&self, key: Key) -> impl Iterator<Item = Key> + '_ {
        let some = |at: u32| (at != NONE).then(|| self.key_at(at));
        let next = move |key: &Key| some(self.record(*key).next);
        iter::successors(some(self.record(key).first_child), next)
    }
}
