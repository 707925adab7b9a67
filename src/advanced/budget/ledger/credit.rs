//! Credit: the open lines of credit of nodes, and the unused bytes in buffered reservations.

#[cfg(test)]
mod validate;

use super::{Key, Ledger, account::NONE};
use std::vec::Vec;

/// The most bytes of credit that a line is opened with.
pub(super) const CREDIT_MOST: usize = 64 << 10;

/// The least credit of a line. A node that could have less has no line.
const CREDIT_LEAST: usize = 256;

/// The least credit of a buffered reservation.
const STRANDED_LEAST: usize = 1 << 10;

/// A larger request is charged and released by itself, beside the line.
pub(super) const SMALL_MOST: usize = CREDIT_MOST / 4;

/// One line may have this part of each limit above it.
const LIMIT_SHARE: usize = 64;

/// One line may have this part of the room above it.
const ROOM_SHARE: usize = 16;

/// The number of charges that take the lock before a node gets a line. So the figures of a node that is charged rarely
/// contain no unused credit.
const WARM: u8 = 4;

/// The most lines that are open at once in one tree. A report and a refusal visit each open line, so this number bounds
/// their time. If so many are open, an unused line is closed before another node gets one.
const LINES_MOST: usize = 64;

/// The nodes with credit.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// # Invariants
    ///
    /// The key of each account whose line is open, once; at most [`LINES_MOST`].
    pub(super) open: Vec<Key>,
    /// The credit of each open line when it was last considered for closing.
    seen: Vec<usize>,
    /// The next line to consider.
    hand: usize,
    /// The nodes with unused credit in buffered reservations of their own; at most [`LINES_MOST`].
    stranded: Vec<Key>,
}

impl Ledger {
    /// Opens the node's line, if it is charged often and there is room for credit.
    #[inline]
    pub(super) fn lend(&mut self, key: Key) {
        let is_cold = !self.counts_objects;
        let account = &mut self[key];
        if is_cold && account.warmth < WARM {
            account.warmth += 1;
        } else if self.rounds == 0 && self.waiters.is_empty() {
            self.lend_to_warm(key);
        }
    }

    /// Charges `bytes` and new credit at once, for a line without enough credit. Returns whether it did. A large
    /// request does not change the line. If there is no room for credit, the line is closed.
    pub(super) fn refill(&mut self, key: Key, bytes: usize) -> bool {
        if bytes > SMALL_MOST || self.rounds > 0 {
            return false;
        }
        let left = self.record(key).shared.line.withdraw();
        let credit = self.credit_for(key);
        if credit >= self.credit_least()
            && let Some(more) = (bytes + credit).checked_sub(left)
            && self.charge(key, more).is_ok()
        {
            self.reopen(key, credit);
            return true;
        }
        self.close_line(key, left);
        false
    }

    /// Releases `bytes` and the surplus credit, for a line that is too full. Returns whether it did,
    /// as [`refill`](Self::refill).
    pub(super) fn drain(&mut self, key: Key, bytes: usize) -> bool {
        if bytes > SMALL_MOST || self.rounds > 0 {
            return false;
        }
        let left = self.record(key).shared.line.withdraw();
        let credit = self.credit_for(key);
        if credit < self.credit_least() {
            self.close_line(key, left);
            return false;
        }
        let credit = credit.min(left + bytes);
        self.release(key, left + bytes - credit);
        self.reopen(key, credit);
        true
    }

    /// Opens a line again that was withdrawn and is still on the list. Its credit is at most the charge of the node.
    fn reopen(&mut self, key: Key, credit: usize) {
        let charged = self[key].charged;
        let most = if self.counts_objects { CREDIT_MOST } else { 2 * credit };
        self.record(key).shared.line.open(credit, charged.min(most));
    }

    fn lend_to_warm(&mut self, key: Key) {
        let credit = self.credit_for(key);
        if credit < self.credit_least()
            || !self.has_place_for_line()
            || self.charge(key, credit).is_err()
        {
            // Whether there is room is looked at again after as many charges.
            self[key].warmth = 0;
            return;
        }
        self.reopen(key, credit);
        let place = self.lines.open.len();
        self.record_mut(key).open_at = u8::try_from(place).expect("there are fewer lines");
        self.lines.open.push(key);
        self.lines.seen.push(usize::MAX);
        self[key].is_open = true;
        self.count_line(key, 1);
    }

    /// A line is not opened with less.
    const fn credit_least(&self) -> usize {
        if self.counts_objects { 1 } else { CREDIT_LEAST }
    }

    /// Returns the credit that the limits and the free bytes of the path allow.
    fn credit_for(&self, key: Key) -> usize {
        let (limit_share, room_share) =
            if self.counts_objects { (1, 1) } else { (LIMIT_SHARE, ROOM_SHARE) };
        let (mut at, mut credit) = (key.at, CREDIT_MOST);
        while at != NONE {
            let account = &self.accounts[at as usize];
            credit = credit.min(account.limit / limit_share).min(account.room() / room_share);
            at = account.parent;
        }
        credit
    }

    /// Returns whether another line may be opened. If too many are open, closes one that was not used since the last
    /// check.
    fn has_place_for_line(&mut self) -> bool {
        if self.lines.open.len() < LINES_MOST {
            return true;
        }
        let at = self.lines.hand % LINES_MOST;
        self.lines.hand = at + 1;
        let key = self.lines.open[at];
        let free = self.record(key).shared.line.free();
        let is_unused = self.lines.seen[at] == free;
        self.lines.seen[at] = free;
        if is_unused {
            self.settle(key);
        }
        is_unused
    }

    fn count_line(&mut self, key: Key, change: i8) {
        let mut at = key.at;
        while let Some(account) = self.accounts.get_mut(at as usize) {
            account.lines_below = account.lines_below.wrapping_add_signed(change);
            at = account.parent;
        }
    }

    /// Withdraws the credit of a node's line. Returns whether the line was open.
    #[inline]
    pub(super) fn settle(&mut self, key: Key) -> bool {
        let was_open = self[key].is_open;
        if was_open {
            self.settle_open(key);
        }
        was_open
    }

    fn settle_open(&mut self, key: Key) {
        let credit = self.record(key).shared.line.withdraw();
        self.close_line(key, credit);
    }

    /// Takes a line that was withdrawn off the list, and releases its credit.
    fn close_line(&mut self, key: Key, credit: usize) {
        let at = self.record(key).open_at;
        self.lines.open.swap_remove(at.into());
        self.lines.seen.swap_remove(at.into());
        if let Some(moved) = self.lines.open.get(usize::from(at)).copied() {
            self.record_mut(moved).open_at = at;
        }
        self[key].is_open = false;
        self.count_line(key, -1);
        self.release(key, credit);
    }

    /// Withdraws the credit of every line at and below a node. Returns whether there was a line.
    pub(crate) fn settle_below(&mut self, key: Key) -> bool {
        if self[key].lines_below == 0 {
            return false;
        }
        // Backwards: a line that is closed is replaced by the last one.
        for at in (0..self.lines.open.len()).rev() {
            let line = self.lines.open[at];
            if self.is_below(line, key) {
                self[line].warmth = 0;
                self.settle_open(line);
            }
        }
        true
    }

    /// Returns the unused credit of all lines at and below a node: the bytes by which the node's figures would fall if
    /// the lines were closed.
    pub(super) fn unused(&self, key: Key) -> usize {
        if self[key].lines_below == 0 {
            return 0;
        }
        let (mut sum, mut is_guaranteed) = (0, false);
        for line in &self.lines.open {
            let mut at = line.at;
            let depth = self[key].depth;
            while self.accounts[at as usize].depth > depth {
                let account = &self.accounts[at as usize];
                is_guaranteed |= account.guarantee > 0;
                at = account.parent;
            }
            if at == key.at {
                sum += self.record(*line).shared.line.free();
            }
        }
        if is_guaranteed { self.unused_of_guaranteed(key) } else { sum }
    }

    /// Like [`unused`](Self::unused), if nodes between have guarantees: unused bytes within a guarantee are not drawn
    /// from the parent.
    #[cold]
    fn unused_of_guaranteed(&self, key: Key) -> usize {
        // The unused bytes of each node that has some. A node's bytes are drawn from its parent as far as they
        // are beyond its guarantee, so the deepest node comes first.
        let mut unused = [(0_u32, 0_usize); LINES_MOST];
        let mut count = 0;
        for line in &self.lines.open {
            if self.is_below(*line, key) {
                unused[count] = (line.at, self.record(*line).shared.line.free());
                count += 1;
            }
        }
        let unused = &mut unused[..count];
        let mut depth = unused.iter().map(|(at, _)| self.accounts[*at as usize].depth).max();
        while let Some(here) = depth.filter(|here| *here > self[key].depth) {
            for n in 0..unused.len() {
                let (at, bytes) = unused[n];
                let account = &self.accounts[at as usize];
                if account.depth < here || bytes == 0 {
                    continue;
                }
                // All unused bytes of this node: several of its children may have left some.
                let own = unused.iter().filter(|(other, _)| *other == at).map(|(_, own)| own);
                let own: usize = own.sum();
                for (other, bytes) in unused.iter_mut() {
                    if *other == at {
                        (*other, *bytes) = (account.parent, 0);
                    }
                }
                unused[n].1 = account.drawn_above() - account.draw(account.charged - own);
            }
            depth = here.checked_sub(1);
        }
        unused.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Changes the unused credit that a buffered reservation of the node may have, from `before` to about `wanted`. The
    /// limits of the path bound the credit of all buffered reservations together; if they leave too little, the new
    /// value is 0. Returns the new value.
    pub(crate) fn allow_stranded(&mut self, key: Key, before: usize, wanted: usize) -> usize {
        self.add_stranded(key, before.wrapping_neg());
        if wanted == 0 || self.rounds > 0 || !self.waiters.is_empty() {
            return 0;
        }
        let is_listed = self.lines.stranded.contains(&key);
        if !is_listed && self.lines.stranded.len() == LINES_MOST {
            self.forget_settled();
            if self.lines.stranded.len() == LINES_MOST {
                return 0;
            }
        }
        let mut most = wanted.min(CREDIT_MOST);
        let mut at = key.at;
        while at != NONE {
            let (account, record) = (&self.accounts[at as usize], self.record_at(at));
            let share = (account.limit / LIMIT_SHARE).saturating_sub(record.stranded);
            most = most.min(share).min(account.room() / ROOM_SHARE);
            at = account.parent;
        }
        if most < STRANDED_LEAST {
            return 0;
        }
        if !is_listed {
            self.lines.stranded.push(key);
        }
        self.add_stranded(key, most);
        most
    }

    fn add_stranded(&mut self, key: Key, bytes: usize) {
        let mut at = key.at;
        while bytes > 0 && at != NONE {
            let record = self.record_at_mut(at);
            record.stranded = record.stranded.wrapping_add(bytes);
            at = self.accounts[at as usize].parent;
        }
    }

    /// Removes nodes without stranded credit from the list of nodes with such credit.
    fn forget_settled(&mut self) {
        let mut stranded = core::mem::take(&mut self.lines.stranded);
        stranded.retain(|key| self.has(*key) && self.record(*key).stranded > 0);
        self.lines.stranded = stranded;
    }

    /// Recalls the unused credit of buffered reservations if it exceeds its share of the node's limit.
    pub(super) fn recall_beyond_share(&mut self, key: Key) {
        if self.record(key).stranded > self[key].limit / LIMIT_SHARE {
            self.recall_below(key);
        }
    }

    /// Tells buffered reservations at and below the node to release their unused credit when they are used
    /// next.
    pub(super) fn recall_below(&mut self, key: Key) {
        if self.record(key).stranded == 0 {
            return;
        }
        for listed in &self.lines.stranded {
            if self.has(*listed) && self.is_below(*listed, key) {
                self.record(*listed).shared.recall();
            }
        }
    }
}
