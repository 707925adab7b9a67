//! The managers of a tree, ordered so that a reclaim finds the next one without visiting the others.
//!
//! ```text
//!  node ──► own managers
//!       └─► children with managers at or below them, for each class: the largest borrowers first
//! ```
//!
//! Children are ordered by the size class of their borrowed bytes. Each power of two has four size classes. A charge
//! moves a child only if its class changes by two, so most charges do not change the order. A manager that was asked
//! and had no bytes to release *rests* for 1 to 128 ms, or until the charge of its node changes by much. Resting
//! managers are kept in a separate order.

#[cfg(test)]
mod validate;

use super::{
    Key, Ledger,
    account::{NONE, watch},
    record::{CLASSES, ORDERS},
};
use crate::{
    core::{MemoryManager, Priority, ReclaimClass},
    utils::sync::{AtomicUsize, Ordering},
};
use core::{cmp::Reverse, time::Duration};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Instant,
    vec::Vec,
};

/// The number of managers that are collected under one lock.
const BATCH: usize = 32;

/// The first rest of a manager that had no bytes to release. Each further rest is twice as long, up to 128 ms.
const REST: Duration = Duration::from_millis(1);

/// The number of times that a rest is doubled.
const REST_DOUBLED: u32 = 7;

/// A manager, and counts of its answers.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) manager: Weak<dyn MemoryManager>,
    pub(crate) class: ReclaimClass,
    /// The number of times in a row that it offered bytes and released none.
    pub(crate) strikes: AtomicUsize,
    /// The number of requests for which it is still skipped.
    pub(crate) passes: AtomicUsize,
    /// The number of times in a row that it took too long.
    pub(crate) slow: AtomicUsize,
}

impl Registered {
    pub(crate) fn new(manager: Weak<dyn MemoryManager>, class: ReclaimClass) -> Self {
        Self {
            manager,
            class,
            strikes: AtomicUsize::new(0),
            passes: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
        }
    }

    fn is_live(&self) -> bool {
        self.manager.strong_count() > 0
    }

    /// Returns the number of times in a row that it offered bytes and released none.
    pub(crate) fn failures(&self) -> usize {
        self.strikes.load(Ordering::Relaxed)
    }
}

/// The managers of a tree.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    /// The resting managers, by the end of their rest.
    resting: BTreeSet<(Instant, u32)>,
    /// Managers ever registered.
    numbers: u64,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    number: u64,
    registered: Arc<Registered>,
    /// The end of its rest.
    rests: Option<Instant>,
    /// The number of its rests in a row.
    rested: u32,
}

impl Entry {
    /// Returns the order that it is in.
    fn order(&self) -> usize {
        let class = self.registered.class as usize;
        if self.rests.is_some() { class + CLASSES } else { class }
    }
}

impl Registry {
    /// Returns whether any manager rests.
    pub(crate) fn rests(&self) -> bool {
        !self.resting.is_empty()
    }
}

/// A manager that may be asked.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Its index in the registry.
    pub(crate) at: u32,
    pub(crate) registered: Arc<Registered>,
    pub(crate) key: Key,
    pub(crate) priority: Priority,
    /// The borrowed bytes of the binding node's child that the manager is below. `None` if the manager is at the
    /// binding node itself, or on the requester's own path.
    pub(crate) borrowed: Option<usize>,
}

/// A position in the managers of one class below a node, while they are collected.
#[derive(Debug)]
pub(crate) struct Cursor {
    order: usize,
    /// The number of the last manager to collect. Managers that are registered later are left out. Otherwise a
    /// collection would never end if a manager were registered for each one that is asked.
    last: u64,
    /// The nodes from the binding node down to the current one. Empty once all managers were collected.
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    key: Key,
    /// The number of the node's own managers that were collected.
    own: usize,
    /// Whether the child on the requester's path was visited.
    is_own_done: bool,
    /// The last of its other children that was visited.
    after: Option<(Reverse<u8>, u32)>,
}

impl Frame {
    const fn new(key: Key) -> Self {
        Self { key, own: 0, is_own_done: false, after: None }
    }
}

impl Cursor {
    /// Starts at the first manager of a class at and below `binding`: of the resting managers, or of the others.
    pub(crate) fn new(ledger: &Ledger, binding: Key, class: ReclaimClass, rests: bool) -> Self {
        let order = class as usize + if rests { CLASSES } else { 0 };
        Self { order, last: ledger.registry.numbers, frames: std::vec![Frame::new(binding)] }
    }
}

/// Returns the size class of a number of bytes; 0 for no bytes.
fn size_class(bytes: usize) -> u8 {
    let Some(log) = bytes.checked_ilog2() else { return 0 };
    // The two bits below the highest one.
    let quarter = (bytes >> log.saturating_sub(2)) & 3;
    u8::try_from(1 + 4 * log as usize + quarter).unwrap_or(u8::MAX)
}

impl Ledger {
    /// Adds a manager to a node.
    pub(crate) fn register(&mut self, key: Key, registered: Registered) {
        let managers = self.record_mut(key).extra_mut().managers.len();
        // Managers that are gone are taken out whenever the list has doubled.
        if managers >= 8 && managers.is_power_of_two() {
            self.sweep(key);
        }
        let registry = &mut self.registry;
        registry.numbers += 1;
        let (number, registered) = (registry.numbers, Arc::new(registered));
        let entry = Entry { key, number, registered, rests: None, rested: 0 };
        let order = entry.order();
        let at = match registry.vacant.pop() {
            Some(at) => {
                registry.entries[at as usize] = Some(entry);
                at
            }
            None => {
                registry.entries.push(Some(entry));
                u32::try_from(registry.entries.len() - 1).expect("fewer than 2³² managers")
            }
        };
        self.record_mut(key).extra_mut().managers.push(at);
        self.count_manager(key, order, 1);
    }

    /// Removes the managers of a node that were dropped.
    fn sweep(&mut self, key: Key) {
        for at in self.managers_at(key) {
            if self.entry(at).is_some_and(|entry| !entry.registered.is_live()) {
                self.forget_manager(at);
            }
        }
        self.forget_vacant(key);
    }

    /// Removes vacant indices from a node's list of managers.
    fn forget_vacant(&mut self, key: Key) {
        let Self { records, registry, .. } = self;
        let record = records[key.at as usize].as_mut();
        if let Some(extra) = record.and_then(|record| record.extra.as_mut()) {
            extra.managers.retain(|at| registry.entries[*at as usize].is_some());
        }
    }

    fn managers_at(&self, key: Key) -> Vec<u32> {
        self.record(key).extra.as_ref().map_or_else(Vec::new, |extra| extra.managers.clone())
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.registry.entries.get(at as usize)?.as_ref()
    }

    /// Removes all managers of a node that is removed.
    pub(super) fn forget_managers(&mut self, key: Key) {
        if self.record(key).extra.is_none() {
            return;
        }
        for at in self.managers_at(key) {
            self.forget_manager(at);
        }
        self.forget_vacant(key);
    }

    /// Removes a manager. Its index stays in the node's list until [`forget_vacant`](Self::forget_vacant) removes it
    /// under the same lock. So one pass is enough for all removed managers.
    fn forget_manager(&mut self, at: u32) {
        let Some(entry) = self.registry.entries[at as usize].take() else { return };
        self.registry.vacant.push(at);
        if let Some(rests) = entry.rests {
            self.registry.resting.remove(&(rests, at));
        }
        self.count_manager(entry.key, entry.order(), -1);
    }

    /// Adds `change` to the number of managers in one of the orders, at every node of the path.
    fn count_manager(&mut self, key: Key, order: usize, change: i32) {
        let mut at = key.at;
        while at != NONE {
            let account = &self.accounts[at as usize];
            let (parent, borrowed) = (account.parent, account.borrowed);
            let counts = &mut self.record_at_mut(at).extra_mut().counts;
            let before = counts[order];
            counts[order] = before.wrapping_add_signed(change);
            let (now, any) = (counts[order], counts.iter().any(|count| *count > 0));
            let account = &mut self.accounts[at as usize];
            if any {
                account.watch |= watch::MANAGERS;
            } else {
                account.watch &= !watch::MANAGERS;
            }
            if (before == 0) != (now == 0) && parent != NONE {
                let borrowers = &mut self.record_at_mut(parent).extra_mut().borrowers[order];
                if now == 0 {
                    borrowers.remove(&(Reverse(borrowed), at));
                } else {
                    borrowers.insert((Reverse(borrowed), at));
                }
            }
            at = parent;
        }
        self.follow_up(key.at);
    }

    /// Updates the position of a node with managers in the orders of its parent's children.
    pub(super) fn reorder(&mut self, at: u32) {
        let account = &self.accounts[at as usize];
        let (before, now) = (account.borrowed, size_class(account.borrowed_bytes()));
        if before == now || (before != 0 && now != 0 && before.abs_diff(now) < 2) {
            return;
        }
        let parent = account.parent;
        self.accounts[at as usize].borrowed = now;
        let counts = self.record_at_mut(at).extra_mut().counts;
        if parent != NONE {
            let borrowers = &mut self.record_at_mut(parent).extra_mut().borrowers;
            for (order, _) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                borrowers[order].remove(&(Reverse(before), at));
                borrowers[order].insert((Reverse(now), at));
            }
        }
        if counts[CLASSES..].iter().any(|count| *count > 0) {
            // A node that is charged much more than before may have something to give.
            for manager in self.managers_at(self.key_at(at)) {
                self.end_rest(manager);
            }
        }
    }

    /// Lets a manager rest that had no bytes to release, or ends its rest.
    pub(crate) fn set_resting(&mut self, at: u32, key: Key, rests: bool, now: Instant) {
        // Another may have its index meanwhile.
        if self.entry(at).is_none_or(|entry| entry.key != key) {
            return;
        }
        if !rests {
            self.end_rest(at);
            if let Some(entry) = &mut self.registry.entries[at as usize] {
                entry.rested = 0;
            }
            return;
        }
        let Some(entry) = &mut self.registry.entries[at as usize] else { return };
        let before = entry.order();
        if let Some(until) = entry.rests {
            self.registry.resting.remove(&(until, at));
        }
        let until = now + REST * (1 << entry.rested.min(REST_DOUBLED));
        entry.rested += 1;
        entry.rests = Some(until);
        let after = entry.order();
        self.registry.resting.insert((until, at));
        self.change_order(key, before, after);
    }

    fn end_rest(&mut self, at: u32) {
        let Some(entry) = self.registry.entries[at as usize].as_mut() else { return };
        let before = entry.order();
        let Some(until) = entry.rests.take() else { return };
        let (key, after) = (entry.key, entry.order());
        self.registry.resting.remove(&(until, at));
        self.change_order(key, before, after);
    }

    fn change_order(&mut self, key: Key, before: usize, after: usize) {
        if before != after {
            self.count_manager(key, after, 1);
            self.count_manager(key, before, -1);
        }
    }

    /// Ends the rest of managers that have rested long enough. If they are many, ends only some rests, because each
    /// takes as long as a few charges.
    pub(crate) fn end_rests(&mut self, now: Instant) {
        for _ in 0..BATCH {
            match self.registry.resting.first().copied() {
                Some((until, at)) if until <= now => self.end_rest(at),
                _ => return,
            }
        }
    }

    /// Returns whether a manager may be registered at or below the node.
    pub(crate) fn has_managers(&self, key: Key) -> bool {
        self[key].watch & watch::MANAGERS != 0
    }

    /// Returns whether a manager of this class may be registered at or below the node, resting or not.
    pub(crate) fn has_managers_in(&self, key: Key, class: ReclaimClass, rests: bool) -> bool {
        let order = class as usize + if rests { CLASSES } else { 0 };
        self.record(key).extra.as_ref().is_some_and(|extra| extra.counts[order] > 0)
    }

    /// Returns the next managers at and below a node. The managers of the node itself and on the requester's path come
    /// first, and then the others, about in the order of the bytes that the children above them borrow. Empty if there
    /// are no more.
    ///
    /// # Complexity
    ///
    /// Logarithmic for each returned manager, in the number of children with managers.
    pub(crate) fn candidates(
        &mut self,
        requester: Option<Key>,
        cursor: &mut Cursor,
    ) -> Vec<Candidate> {
        let requester = requester.filter(|requester| self.has(*requester));
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        while let Some(frame) = cursor.frames.last_mut().filter(|_| found.len() < BATCH) {
            let key = frame.key;
            if !self.has(key) {
                cursor.frames.pop();
                continue;
            }
            let Some(extra) = &self.record(key).extra else {
                cursor.frames.pop();
                continue;
            };
            // Its own managers.
            if let Some(at) = extra.managers.get(frame.own).copied() {
                frame.own += 1;
                let Some(entry) = self.entry(at) else { continue };
                if !entry.registered.is_live() {
                    gone.push(at);
                } else if entry.order() == cursor.order && entry.number <= cursor.last {
                    let branch = cursor.frames.get(1).map(|frame| frame.key);
                    let is_own =
                        |branch: Key| requester.is_some_and(|key| self.is_below(key, branch));
                    let branch = branch.filter(|branch| !is_own(*branch));
                    found.push(Candidate {
                        at,
                        registered: Arc::clone(&entry.registered),
                        key,
                        priority: self.record(key).shared.priority(),
                        borrowed: branch.map(|branch| self[branch].borrowed_bytes()),
                    });
                }
                continue;
            }
            // The child on the requester's path: no guarantee is in the way there.
            let own = requester
                .filter(|requester| self.is_below(*requester, key))
                .and_then(|requester| self.child_towards(key, requester));
            if !frame.is_own_done {
                frame.is_own_done = true;
                let has_some = |own: &Key| {
                    let extra = self.record(*own).extra.as_ref();
                    extra.is_some_and(|extra| extra.counts[cursor.order] > 0)
                };
                if let Some(own) = own.filter(has_some) {
                    cursor.frames.push(Frame::new(own));
                }
                continue;
            }
            // The others, until one borrows nothing.
            let borrowers = &extra.borrowers[cursor.order];
            let next = match frame.after {
                None => borrowers.iter().next().copied(),
                Some(after) => {
                    let after = (core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded);
                    borrowers.range(after).next().copied()
                }
            };
            frame.after = next.or(frame.after);
            match next.filter(|(Reverse(borrowed), _)| *borrowed > 0) {
                None => _ = cursor.frames.pop(),
                Some((_, at)) if own.is_some_and(|own| own.at == at) => {}
                Some((_, at)) => cursor.frames.push(Frame::new(self.key_at(at))),
            }
        }
        let mut nodes: Vec<Key> = Vec::new();
        for at in gone {
            let Some(key) = self.entry(at).map(|entry| entry.key) else { continue };
            self.forget_manager(at);
            for frame in cursor.frames.iter_mut().filter(|frame| frame.key == key) {
                frame.own -= 1;
            }
            // Those of one node were found one after the other.
            if nodes.last() != Some(&key) {
                nodes.push(key);
            }
        }
        for key in nodes {
            self.forget_vacant(key);
        }
        found
    }

    /// Iterates over the managers of a node.
    pub(crate) fn managers_of(&self, key: Key) -> impl Iterator<Item = &Arc<Registered>> {
        let extra = self.record(key).extra.as_ref();
        let managers = extra.into_iter().flat_map(|extra| extra.managers.iter());
        managers.filter_map(|at| Some(&self.entry(*at)?.registered))
    }
}

const _: () = assert!(ORDERS == 2 * CLASSES);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::size_class;

    #[test]
    fn size_classes_rise_with_the_bytes() {
        assert_eq!([0, 1, 2, 3].map(size_class), [0, 2, 7, 8]);
        let classes = (0..64).flat_map(|log| [1_usize << log, (1_usize << log) + (1 << log) / 2]);
        let classes: std::vec::Vec<u8> = classes.map(size_class).collect();
        assert!(classes.is_sorted());
        assert_eq!(size_class(usize::MAX), u8::MAX);
    }
}
