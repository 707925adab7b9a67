//! The store of requests that wait or whose answer was not fetched, and the list of their deadlines.

use super::{DUE_MORE, Waiter, Waiters};
use crate::{
    advanced::budget::ledger::Key, core::error::ReclaimFailure,
    integration::traits::context::WaitId,
};
use core::{cmp::Reverse, mem};
use std::{collections::BinaryHeap, time::Instant, vec::Vec};

impl Waiters {
    /// Returns whether no request waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Returns the number of waiting requests.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn get(&self, id: WaitId) -> Option<&Waiter> {
        let waiter = self.slots.get(id.slot as usize)?.as_ref()?;
        (waiter.number == id.number).then_some(waiter)
    }

    pub(super) fn slot(&self, slot: u32) -> &Waiter {
        self.slots[slot as usize].as_ref().expect("a queue names requests that wait")
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Waiter {
        self.slots[slot as usize].as_mut().expect("a queue names requests that wait")
    }

    pub(super) fn add(&mut self, waiter: Waiter) -> u32 {
        let (due, number) = (waiter.due(), waiter.number);
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(waiter);
                slot
            }
            None => {
                self.slots.push(Some(waiter));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2³² requests wait at once")
            }
        };
        self.due.extend(due.map(|due| Reverse((due, number, slot))));
        slot
    }

    /// Puts a waiting request on the timekeeper's list again, after one of its times has changed.
    pub(super) fn note_due(&mut self, slot: u32) {
        let waiter = self.slot(slot);
        let (due, number) = (waiter.due(), waiter.number);
        self.due.extend(due.map(|due| Reverse((due, number, slot))));
        self.sweep_due();
        self.wakes_clock |= due.is_some_and(|due| self.clock_until.is_none_or(|until| due < until));
    }

    pub(super) fn take(&mut self, slot: u32) -> Option<Waiter> {
        let taken = self.slots[slot as usize].take();
        self.vacant.push(slot);
        if self.vacant.len() == self.slots.len() {
            // The memory of a crowd goes with it.
            (self.slots, self.vacant) = (Vec::new(), Vec::new());
        }
        taken
    }

    /// Counts a change of the figures of a node at or below which requests wait.
    #[inline]
    pub(crate) fn note_change(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// Returns whether the timekeeper must wake earlier than it planned, once.
    #[inline]
    pub(crate) fn takes_clock(&mut self) -> bool {
        mem::take(&mut self.wakes_clock)
    }

    /// Returns the node of a request.
    pub(crate) fn key_of(&self, id: WaitId) -> Option<Key> {
        self.get(id).map(|waiter| waiter.key)
    }

    /// Notes the reason why a manager released less for a request than it could.
    pub(crate) fn note_failure(&mut self, slot: u32, number: u64, failure: ReclaimFailure) {
        if let Some(waiter) = self.slots.get_mut(slot as usize).and_then(Option::as_mut)
            && waiter.number == number
        {
            waiter.failure = Some(failure);
        }
    }

    /// Returns the time at which the timekeeper must wake next.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        self.first_due().map(|(due, _)| due)
    }

    /// Returns the request that the timekeeper must handle first, with the time.
    pub(super) fn first_due(&mut self) -> Option<(Instant, u32)> {
        while let Some(Reverse((due, number, slot))) = self.due.peek().copied() {
            if self.is_due(due, number, slot) {
                return Some((due, slot));
            }
            self.due.pop();
        }
        None
    }

    pub(super) fn is_due(&self, due: Instant, number: u64, slot: u32) -> bool {
        let waiter = self.get(WaitId { slot, number });
        waiter.is_some_and(|waiter| waiter.waits() && waiter.due() == Some(due))
    }

    /// Removes the entries of requests that no longer wait, and double ones, once they are the majority.
    pub(super) fn sweep_due(&mut self) {
        if self.due.len() > 2 * self.waiting + DUE_MORE {
            let mut due = mem::take(&mut self.due).into_vec();
            due.retain(|Reverse((due, number, slot))| self.is_due(*due, *number, *slot));
            // A request may have been put on the list again with the time that it had before.
            due.sort_unstable();
            due.dedup();
            due.shrink_to(2 * self.waiting + DUE_MORE);
            self.due = BinaryHeap::from(due);
        }
    }
}
