//! Who has bytes beyond what it holds: the lines of nodes, and reservations that are buffered.

use super::{account::Key, ledger::Ledger};
use std::vec::Vec;

/// The most bytes of credit that a line is opened with.
const CREDIT_MOST: usize = 64 << 10;

/// With less than this a line is not worth the trouble: the node is exact.
const CREDIT_LEAST: usize = 256;

/// With less than this a reservation has no credit of its own.
const IDLE_LEAST: usize = 1 << 10;

/// What part of the limits above it one line may have.
const LIMIT_SHARE: usize = 64;

/// What part of the room above it one line may have.
const ROOM_SHARE: usize = 16;

/// How many charges come to the lock before a node is given a line: the figures of one that is
/// charged now and then, by the chunk, have no credit in them.
pub(super) const WARM: u8 = 4;

impl Ledger {
    /// Opens the line with as much credit as there is reason to, if any.
    #[inline]
    pub(super) fn lend(&mut self, key: Key) {
        let account = &mut self[key];
        if account.credit == 0 {
            return;
        }
        if account.warmth < WARM {
            account.warmth += 1;
        } else if self.rounds == 0 && self.waiters.is_idle() {
            self.lend_to_the_warm(key);
        }
    }

    fn lend_to_the_warm(&mut self, key: Key) {
        let room = self.path(key).map(|(_, account)| account.room() / ROOM_SHARE).min();
        // Credit is far less than what a `u32` holds, or a `usize` anywhere.
        let credit = room.unwrap_or(0).min(self[key].credit as usize);
        if credit < CREDIT_LEAST || self.charge(key, credit).is_err() {
            return;
        }
        let (open_at, charged) = (self.open.len(), self[key].charged);
        self.open.push(key);
        let record = self.record_mut(key);
        record.line.open(credit, charged.min(2 * credit));
        record.open_at = open_at;
        self[key].is_open = true;
        self.for_path(key, |account| account.open_below += 1);
    }

    /// Takes the credit of a node's line back and holds the line. Returns whether it was open.
    #[inline]
    pub(super) fn settle(&mut self, key: Key) -> bool {
        let was_open = self[key].is_open;
        if was_open {
            self.settle_open(key);
        }
        was_open
    }

    fn settle_open(&mut self, key: Key) {
        let record = self.record(key);
        let (credit, at) = (record.line.withdraw(), record.open_at);
        self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at).copied() {
            self.record_mut(moved).open_at = at;
        }
        self[key].is_open = false;
        self.for_path(key, |account| account.open_below -= 1);
        self.release(key, credit);
    }

    /// Takes the credit of every line at and below a node back. Returns whether there was any.
    pub(super) fn settle_below(&mut self, key: Key) -> bool {
        if self[key].open_below == 0 {
            return false;
        }
        let open: Vec<Key> =
            self.open.iter().copied().filter(|open| self.is_below(*open, key)).collect();
        for line in open {
            self[line].warmth = 0;
            self.settle(line);
        }
        true
    }

    /// Changes what may lie idle in a reservation from the node, from `before` to about `wanted`: as
    /// much as the limits on the path allow, beside what others have, or nothing. Returns what it is.
    pub(super) fn allow(&mut self, key: Key, before: usize, wanted: usize) -> usize {
        self.for_records(key, |record| record.stranded -= before);
        if wanted == 0 || self.rounds > 0 || !self.waiters.is_idle() {
            return 0;
        }
        let most = self.path(key).map(|(key, account)| {
            let share = (account.limit / LIMIT_SHARE).saturating_sub(self.record(key).stranded);
            share.min(account.room() / ROOM_SHARE)
        });
        let most = most.min().unwrap_or(0).min(wanted).min(CREDIT_MOST);
        let most = if most < IDLE_LEAST { 0 } else { most };
        self.for_records(key, |record| record.stranded += most);
        most
    }

    /// Has reservations at and below the node give back what lies idle in them when they are used next.
    pub(super) fn recall_below(&mut self, key: Key) {
        let record = self.record(key);
        if record.stranded > 0 {
            record.line.recall();
            for child in record.children.clone() {
                self.recall_below(child);
            }
        }
    }

    /// Derives the credit of a node and those below it from their limits.
    pub(super) fn bound_credit(&mut self, key: Key) {
        let account = &self[key];
        let above = self.parent(key).map_or(u32::MAX, |parent| self[parent].credit);
        self[key].credit = credit_within(account.limit).min(above);
        for child in self.record(key).children.clone() {
            self.bound_credit(child);
        }
    }
}

/// The most credit for one line under such a limit.
pub(super) fn credit_within(limit: usize) -> u32 {
    let credit = (limit / LIMIT_SHARE).min(CREDIT_MOST);
    if credit < CREDIT_LEAST { 0 } else { u32::try_from(credit).unwrap_or(0) }
}
