//! The queues of the nodes: the first request, and the next request to serve.

use super::{Entry, NodeQueue, PRIORITIES, Queue, State, Waiter, Waits, Woken, watch};
use crate::{
    advanced::budget::ledger::{Binding, Key, Ledger, NONE, ROOT, record::Record},
    core::Priority,
};
use core::mem;
use std::time::Instant;

/// A request that can be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Servable {
    pub(super) order: u64,
    pub(super) slot: u32,
    pub(super) need: usize,
}

/// The most requests that are examined to find a sibling's request within its share.
const SIBLINGS_MOST: usize = 16;

impl Ledger {
    /// Counts a request that begins or ends to wait, at every node of its path.
    pub(super) fn count_waiting(&mut self, key: Key, change: i32) {
        self.on_path(key, |record| record.waiting = record.waiting.wrapping_add_signed(change));
    }

    /// Counts an answer that was given or fetched, at every node of the path. Until it is fetched, its task counts as
    /// at work, though it may not run yet.
    pub(super) fn count_answered(&mut self, key: Key, change: i32) {
        self.on_path(key, |record| record.answered = record.answered.wrapping_add_signed(change));
    }

    fn on_path(&mut self, key: Key, mut change: impl FnMut(&mut Record)) {
        // There may be another judgement.
        self.waiters.note_change();
        let mut at = key.at;
        while at != NONE {
            change(self.record_at_mut(at));
            at = self.accounts[at as usize].parent;
        }
    }

    /// Makes queues for a request at every node of its path.
    pub(super) fn open_queues(&mut self, key: Key, bytes: usize) {
        let mut at = key.at;
        while at != NONE {
            let waits = self.record_at_mut(at).waits.get_or_insert_with(Waits::new);
            waits.largest = waits.largest.max(bytes);
            self.accounts[at as usize].watch |= watch::WAITERS;
            at = self.accounts[at as usize].parent;
        }
    }

    /// Drops the queues of the nodes on a path at and below which no request waits.
    pub(super) fn drop_queues(&mut self, key: Key) {
        let mut at = key.at;
        while at != NONE {
            let record = self.record_at_mut(at);
            if record.waiting == 0 {
                debug_assert!(record.waits.as_ref().is_none_or(|waits| waits.is_empty()));
                record.waits = None;
                self.accounts[at as usize].watch &= !watch::WAITERS;
                self.waiters.blocked.remove(&at);
            }
            at = self.accounts[at as usize].parent;
        }
    }

    pub(super) fn put(&mut self, at: u32, class: usize, entry: Entry) {
        let record = self.records[at as usize].as_mut().expect("a node outlives those below it");
        let queue = &mut record.waits.get_or_insert_with(Waits::new).queues[class].queue;
        self.waiters.forest.insert(queue, entry);
    }

    pub(super) fn pull(&mut self, at: u32, class: usize, order: u64) {
        let record = self.records[at as usize].as_mut().expect("a node outlives those below it");
        if let Some(waits) = &mut record.waits {
            self.waiters.forest.remove(&mut waits.queues[class].queue, order);
        }
    }

    pub(super) fn node_queue(&self, at: u32, class: usize) -> Option<&NodeQueue> {
        Some(&self.record_at(at).waits.as_ref()?.queues[class])
    }

    /// Returns the first request of a queue, if it does not fit the node.
    pub(super) fn blocked_first(&self, at: u32, class: usize) -> Option<&Entry> {
        let first = self.waiters.forest.first(self.node_queue(at, class)?.queue)?;
        (first.first_need > self.accounts[at as usize].room()).then_some(first)
    }

    /// Returns whether a request would take a child beyond its share while a sibling's request waits that is within its
    /// share.
    fn is_kept_for_sibling(&self, queue: Queue, entry: &Entry) -> bool {
        if !self.is_beyond_share(entry) {
            return false;
        }
        let mut after = None;
        for _ in 0..SIBLINGS_MOST {
            let Some(other) = self.waiters.forest.first_within(queue, usize::MAX, after) else {
                return false;
            };
            if other.child != entry.child && !self.is_beyond_share(&other) {
                return true;
            }
            after = Some(other.order);
        }
        false
    }

    fn is_beyond_share(&self, entry: &Entry) -> bool {
        if entry.child == NONE || entry.first_need == 0 {
            return false;
        }
        let slack = self.accounts[entry.child as usize].slack();
        self.exceeds_share(entry.child, entry.first_need.saturating_add(slack))
    }

    /// Returns the first request of a priority, at and below a node, that needs at most `within` bytes of the node, and
    /// that does not have to wait for an overdue request.
    pub(super) fn servable(&self, at: u32, class: usize, mut within: usize) -> Option<Servable> {
        let NodeQueue { queue, overdue, .. } = *self.node_queue(at, class)?;
        let forest = &self.waiters.forest;
        if forest.least(queue) > within {
            return None;
        }
        let first = forest.first(queue)?;
        // Where it fits this node its bytes are missing further up: what a guarantee covers is not kept for it.
        let is_kept =
            overdue == first.order && first.first_need > self.accounts[at as usize].room();
        if is_kept || self.is_kept_for_higher(at, class) {
            within = 0;
        }
        let by_share = self.record_at(at).sharing().admits_by_share();
        let mut after = None;
        while let Some(entry) = forest.first_within(queue, within, after) {
            // Beyond its share a child gets nothing that a sibling waits for.
            let within = if by_share && self.is_kept_for_sibling(queue, &entry) {
                within.min(self.share_left(entry.child))
            } else {
                within
            };
            if entry.need > within {
                after = Some(entry.order);
                continue;
            }
            if entry.child == NONE || entry.first_need <= within {
                let Entry { order, first, first_need, .. } = entry;
                return Some(Servable { order, slot: first, need: first_need });
            }
            // Its first does not fit here; one of the others below the child may.
            let child = &self.accounts[entry.child as usize];
            let slack = child.slack();
            let inside = within.saturating_add(slack).min(child.room());
            if let Some(found) = self.servable(entry.child, class, inside) {
                return Some(Servable { need: found.need.saturating_sub(slack), ..found });
            }
            after = Some(entry.order);
        }
        None
    }

    /// Returns the entry of a node's queue for the parent's queue; `None` if the node itself can admit none of its
    /// requests.
    pub(super) fn export(&self, at: u32, class: usize) -> Option<Entry> {
        let account = &self.accounts[at as usize];
        let first = self.servable(at, class, account.room())?;
        let least = self.waiters.forest.least(self.node_queue(at, class)?.queue).min(first.need);
        let slack = account.slack();
        Some(Entry {
            order: first.order,
            first: first.slot,
            child: at,
            first_need: first.need.saturating_sub(slack),
            need: least.saturating_sub(slack),
        })
    }

    /// Updates the entries of a node in its parent's queues.
    pub(crate) fn refresh(&mut self, at: u32) {
        let Some(waits) = &self.record_at(at).waits else { return };
        let was_blocked = waits.is_blocked;
        let account = &self.accounts[at as usize];
        let (parent, room) = (account.parent, account.room());
        let mut firsts =
            waits.queues.iter().filter_map(|queue| self.waiters.forest.first(queue.queue));
        let is_blocked = firsts.any(|first| first.first_need > room);
        let exported = if parent == NONE { 0 } else { PRIORITIES };
        for class in 0..exported {
            let Some(NodeQueue { queue, export: before, .. }) = self.node_queue(at, class).copied()
            else {
                return;
            };
            if queue == NONE && before.is_none() {
                continue;
            }
            let after = self.export(at, class);
            if before == after {
                continue;
            }
            match (before, after) {
                (Some(before), Some(after)) if before.order == after.order => {
                    if let Some(NodeQueue { queue, .. }) = self.node_queue(parent, class).copied() {
                        self.waiters.forest.replace(queue, after);
                    }
                }
                _ => {
                    if let Some(before) = before {
                        self.pull(parent, class, before.order);
                    }
                    if let Some(after) = after {
                        self.put(parent, class, after);
                    }
                }
            }
            if let Some(waits) = &mut self.record_at_mut(at).waits {
                waits.queues[class].export = after;
            }
        }
        if is_blocked != was_blocked {
            if let Some(waits) = &mut self.record_at_mut(at).waits {
                waits.is_blocked = is_blocked;
            }
            if is_blocked {
                self.waiters.blocked.insert(at);
            } else {
                self.waiters.blocked.remove(&at);
            }
        }
    }

    /// Like [`admit`](Self::admit), for a request of this priority and number, unless an earlier request is overdue.
    pub(crate) fn admit_in_turn(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Priority,
        number: u64,
        now: &mut Option<Instant>,
    ) -> Result<(), Binding> {
        self.admit_below(key, bytes, priority, number, NONE, now)
    }

    /// Like [`admit_in_turn`](Self::admit_in_turn), if no charge changes from the node `end` upwards.
    pub(crate) fn admit_below(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Priority,
        number: u64,
        end: u32,
        now: &mut Option<Instant>,
    ) -> Result<(), Binding> {
        let admitted = self.pass(key, bytes, priority, number, end, now);
        let admitted = admitted.and_then(|()| {
            self.charge(key, bytes).or_else(|short| self.collect(key, bytes, short))
        });
        if admitted.is_ok() {
            for n in 0..self.waiters.passed.len() {
                let slot = self.waiters.passed[n];
                let clock = &self.waiters.clock;
                let now = *now.get_or_insert_with(|| clock.now());
                self.waiters.slot_mut(slot).overtaken.count(|| now);
            }
        }
        admitted
    }

    /// Like [`admit`](Self::admit), if requests wait. Whether the request is admitted or not, others may be served
    /// then: an overdue request that is now blocked at its own node no longer blocks requests at nodes above.
    pub(crate) fn admit_among_waiting(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Priority,
        mut now: Option<Instant>,
    ) -> Result<(), Binding> {
        let admitted = self.admit_in_turn(key, bytes, priority, u64::MAX, &mut now);
        if admitted.is_ok() || mem::take(&mut self.waiters.is_noted) {
            self.serve_owed();
        }
        admitted
    }

    /// Grants the requests that fit. Their wakers are called after the ledger is unlocked.
    pub(crate) fn serve_owed(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let mut owed = self.take_owed();
        self.serve_into(&mut owed);
        self.waiters.owed = owed;
    }

    /// Takes the wakers of requests that were served after an admission, to call them after the ledger is unlocked.
    #[inline]
    pub(crate) fn take_owed(&mut self) -> Woken {
        mem::take(&mut self.waiters.owed)
    }

    /// Grants released bytes to the first request, if it takes just these bytes and both are the root's own. Then no
    /// figure of the node changes. Returns `None` if the bytes have to be released.
    pub(crate) fn hand_over(&mut self, key: Key, bytes: usize) -> Option<Woken> {
        let account = &self.accounts[ROOT as usize];
        if key.at != ROOT || account.watch != watch::WAITERS || account.charged > account.limit {
            return None;
        }
        let waits = self.record_at(ROOT).waits.as_ref()?;
        let mut queues = waits.queues.iter().rev();
        let first = *queues.find_map(|queue| self.waiters.forest.first(queue.queue))?;
        if first.child != NONE || first.first_need != bytes {
            return None;
        }
        let account = &mut self.accounts[ROOT as usize];
        account.released = account.released.wrapping_add(bytes);
        let mut woken = Woken::default();
        let waker = self.answer(first.first, State::Granted);
        woken.push(waker);
        // The first may have kept others back.
        let room = self.accounts[ROOT as usize].room();
        let mut left = self.record_at(ROOT).waits.iter().flat_map(|waits| &waits.queues);
        if left.any(|queue| self.waiters.forest.least(queue.queue) <= room) {
            self.serve_into(&mut woken);
        }
        Some(woken)
    }

    /// Grants the requests that fit, in their order.
    #[inline]
    pub(crate) fn serve(&mut self) -> Woken {
        let mut woken = Woken::default();
        if !self.waiters.is_empty() {
            self.serve_into(&mut woken);
        }
        woken
    }

    #[cold]
    pub(super) fn serve_into(&mut self, woken: &mut Woken) {
        let mut now = None;
        'next: loop {
            for class in (0..PRIORITIES).rev() {
                let room = self.accounts[ROOT as usize].room();
                let Some(found) = self.servable(ROOT, class, room) else { continue };
                let Waiter { key, bytes, priority, .. } = *self.waiters.slot(found.slot);
                match self.admit_in_turn(key, bytes, priority, found.order, &mut now) {
                    Ok(()) => {
                        let waker = self.answer(found.slot, State::Granted);
                        woken.push(waker);
                    }
                    // One before it has become overdue, so that another is servable now.
                    Err(_) if mem::take(&mut self.waiters.is_noted) => {}
                    Err(binding) => {
                        debug_assert!(false, "servable, but {}", binding.refused);
                        return;
                    }
                }
                continue 'next;
            }
            return;
        }
    }
}
