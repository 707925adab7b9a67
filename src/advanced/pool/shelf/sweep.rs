//! Removes idle objects from all stacks of a shelf.

use super::{Facts, STACKS, Shelf, Taken, count};
use crate::{
    advanced::lockfree::tagged::{Link, NONE},
    utils::sync::{Ordering, lock},
};
use core::mem;

/// The decision of [`Shelf::sweep`] about an idle object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::advanced::pool) enum Sweep {
    Keep,
    Remove,
    /// Keep this one and all that were not looked at.
    Stop,
}

impl<T> Shelf<T> {
    /// Removes idle objects. Of each stack, `judge` is shown the least recently used object first. It and `missed` run
    /// under a lock, so they must not run foreign code. An object that it keeps stays where it is. `missed` is called if
    /// the last object that was to be removed has been taken by another thread meanwhile.
    pub(in crate::advanced::pool) fn sweep(
        &self,
        thread: usize,
        mut judge: impl FnMut(&Facts) -> Sweep,
        mut missed: impl FnMut(),
    ) -> Removed<'_, T> {
        let own = self.stack(thread);
        let mut removed = Removed::none(self);
        let mut is_stopped = false;
        let mut is_doomed = |number: u32| {
            if is_stopped {
                return false;
            }
            // SAFETY: slots live as long as the shelf.
            let verdict = judge(unsafe { &self.slot(number).as_ref().facts });
            is_stopped = verdict == Sweep::Stop;
            verdict == Sweep::Remove
        };
        let mut take = |number: u32| {
            // SAFETY: slots live as long as the shelf.
            let bytes = unsafe { &self.slot(number).as_ref().facts }.size.load(Ordering::Relaxed);
            count(thread, &own.swept, 1);
            count(thread, &own.bytes, bytes.wrapping_neg());
            removed.add(number);
        };
        let link = |number| self.link(number);
        let _sweeping = lock(&self.sweeping);
        if let Some(line) = &self.line {
            let mut line = lock(line);
            let mut kept = Line::new();
            while let Some(number) = line.pop(link) {
                if is_doomed(number) {
                    take(number);
                } else {
                    kept.push(number, link);
                }
            }
            *line = kept;
            drop(line);
            return removed;
        }
        for stack in (0..=STACKS).filter_map(|at| self.existing(at)) {
            for place in &stack.places {
                // Acquired: the slot and its block are looked at before the number is taken.
                let number = place.load(Ordering::Acquire);
                if number == NONE || !is_doomed(number) {
                    continue;
                }
                // It is taken only if it is in its place still. Its figures may be those of a later stay.
                let taken =
                    place.compare_exchange(number, NONE, Ordering::Acquire, Ordering::Relaxed);
                match taken {
                    Ok(_) => take(number),
                    Err(_) => missed(),
                }
            }
            let mut oldest = self.reversed(stack.head.take());
            let mut kept = (NONE, NONE);
            while oldest != NONE {
                let number = oldest;
                oldest = link(number).load(Ordering::Relaxed);
                if is_doomed(number) {
                    take(number);
                } else {
                    link(number).store(kept.1, Ordering::Relaxed);
                    kept = (if kept.0 == NONE { number } else { kept.0 }, number);
                }
            }
            let (last, first) = kept;
            if first != NONE {
                stack.head.push(first, link(last));
            }
        }
        removed
    }

    /// Reverses a chain of slots that only the caller has, from the slot `next` on. Returns the slot that was the last.
    fn reversed(&self, mut next: u32) -> u32 {
        let mut first = NONE;
        while next != NONE {
            let number = next;
            next = self.link(number).load(Ordering::Relaxed);
            self.link(number).store(first, Ordering::Relaxed);
            first = number;
        }
        first
    }
}

/// Slots that are linked from the first to the last. Nobody else changes their links.
pub(super) struct Line {
    first: u32,
    last: u32,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { first: NONE, last: NONE }
    }

    pub(super) fn push<'l>(&mut self, number: u32, link: impl Fn(u32) -> &'l Link) {
        link(number).store(NONE, Ordering::Relaxed);
        let before = mem::replace(&mut self.last, number);
        if before == NONE {
            self.first = number;
        } else {
            link(before).store(number, Ordering::Relaxed);
        }
    }

    pub(super) fn pop<'l>(&mut self, link: impl Fn(u32) -> &'l Link) -> Option<u32> {
        let number = self.first;
        if number == NONE {
            return None;
        }
        self.first = link(number).load(Ordering::Relaxed);
        if self.first == NONE {
            self.last = NONE;
        }
        Some(number)
    }
}

/// The objects that a sweep has removed. They are lost if it is not used up.
pub(in crate::advanced::pool) struct Removed<'s, T> {
    shelf: &'s Shelf<T>,
    line: Line,
    len: usize,
}

impl<'s, T> Removed<'s, T> {
    /// No objects.
    pub(in crate::advanced::pool) const fn none(shelf: &'s Shelf<T>) -> Self {
        Self { shelf, line: Line::new(), len: 0 }
    }

    fn add(&mut self, number: u32) {
        let shelf = self.shelf;
        self.line.push(number, |number| shelf.link(number));
        self.len += 1;
    }
}

impl<T> Iterator for Removed<'_, T> {
    type Item = Taken<T>;

    fn next(&mut self) -> Option<Taken<T>> {
        let shelf = self.shelf;
        let number = self.line.pop(|number| shelf.link(number))?;
        self.len -= 1;
        Some(Taken(shelf.slot(number)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<T> ExactSizeIterator for Removed<'_, T> {}
