//! The tree's accounts and their arithmetic, under one lock.
//!
//! With `draw(x) = max(guarantee, x)` a node that is charged `x` bytes has drawn `draw(x)` from its
//! parent. A charge goes up the path, and back down if a node has no room; as nobody else has the lock
//! there is no moment at which one node has been charged and another has not.

use super::{
    account::{Account, Bar, Key, NOWHERE, Parts, Record, Terms},
    reclaim::Registered,
    wait::{Waiters, Woken},
};
use crate::{
    core::{
        Priority, Usage,
        error::{Refused, RefusedReason},
        types::Label,
    },
    integration::traits::{Family, Policy, Share},
};
use core::{iter, ops};
use std::{sync::Arc, vec::Vec};

/// What a limit is where there is none. No sum of live objects reaches it.
pub(super) const UNLIMITED: usize = usize::MAX;

/// # Invariants
///
/// - At every account `charged` is the sum of what reservations from the node hold, what its line has
///   been opened with and not been charged since, and what its children draw. It rises by
///   [`charge`](Self::charge) alone.
/// - `open` has the key of each account whose line is open, once.
/// - `accounts` and `records` are as long as each other. A record that is there is of the account at
///   the same place, and of a node that somebody has.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Vec<Account>,
    records: Vec<Option<Record>>,
    vacant: Vec<usize>,
    pub(super) open: Vec<Key>,
    /// While there are any, nobody is lent credit: what is given back is to be seen.
    pub(super) rounds: usize,
    pub(super) waiters: Waiters,
    /// Bytes of the root that only those have who give memory back.
    set_aside: usize,
}

impl ops::Index<Key> for Ledger {
    type Output = Account;

    #[inline]
    fn index(&self, key: Key) -> &Account {
        &self.accounts[key.at]
    }
}

impl ops::IndexMut<Key> for Ledger {
    #[inline]
    fn index_mut(&mut self, key: Key) -> &mut Account {
        &mut self.accounts[key.at]
    }
}

impl Ledger {
    /// Opens an account, whose guarantee the parent has been charged.
    pub(super) fn insert(&mut self, terms: Terms, parts: Parts, parent: Option<Key>) -> Key {
        debug_assert!(terms.guarantee <= terms.limit);
        let at = self.vacant.pop().unwrap_or(self.accounts.len());
        let key = Key { id: parts.id, at };
        let above = parent.map(|parent| {
            self.record_mut(parent).children.insert(key);
            &self[parent]
        });
        let account = Account::new(&terms, parent, above);
        let record = Record::new(key, terms, parts);
        if at == self.accounts.len() {
            self.accounts.push(account);
            self.records.push(Some(record));
        } else {
            self.accounts[at] = account;
            self.records[at] = Some(record);
        }
        key
    }

    /// Closes the account of a node that nobody has any more.
    pub(super) fn remove(&mut self, key: Key) -> (Record, Woken) {
        self.settle(key);
        let managers = self.record(key).managers.len();
        self.count_managers(key, managers.wrapping_neg());
        if self.parent(key).is_none() {
            self.release(key, self.set_aside);
        }
        debug_assert_eq!(self[key].charged, 0, "a reservation holds its node");
        let mut woken = Woken::default();
        if let Some(parent) = self.parent(key) {
            self.record_mut(parent).children.remove(&key);
            self.release(parent, self[key].guarantee);
            woken = self.serve(parent);
        }
        self.vacant.push(key.at);
        let record = self.records[key.at].take().expect("a node outlives the use of its key");
        (record, woken)
    }

    /// Charges the root, which is new and has a larger limit, for what is set aside.
    pub(super) fn set_aside(&mut self, root: Key, bytes: usize) {
        self.set_aside = bytes;
        self[root].add(bytes);
    }

    /// What else is known of a node that somebody has.
    pub(super) fn record(&self, key: Key) -> &Record {
        self.records[key.at].as_ref().expect("a node outlives the use of its key")
    }

    pub(super) fn record_mut(&mut self, key: Key) -> &mut Record {
        self.records[key.at].as_mut().expect("a node outlives the use of its key")
    }

    /// Whether somebody still has the node.
    pub(super) fn has(&self, key: Key) -> bool {
        let record = self.records.get(key.at).and_then(Option::as_ref);
        record.is_some_and(|record| record.key == key)
    }

    /// Admits `bytes` at the node and every one above, or at none. Credit that lies idle in lines
    /// is taken back for them.
    pub(super) fn admit(&mut self, key: Key, bytes: usize) -> Result<(), Bar> {
        while let Err(bar) = self.charge(key, bytes) {
            if !self.settle_below(bar.at) {
                self.recall_below(bar.at);
                return Err(bar);
            }
        }
        Ok(())
    }

    /// As [`admit`](Self::admit), for somebody whom the line had not enough for; opens it anew.
    pub(super) fn admit_beside_line(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Option<Priority>,
    ) -> Result<(), Bar> {
        self.settle(key);
        self.admit_now(key, bytes, priority)?;
        self.lend(key);
        Ok(())
    }

    /// Takes back `bytes` that were admitted, and opens the line anew if it was too full for them.
    #[inline]
    pub(super) fn release_beside_line(&mut self, key: Key, bytes: usize) -> Option<Woken> {
        let was_open = self.settle(key);
        self.release_and_lend(key, bytes, was_open)
    }

    /// As [`release_beside_line`](Self::release_beside_line), of no more than the node, which has none
    /// below it, is charged. Returns how many bytes these were, too.
    pub(super) fn release_at_most(&mut self, key: Key, bytes: usize) -> (usize, Option<Woken>) {
        // The line is held before its node's bytes are counted: until then others give into it.
        let was_open = self.settle(key);
        let bytes = bytes.min(self[key].charged);
        (bytes, self.release_and_lend(key, bytes, was_open))
    }

    #[inline]
    fn release_and_lend(&mut self, key: Key, bytes: usize, was_open: bool) -> Option<Woken> {
        self.release(key, bytes);
        if was_open {
            self.lend(key);
        }
        if self.waiters.is_idle() { None } else { Some(self.serve(key)) }
    }

    /// As [`admit`](Self::admit), without a look for credit.
    #[inline]
    pub(super) fn charge(&mut self, key: Key, bytes: usize) -> Result<(), Bar> {
        if self[key].is_closed {
            return Err(self.bar(key.at, bytes));
        }
        let (mut at, mut more) = (key.at, bytes);
        while let Some(account) = self.accounts.get_mut(at) {
            if more > account.room() {
                return Err(self.give_up(key, bytes, at, more));
            }
            more = account.add(more);
            if more == 0 {
                break;
            }
            at = account.parent;
        }
        Ok(())
    }

    /// Takes back what was charged from the node up to below `failed`, which has no room for
    /// `requested`.
    #[cold]
    fn give_up(&mut self, key: Key, bytes: usize, failed: usize, requested: usize) -> Bar {
        let (mut at, mut less) = (key.at, bytes);
        while at != failed {
            let account = &mut self.accounts[at];
            less = account.subtract(less);
            at = account.parent;
        }
        self.bar(failed, requested)
    }

    /// Takes back bytes that were charged to the node.
    #[inline]
    pub(super) fn release(&mut self, key: Key, bytes: usize) {
        let (mut at, mut less) = (key.at, bytes);
        while let Some(account) = self.accounts.get_mut(at) {
            account.peak = account.peak.max(account.charged);
            less = account.subtract(less);
            if less == 0 {
                break;
            }
            at = account.parent;
        }
    }

    /// The nodes that a charge of `bytes` would change, from this one up, with what they would be charged.
    pub(super) fn touched(&self, key: Key, bytes: usize) -> Vec<(Key, usize)> {
        let mut more = bytes;
        let touched = self.path(key).map_while(|(key, account)| {
            let (before, charged) = (more, account.charged.saturating_add(more));
            more = account.draw(charged) - account.draw(account.charged);
            (before > 0).then_some((key, charged))
        });
        touched.collect()
    }

    /// Moves bytes that `from` was charged to `to`; at no moment that anybody sees are they at both
    /// or at neither.
    pub(super) fn transfer(&mut self, from: Key, to: Key, bytes: usize) -> Result<Woken, Bar> {
        if bytes == 0 {
            return Ok(Woken::default());
        }
        let admitted = if self.waiters.is_idle() {
            self.release(from, bytes);
            self.admit(to, bytes)
        } else {
            let before: Vec<usize> = self.path(to).map(|(_, account)| account.charged).collect();
            self.release(from, bytes);
            // Where there are no more than before nobody is passed.
            let touched = self.touched(to, bytes).into_iter().zip(before);
            let more = touched.filter(|((_, charged), before)| charged > before);
            let more = more.map(|((key, _), _)| key).collect();
            self.admit_past(to, bytes, self.last_place(to, None), more)
        };
        match admitted {
            Ok(()) => Ok(self.serve(from)),
            Err(bar) => {
                // As it was: nobody else has had the lock.
                let (mut at, mut more) = (from.at, bytes);
                while let Some(account) = self.accounts.get_mut(at) {
                    more = account.add(more);
                    at = account.parent;
                }
                Err(bar)
            }
        }
    }

    /// Adds to the count of managers of every node of the path, modulo the size of a word.
    fn count_managers(&mut self, key: Key, more: usize) {
        self.for_records(key, |record| {
            record.managers_below = record.managers_below.wrapping_add(more);
        });
    }

    pub(super) fn for_path(&mut self, key: Key, mut change: impl FnMut(&mut Account)) {
        let mut at = key.at;
        while let Some(account) = self.accounts.get_mut(at) {
            change(account);
            at = account.parent;
        }
    }

    pub(super) fn for_records(&mut self, key: Key, mut change: impl FnMut(&mut Record)) {
        let mut next = Some(key);
        while let Some(key) = next {
            change(self.record_mut(key));
            next = self.parent(key);
        }
    }

    /// The node above.
    pub(super) fn parent(&self, key: Key) -> Option<Key> {
        let record = self.records.get(self[key].parent)?.as_ref();
        record.map(|record| record.key)
    }

    /// The node and those above it, the root last.
    pub(super) fn path(&self, key: Key) -> impl Iterator<Item = (Key, &Account)> {
        iter::successors(Some(key), |key| self.parent(*key)).map(|key| (key, &self[key]))
    }

    /// Whether `key` is at or below `above`.
    pub(super) fn is_below(&self, key: Key, above: Key) -> bool {
        self.path(key).any(|(key, _)| key == above)
    }

    pub(super) fn bar_at(&self, key: Key, requested: usize) -> Bar {
        self.bar(key.at, requested)
    }

    #[cold]
    #[inline(never)]
    fn bar(&self, at: usize, requested: usize) -> Bar {
        let record = self.records[at].as_ref().expect("a node outlives those below it");
        if record.workers == 0 {
            return self.bar(self.accounts[at].parent, requested);
        }
        let account = &self.accounts[at];
        let most = self.most(at);
        let (reason, limit) = if account.is_closed {
            (RefusedReason::Closed, account.limit)
        } else if requested > most {
            (RefusedReason::TooLarge, most)
        } else {
            (RefusedReason::OverLimit, account.limit)
        };
        let refused = Refused {
            node: record.key.id,
            name: Label::new(&record.name),
            reason,
            requested,
            available: account.room(),
            limit,
            failure: None,
        };
        Bar { at: record.key, refused }
    }

    /// The most that a node may ever hold: its limit, without what a root sets aside.
    fn most(&self, at: usize) -> usize {
        let account = &self.accounts[at];
        let aside = if account.parent == NOWHERE { self.set_aside } else { 0 };
        account.limit.saturating_sub(aside)
    }

    /// The refusal of `bytes` that no giving back would admit: even alone, and beside all that the
    /// guarantees cover, they exceed the limit here or above.
    pub(super) fn hopeless(&self, key: Key, mut bytes: usize) -> Option<Bar> {
        self.path(key).find_map(|(key, account)| {
            let is_hopeless = account.is_closed || bytes > self.most(key.at);
            let bar = is_hopeless.then(|| self.bar(key.at, bytes));
            bytes = bytes.saturating_sub(account.guarantee);
            bar
        })
    }

    /// Whether the node could hold `bytes` in place of all that it holds now.
    pub(super) fn could_hold(&self, key: Key, bytes: usize) -> bool {
        let mut instead = (self[key].charged, bytes);
        self.path(key).all(|(_, account)| {
            let (now, then) = instead;
            let more = account.draw(then).saturating_sub(account.draw(now));
            if let Some(parent) = self.accounts.get(account.parent) {
                let charged = parent.charged;
                instead = (charged, charged.saturating_add(more));
            }
            then <= account.limit
        })
    }

    /// Counts a request that was made here and refused for good.
    pub(super) fn count_refusal(&mut self, key: Key) {
        self.for_records(key, |record| record.refused += 1);
    }

    /// Counts bytes that a manager of this node gave back.
    pub(super) fn count_reclaimed(&mut self, key: Key, bytes: usize) {
        self.for_records(key, |record| record.reclaimed += bytes as u64);
    }

    /// Bytes held at and below the node: charged, and not idle in a line.
    pub(super) fn used(&self, key: Key) -> usize {
        let account = &self[key];
        if account.open_below == 0 {
            return account.charged;
        }
        let record = self.record(key);
        let own = if account.is_open { record.line.free() } else { 0 };
        let below = record.children.iter().map(|child| {
            let account = &self[*child];
            account.draw(account.charged) - account.draw(self.used(*child))
        });
        account.charged - own - below.sum::<usize>()
    }

    /// The policies of the nodes from `key` to `binding` that have one, with those that they decide on.
    pub(super) fn families(
        &self,
        key: Key,
        binding: Key,
        requested: usize,
    ) -> Vec<(Arc<dyn Policy>, Vec<Key>, Family)> {
        let mut found = Vec::new();
        // Whoever asked may have gone meanwhile.
        if !self.has(key) {
            return found;
        }
        let mut from = None;
        for (key, account) in self.path(key) {
            if let Some(policy) = &self.record(key).policy {
                let keys: Vec<Key> = self.children(key).collect();
                let children = keys.iter().map(|child| self.share(*child)).collect();
                let requester = keys.iter().position(|child| Some(*child) == from);
                let family = Family { limit: account.limit, children, requester, requested };
                found.push((Arc::clone(policy), keys, family));
            }
            if key == binding {
                break;
            }
            from = Some(key);
        }
        found
    }

    fn share(&self, key: Key) -> Share {
        let (record, used) = (self.record(key), self.used(key));
        let mut waiting = self.waiters.waiting();
        let is_active = used > 0 || waiting.any(|(_, waiter)| self.is_below(waiter.key, key));
        let Record { weight, priority, .. } = *record;
        Share { used, guarantee: self[key].guarantee, weight, priority, is_active }
    }

    /// Bytes that the node's own reservations and lines hold.
    pub(super) fn direct(&self, key: Key) -> usize {
        let drawn = self.children(key).map(|child| self[child].draw(self[child].charged));
        let aside = if self.parent(key).is_none() { self.set_aside } else { 0 };
        self[key].charged - drawn.sum::<usize>() - aside
    }

    /// The nodes below, but those that are a part of this one.
    pub(super) fn children(&self, key: Key) -> impl Iterator<Item = Key> {
        let children = self.record(key).children.iter().copied();
        children.filter(|child| self.record(*child).workers > 0)
    }

    pub(super) fn usage(&self, key: Key) -> Usage {
        let account = &self[key];
        let limit = (account.limit != UNLIMITED).then_some(account.limit);
        let peak = account.peak.max(account.charged);
        let mut usage = Usage::new(self.used(key), peak, limit);
        let record = self.record(key);
        usage.refused = record.refused;
        usage.reclaimed = record.reclaimed;
        usage
    }

    pub(super) fn register(&mut self, key: Key, manager: Registered) {
        let managers = &mut self.record_mut(key).managers;
        let before = managers.len();
        managers.add(Arc::new(manager), |registered| registered.is_live());
        let more = managers.len().wrapping_sub(before);
        self.count_managers(key, more);
    }

    /// The managers of the whole tree, with their nodes.
    pub(super) fn all_managers(&self) -> Vec<(Key, Arc<Registered>)> {
        let of = |record: &Record| {
            let key = record.key;
            record
                .managers
                .iter()
                .map(move |manager| (key, Arc::clone(manager)))
                .collect::<Vec<_>>()
        };
        self.records.iter().flatten().flat_map(of).collect()
    }

    /// Whether there may be a manager at or below the node.
    pub(super) fn has_managers(&self, key: Key) -> bool {
        self.record(key).managers_below > 0
    }

    /// Says yes to no charge at or below the node any more.
    pub(super) fn close(&mut self, key: Key) -> Woken {
        self.close_below(key);
        self.recall_below(key);
        self.serve_all()
    }

    fn close_below(&mut self, key: Key) {
        self.settle(key);
        self[key].is_closed = true;
        for child in self.record(key).children.clone() {
            self.close_below(child);
        }
    }

    /// Another limit for the node, also one below what it holds: then nothing is admitted until that
    /// is less.
    pub(super) fn set_limit(&mut self, key: Key, limit: usize) -> Woken {
        self.settle_below(key);
        self.recall_below(key);
        self[key].limit = limit;
        let record = self.record_mut(key);
        record.limits_set = record.limits_set.wrapping_add(1);
        self.bound_credit(key);
        self.serve_all()
    }

    /// Another guarantee for the node, for which the parent is charged.
    pub(super) fn set_guarantee(&mut self, key: Key, guarantee: usize) -> Result<Woken, Bar> {
        let Some(parent) = self.parent(key) else { return Ok(Woken::default()) };
        // What is charged must not become less while the parent is.
        self.settle_below(key);
        let account = &self[key];
        let (before, after) = (account.draw(account.charged), guarantee.max(account.charged));
        if after > before {
            self.admit_now(parent, after - before, None)?;
        }
        self[key].guarantee = guarantee;
        self.release(parent, before.saturating_sub(after));
        // Also where the parent has no more room: what is covered now passes those who wait there.
        Ok(self.serve_all())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::advanced::budget::{account::Terms, node::Node, reclaim};
    use crate::core::Priority;
    use std::sync::Arc;

    /// Whoever asked may be gone with the last handle to its node before managers are asked for it, and
    /// another may have its place.
    #[test]
    fn a_node_that_is_gone_asks_for_nothing() {
        let terms = || Terms::new("node".into(), Priority::Normal);
        let root = Node::root(terms(), 0, 0, None);
        let gone = Node::child(&root, terms(), 0);
        let key = gone.key();
        drop(gone);
        assert!(root.ledger().families(key, root.key(), 1).is_empty());
        let other = Node::child(&root, terms(), 0);
        assert!(root.ledger().families(key, root.key(), 1).is_empty());
        reclaim::Round::new(root.tree(), root.key(), Some((key, 1)), false).victims();
        assert_eq!(Arc::strong_count(&other), 1);
    }
}
