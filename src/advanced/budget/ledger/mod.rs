//! The figures of a tree of budgets, under one lock.
//!
//! A node that is charged `x` bytes draws `draw(x) = max(guarantee, x)` bytes from its parent: the parent is charged
//! for them. A charge goes up the path. If a node has no room, the charge is undone at the nodes below. Both happen
//! under one lock, so no thread sees one node charged and another not.
//!
//! ```text
//!  accounts   the figures that a charge reads and writes at each node, in one cache line
//!  records    names, weights, counters, the lists of children
//!  lines      the nodes with credit, which is taken without the lock                      credit.rs
//!  waiters    requests that wait: a queue in each node, ordered, with the least need      wait/, queue.rs
//!  registry   managers, and the children of each node ordered by borrowed bytes          registry.rs
//! ```
//!
//! # Complexity
//!
//! A charge and a release take `O(d)` for a path of `d` nodes. A node on the path takes another `O(log n)` if requests
//! wait there, managers are registered there, or its policy divides by weight; `n` is the number of these entries. Only
//! closing or reading a whole subtree depends on the number of nodes.
//!
//! No foreign code runs under the lock.

mod account;
mod credit;
mod figures;
mod limits;
mod line;
#[cfg(all(test, loom))]
mod loom_tests;
mod node;
mod nodes;
mod queue;
#[cfg(all(test, not(loom), not(shuttle)))]
mod random_tests;
mod record;
mod registry;
mod share;
mod spec;
#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
mod tree;
#[cfg(test)]
mod validate;
mod verdict;
mod wait;

pub(crate) use self::{
    account::{Binding, Key, UNLIMITED},
    figures::Reading,
    node::{Node, Shared},
    registry::{Candidate, Cursor, Registered},
    share::{Entitlement, Sharing},
    spec::{Name, NodeSpec},
    tree::{DEFAULT_TIMEOUT, Locked, Tree, TreeOptions},
    verdict::{Evidence, Judgement},
    wait::{Blocked, Due, Enqueued, Fetched, Request, TaskWaker, Woken},
};

use self::{
    account::{Account, NONE, watch},
    record::Record,
    registry::Registry,
    wait::Waiters,
};
use crate::core::{
    Priority,
    error::{Refused, RefusedReason},
};
use core::{cmp::Reverse, ops, time::Duration};
use std::{collections::BinaryHeap, time::Instant, vec::Vec};

/// Index of the root's account: it is the first that is made, and the last that goes.
const ROOT: u32 = 0;

/// # Invariants
///
/// - At every account `charged` is the sum of three figures: the bytes of the reservations from the node, the unused
///   credit of its line, and `drawn`, the bytes that its children draw. It exceeds `limit` only after
///   [`force`](Self::force), or after the limit was lowered.
/// - `undrawn` is the sum of the unused bytes of all guarantees.
/// - `accounts` and `records` are as long as each other. A record belongs to the account at the same index.
/// - While requests wait, and while a reclaim is under way, no line is opened.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Vec<Account>,
    records: Vec<Option<Record>>,
    /// Indices without a record. Those beyond the end are stale.
    vacant: BinaryHeap<Reverse<u32>>,
    lines: credit::Lines,
    /// The number of reclaims under way. While it is not 0, released bytes do not become credit.
    pub(crate) rounds: usize,
    pub(crate) waiters: Waiters,
    pub(crate) registry: Registry,
    /// Bytes of the root that only reclaim may use.
    set_aside: usize,
    undrawn: usize,
    /// Nodes whose number of tasks somebody declared.
    declared: usize,
    /// Nodes that a context carries or carried.
    pub(crate) tracked: usize,
    /// Whether the units are objects instead of bytes. A line then gets all free units: the figures of such a tree are
    /// not shown, and a request at another node withdraws the credit.
    counts_objects: bool,
}

impl ops::Index<Key> for Ledger {
    type Output = Account;

    #[inline]
    fn index(&self, key: Key) -> &Account {
        &self.accounts[key.at as usize]
    }
}

impl ops::IndexMut<Key> for Ledger {
    #[inline]
    fn index_mut(&mut self, key: Key) -> &mut Account {
        &mut self.accounts[key.at as usize]
    }
}

/// The node that has no room, and the bytes that were requested of it.
#[derive(Clone, Copy, Debug)]
struct Short {
    at: u32,
    requested: usize,
}

/// Charges and releases.
impl Ledger {
    /// Admits `bytes` at the node and every node above, or at none. Opens the node's line again.
    ///
    /// The request does not overtake an overdue waiter. It has the node's own priority, unless another is given.
    pub(crate) fn admit(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Option<Priority>,
    ) -> Result<(), Binding> {
        self.admit_at(key, bytes, priority, None)
    }

    /// Like [`admit`](Self::admit), for a caller that knows the time.
    pub(super) fn admit_at(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Option<Priority>,
        now: Option<Instant>,
    ) -> Result<(), Binding> {
        if self.waiters.is_empty() {
            if self[key].is_open {
                if self.refill(key, bytes) {
                    return Ok(());
                }
                return self.charge(key, bytes).or_else(|short| self.collect(key, bytes, short));
            }
            self.charge(key, bytes).or_else(|short| self.collect(key, bytes, short))?;
            if bytes <= credit::SMALL_MOST {
                self.lend(key);
            }
            return Ok(());
        }
        let priority = priority.unwrap_or_else(|| self.own_priority(key));
        self.admit_among_waiting(key, bytes, priority, now)
    }

    /// The priority of requests at a node that name none.
    pub(super) fn own_priority(&self, key: Key) -> Priority {
        match self.parent(key).filter(|_| self[key].is_hidden) {
            Some(shown) => self.record(shown).shared.priority(),
            None => self.record(key).shared.priority(),
        }
    }

    /// Charges `bytes` that the node `short` had no room for, after withdrawing unused credit that takes the room.
    #[cold]
    fn collect(&mut self, key: Key, bytes: usize, mut short: Short) -> Result<(), Binding> {
        loop {
            let binding = self.key_at(short.at);
            if !self.settle_below(binding) {
                self.recall_below(binding);
                return Err(self.binding(short.at, short.requested));
            }
            match self.charge(key, bytes) {
                Ok(()) => return Ok(()),
                Err(now) => short = now,
            }
        }
    }

    /// Charges `bytes` at the node and every node above, or at none.
    #[inline]
    fn charge(&mut self, key: Key, bytes: usize) -> Result<(), Short> {
        if self[key].is_closed {
            return Err(Short { at: key.at, requested: bytes });
        }
        let (mut at, mut more, mut from_below, mut watched) = (key.at, bytes, 0, 0);
        while let Some(account) = self.accounts.get_mut(at as usize) {
            if more > account.room() {
                self.take_back(key.at, bytes, at);
                return Err(Short { at, requested: more });
            }
            account.drawn += from_below;
            watched |= account.watch;
            let above = account.add(more);
            self.undrawn -= more - above;
            from_below = account.shown(above);
            more = above;
            if more == 0 {
                break;
            }
            at = account.parent;
        }
        if watched != 0 {
            self.follow_up(key.at);
        }
        Ok(())
    }

    /// Undoes a charge of `bytes` at the nodes from one up to below another.
    #[cold]
    fn take_back(&mut self, from: u32, bytes: usize, below: u32) {
        let (mut at, mut less, mut from_below) = (from, bytes, 0);
        while at != below {
            let account = &mut self.accounts[at as usize];
            account.drawn -= from_below;
            let above = account.subtract(less);
            self.undrawn += less - above;
            from_below = account.shown(above);
            less = above;
            at = account.parent;
        }
    }

    /// Releases `bytes` that were charged to the node. The caller serves waiting requests.
    #[inline]
    fn release(&mut self, key: Key, bytes: usize) {
        let (mut at, mut less, mut from_below, mut watched) = (key.at, bytes, 0, 0);
        while let Some(account) = self.accounts.get_mut(at as usize) {
            account.peak = account.peak.max(account.charged);
            account.drawn -= from_below;
            account.released = account.released.wrapping_add(less);
            watched |= account.watch;
            let above = account.subtract(less);
            self.undrawn += less - above;
            from_below = account.shown(above);
            less = above;
            if less == 0 {
                break;
            }
            at = account.parent;
        }
        if watched != 0 {
            self.follow_up(key.at);
        }
    }

    /// Charges bytes that exist already, without regard to limits. Returns the number of charged bytes, which is less
    /// than `bytes` only if the sum would overflow.
    pub(crate) fn force(&mut self, key: Key, bytes: usize) -> usize {
        let bytes = bytes.min(usize::MAX - self.accounts[ROOT as usize].charged);
        self.add(key, bytes);
        // No credit is spent at a node before it has repaid its overdraft, nor counted in that.
        let mut over = None;
        for key in self.path(key) {
            let account = &self[key];
            over = if account.charged > account.limit { Some(key) } else { over };
        }
        if let Some(over) = over {
            self.settle_below(over);
            self.recall_below(over);
        }
        // An overdue request that does not fit its own node any more keeps nobody back further up.
        self.serve_owed();
        bytes
    }

    /// Charges `bytes` to the node and every node above without a check of limits. The root's sum must not overflow.
    fn add(&mut self, key: Key, bytes: usize) {
        let (mut at, mut more, mut from_below) = (key.at, bytes, 0);
        while let Some(account) = self.accounts.get_mut(at as usize) {
            account.drawn += from_below;
            let above = account.add(more);
            self.undrawn -= more - above;
            from_below = account.shown(above);
            more = above;
            at = account.parent;
        }
        self.follow_up(key.at);
    }

    /// Updates the data that depends on the charges of a path.
    #[cold]
    fn follow_up(&mut self, from: u32) {
        let mut at = from;
        while let Some(account) = self.accounts.get(at as usize) {
            let (watched, parent) = (account.watch, account.parent);
            if watched & watch::MANAGERS != 0 {
                self.reorder(at);
            }
            if watched & watch::SHARES != 0 {
                self.note_active(at);
            }
            if watched & watch::WAITERS != 0 {
                self.waiters.note_change();
                self.refresh(at);
            }
            at = parent;
        }
    }

    /// Releases `bytes` that the line had no room for.
    #[inline]
    pub(crate) fn give_back(&mut self, key: Key, bytes: usize) -> Woken {
        if let Some(woken) = self.hand_over(key, bytes) {
            return woken;
        }
        if !self[key].is_open || !self.drain(key, bytes) {
            self.release(key, bytes);
        }
        self.serve()
    }

    /// Releases `bytes`, or all charged bytes of the node if they are fewer. The node has no children. Returns the
    /// number of released bytes.
    pub(crate) fn give_back_at_most(&mut self, key: Key, bytes: usize) -> (usize, Woken) {
        let was_open = self.settle(key);
        let bytes = bytes.min(self[key].charged);
        self.release(key, bytes);
        if was_open {
            self.lend(key);
        }
        (bytes, self.serve())
    }

    /// Moves bytes that `from` was charged to `to`. No thread sees them at both nodes, or at neither.
    pub(crate) fn transfer(&mut self, from: Key, to: Key, bytes: usize) -> Result<Woken, Binding> {
        if bytes == 0 {
            return Ok(Woken::default());
        }
        let common = self.common(from, to);
        let before = self.accounts[common as usize].charged;
        self.release(from, bytes);
        let admitted = if self.waiters.is_empty() {
            self.charge(to, bytes).or_else(|short| self.collect(to, bytes, short))
        } else {
            let priority = self.own_priority(to);
            let released = before - self.accounts[common as usize].charged;
            // Where the first common node and those above it are charged no more than before, nobody is passed
            // there. A guarantee that the bytes leave stays charged.
            let end = if self.needed_at(common, to, bytes) <= released { common } else { NONE };
            self.admit_below(to, bytes, priority, u64::MAX, end, &mut None)
        };
        if let Err(binding) = admitted {
            self.add(from, bytes);
            self.serve_owed();
            return Err(binding);
        }
        Ok(self.serve())
    }

    /// Returns the bytes that the node `above` would be charged if `key`, at or below it, were charged `bytes`.
    fn needed_at(&self, above: u32, key: Key, mut bytes: usize) -> usize {
        let mut at = key.at;
        while at != above {
            let account = &self.accounts[at as usize];
            bytes = bytes.saturating_sub(account.slack());
            at = account.parent;
        }
        bytes
    }

    /// Returns the lowest node that is at or above both.
    fn common(&self, one: Key, other: Key) -> u32 {
        let (mut one, mut other) = (one.at, other.at);
        while one != other {
            let [first, second] = [one, other].map(|at| &self.accounts[at as usize]);
            if first.depth >= second.depth {
                one = first.parent;
            } else {
                other = second.parent;
            }
        }
        one
    }

    /// Returns the refusal of a node without room.
    #[cold]
    #[inline(never)]
    fn binding(&self, at: u32, requested: usize) -> Binding {
        let (account, record) = (&self.accounts[at as usize], self.record_at(at));
        if account.is_hidden {
            return self.binding(account.parent, requested);
        }
        let most = self.most(at);
        let (reason, limit) = if account.is_closed {
            (RefusedReason::Closed, account.limit)
        } else if requested > most {
            (RefusedReason::TooLarge, most)
        } else {
            (RefusedReason::OverLimit, account.limit)
        };
        let refused = Refused {
            node: record.id,
            name: record.shared.name.label,
            reason,
            requested,
            available: account.room(),
            limit,
            waited: Duration::ZERO,
            failure: None,
        };
        Binding { at: Key { id: record.id, at }, refused }
    }

    /// Returns the most bytes that a node may ever hold: its limit, without the emergency reserve of a root.
    fn most(&self, at: u32) -> usize {
        let account = &self.accounts[at as usize];
        let aside = if account.parent == NONE { self.set_aside } else { 0 };
        account.limit.saturating_sub(aside)
    }

    /// Returns the refusal of a request that no release would admit: even if no other bytes were reserved, and after
    /// the parts that guarantees cover, `bytes` exceed a limit of the path.
    pub(crate) fn hopeless(&self, key: Key, mut bytes: usize) -> Option<Binding> {
        let mut at = key.at;
        while let Some(account) = self.accounts.get(at as usize) {
            if account.is_closed || bytes > self.most(at) {
                return Some(self.binding(at, bytes));
            }
            bytes = bytes.saturating_sub(account.guarantee);
            at = account.parent;
        }
        None
    }

    /// Returns the node that would refuse `bytes` now; `None` if they fit.
    pub(crate) fn probe(&self, key: Key, bytes: usize) -> Option<Binding> {
        let Short { at, requested } = self.short_of(key, bytes)?;
        Some(self.binding(at, requested))
    }

    /// Like [`probe`](Self::probe), without the refusal.
    fn short_of(&self, key: Key, bytes: usize) -> Option<Short> {
        if self[key].is_closed {
            return Some(Short { at: key.at, requested: bytes });
        }
        let (mut at, mut more) = (key.at, bytes);
        while let Some(account) = self.accounts.get(at as usize) {
            if more > account.room() {
                return Some(Short { at, requested: more });
            }
            more = more.saturating_sub(account.slack());
            if more == 0 {
                break;
            }
            at = account.parent;
        }
        None
    }

    /// Returns whether `bytes` would fit the node if it held no other bytes.
    pub(crate) fn could_hold(&self, key: Key, bytes: usize) -> bool {
        let mut instead = (self[key].charged, bytes);
        self.path(key).all(|key| {
            let account = &self[key];
            let (now, then) = instead;
            let more = account.draw(then).saturating_sub(account.draw(now));
            if let Some(parent) = self.accounts.get(account.parent as usize) {
                instead = (parent.charged, parent.charged.saturating_add(more));
            }
            then <= account.limit
        })
    }

    /// Counts a refusal of a request that was made here.
    pub(crate) fn count_refusal(&mut self, key: Key) {
        let mut at = key.at;
        while at != NONE {
            self.record_at_mut(at).refused += 1;
            at = self.accounts[at as usize].parent;
        }
    }

    /// Counts bytes that a manager of this node released.
    pub(crate) fn count_reclaimed(&mut self, key: Key, bytes: usize) {
        let mut at = key.at;
        while at != NONE {
            self.record_at_mut(at).reclaimed += bytes as u64;
            at = self.accounts[at as usize].parent;
        }
    }
}
