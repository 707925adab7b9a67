//! Requests that are overtaken: by how many others and for how long, and the bytes that are kept for them afterwards.

use super::{Entry, PRIORITIES, Woken};
use crate::{
    advanced::budget::ledger::{Binding, Key, Ledger, NONE},
    core::{Priority, error::RefusedReason},
};
use core::{mem, time::Duration};
use std::{time::Instant, vec::Vec};

/// The most requests that may overtake a waiting request before bytes are kept for it.
const MOST_PASSED: u32 = 16;

/// The longest time in which others may overtake it before.
const LONGEST_PASSED: Duration = Duration::from_millis(10);

/// The time for which bytes are first kept for it. It doubles each time.
const KEPT_FIRST: Duration = Duration::from_millis(100);

/// The longest time for which bytes are kept at once.
const KEPT_MOST: Duration = Duration::from_secs(1);

/// How a waiting request is overtaken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overtaken {
    /// The number of requests that overtook it since bytes were last kept for it.
    by: u32,
    /// The time from which [`LONGEST_PASSED`] counts. After bytes were kept it begins with the next that overtakes:
    /// where two requests are in the way of a third, bytes would otherwise be kept for one or the other all the time.
    since: Option<Instant>,
    /// The time until which bytes are kept for it; `None` while others may overtake it.
    pub(super) kept_until: Option<Instant>,
    /// The time for which they are kept next.
    kept_for: Duration,
    /// The node that keeps them, and its free bytes when it began to.
    kept_at: (u32, usize),
}

impl Overtaken {
    pub(super) const fn new(now: Instant) -> Self {
        Self { by: 0, since: Some(now), kept_until: None, kept_for: KEPT_FIRST, kept_at: (NONE, 0) }
    }

    /// Returns whether no more requests may overtake it.
    pub(super) fn is_overdue(&self, now: impl FnOnce() -> Instant) -> bool {
        self.kept_until.is_some()
            || self.by >= MOST_PASSED
            || self
                .since
                .is_some_and(|since| now().saturating_duration_since(since) >= LONGEST_PASSED)
    }

    /// Counts a request that overtakes it.
    pub(super) fn count(&mut self, now: impl FnOnce() -> Instant) {
        self.by += 1;
        self.since.get_or_insert_with(now);
    }

    /// Keeps bytes for it from now on.
    fn keep(&mut self, now: Instant, at: u32, room: usize) {
        self.kept_until = now.checked_add(self.kept_for);
        self.kept_for = (self.kept_for * 2).min(KEPT_MOST);
        self.kept_at = (at, room);
    }

    /// Lets others overtake it again.
    fn stop_keeping(&mut self) {
        (self.by, self.since, self.kept_until) = (0, None, None);
    }
}

impl Ledger {
    /// Returns whether a request of a priority above `class` is overdue at the node.
    pub(super) fn is_kept_for_higher(&self, at: u32, class: usize) -> bool {
        (class + 1..PRIORITIES).any(|higher| {
            let first = self.blocked_first(at, higher);
            first.is_some_and(|first| {
                self.node_queue(at, higher).is_some_and(|queue| queue.overdue == first.order)
            })
        })
    }

    /// Collects the requests that another request for `bytes` bytes would overtake, at each node that it takes bytes
    /// from, in [`passed`](super::Waiters::passed).
    pub(super) fn pass(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Priority,
        number: u64,
        end: u32,
        now: &mut Option<Instant>,
    ) -> Result<(), Binding> {
        self.waiters.passed.clear();
        let (mut at, mut more) = (key.at, bytes);
        while at != end && at != NONE && more > 0 {
            if number == u64::MAX && self.exceeds_share(at, more) {
                let mut binding = self.binding(at, more);
                binding.refused.reason = RefusedReason::OverShare;
                return Err(binding);
            }
            for class in priority as usize..PRIORITIES {
                let Some(first) = self.blocked_first(at, class).copied() else { continue };
                if class == priority as usize && first.order >= number {
                    continue;
                }
                let overtaken = &self.waiters.slot(first.first).overtaken;
                let clock = &self.waiters.clock;
                if overtaken.is_overdue(|| *now.get_or_insert_with(|| clock.now())) {
                    let now = *now.get_or_insert_with(|| clock.now());
                    self.keep(at, class, &first, now);
                    let mut binding = self.binding(at, more);
                    binding.refused.reason = RefusedReason::Waiting;
                    return Err(binding);
                }
                if !self.waiters.passed.contains(&first.first) {
                    self.waiters.passed.push(first.first);
                }
            }
            let account = &self.accounts[at as usize];
            more = more.saturating_sub(account.slack());
            at = account.parent;
        }
        Ok(())
    }

    /// Keeps the node's bytes for the first request of a queue from now on.
    fn keep(&mut self, at: u32, class: usize, first: &Entry, now: Instant) {
        let room = self.accounts[at as usize].room();
        let waiter = self.waiters.slot_mut(first.first);
        if waiter.overtaken.kept_until.is_none() {
            waiter.overtaken.keep(now, at, room);
            self.waiters.note_due(first.first);
        }
        let Some(waits) = &mut self.record_at_mut(at).waits else { return };
        if mem::replace(&mut waits.queues[class].overdue, first.order) != first.order {
            self.waiters.is_noted = true;
            self.follow_up(at);
        }
    }

    /// Ends the time for which bytes are kept for a request, and grants the requests that fit. If bytes were released
    /// meanwhile, they are kept for longer: the request comes nearer.
    pub(super) fn end_keeping(&mut self, slot: u32, now: Instant) -> Woken {
        let (at, room) = self.waiters.slot(slot).overtaken.kept_at;
        let now_free = self.accounts[at as usize].room();
        if now_free > room {
            self.waiters.slot_mut(slot).overtaken.keep(now, at, now_free);
            self.waiters.note_due(slot);
            return Woken::default();
        }
        self.stop_keeping(slot);
        self.serve()
    }

    /// Lets others overtake a request again.
    fn stop_keeping(&mut self, slot: u32) {
        let waiter = self.waiters.slot_mut(slot);
        waiter.overtaken.stop_keeping();
        let (key, number) = (waiter.key, waiter.number);
        self.waiters.note_due(slot);
        let mut at = key.at;
        while at != NONE {
            if let Some(waits) = &mut self.record_at_mut(at).waits {
                for queue in &mut waits.queues {
                    queue.overdue = if queue.overdue == number { 0 } else { queue.overdue };
                }
            }
            at = self.accounts[at as usize].parent;
        }
        self.follow_up(key.at);
    }

    /// Lets others overtake all requests that do not fit a node or one above it, and grants the requests that fit then.
    /// Returns whether bytes were kept for any.
    pub(crate) fn stop_keeping_at(&mut self, key: Key) -> Option<Woken> {
        let path: Vec<Key> = self.path(key).collect();
        let firsts = path.iter().flat_map(|key| (0..PRIORITIES).map(|class| (key.at, class)));
        let firsts = firsts.filter_map(|(at, class)| Some(self.blocked_first(at, class)?.first));
        let firsts: Vec<u32> = firsts.collect();
        let is_kept = |slot: &u32| self.waiters.slot(*slot).overtaken.kept_until.is_some();
        if !firsts.iter().any(is_kept) {
            return None;
        }
        for slot in firsts {
            self.stop_keeping(slot);
        }
        Some(self.serve())
    }
}
