//! Rounds through the idle objects of a pool. A round visits each object once.
#![forbid(unsafe_code)]

use super::{
    held::Held,
    inner::{Away, Inner},
    returning::Doomed,
    shelf::{Facts, Removed, Sweep},
};
use crate::{
    integration::traits::Lifecycle,
    utils::{sync::Ordering, thread_number::thread_number},
};
use core::cell::Cell;

/// The idle objects are taken in at most so many portions: each takes a look at all of them.
const PORTIONS: usize = 64;

/// A round through the objects that are idle when it begins. Those that are taken are away until they are looked at.
pub(super) struct Round<'p, L: Lifecycle> {
    inner: &'p Inner<L>,
    number: u32,
    /// The objects to be looked at, at most, and how many are taken at once.
    left: usize,
    portion: usize,
    taken: Removed<'p, Held<L::Object>>,
}

/// An object that is looked at. It is destroyed when this is dropped, unless it is [kept](Self::keep).
pub(super) struct Seen<'p, L: Lifecycle> {
    doomed: Doomed<'p, L>,
    away: Away<'p, L>,
}

impl<L: Lifecycle> Inner<L> {
    pub(super) fn round(&self) -> Round<'_, L> {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let left = self.shelf.idle();
        let portion = left.div_ceil(PORTIONS);
        Round { inner: self, number, left, portion, taken: Removed::none(&self.shelf) }
    }
}

impl<'p, L: Lifecycle> Round<'p, L> {
    pub(super) fn next(&mut self) -> Option<Seen<'p, L>> {
        let slot = match self.taken.next() {
            Some(slot) => slot,
            None => {
                self.taken = self.take();
                self.taken.next()?
            }
        };
        let inner = self.inner;
        Some(Seen { doomed: Doomed::new(inner, slot), away: inner.gone_away() })
    }

    /// Takes objects that this round has not seen.
    fn take(&mut self) -> Removed<'p, Held<L::Object>> {
        let (inner, most) = (self.inner, self.portion.min(self.left));
        let count = Cell::new(0);
        let judge = |facts: &Facts| {
            if count.get() == most {
                Sweep::Stop
            } else if facts.checked.load(Ordering::Relaxed) == self.number {
                Sweep::Keep
            } else {
                // Marked although another thread may take it now: then it is in use.
                facts.checked.store(self.number, Ordering::Relaxed);
                count.set(count.get() + 1);
                Sweep::Remove
            }
        };
        let missed = || count.set(count.get() - 1);
        let taken = inner.shelf.sweep(thread_number(), judge, missed);
        inner.population.go_away(taken.len());
        inner.swept(taken.len());
        self.left -= taken.len();
        taken
    }
}

impl<L: Lifecycle> Drop for Round<'_, L> {
    fn drop(&mut self) {
        // A round that ends early: the rest has not been looked at.
        for slot in &mut self.taken {
            let _away = self.inner.gone_away();
            self.inner.put_back(slot);
        }
    }
}

impl<L: Lifecycle> Seen<'_, L> {
    pub(super) fn object(&mut self) -> &mut L::Object {
        &mut self.doomed.held_mut().object
    }

    /// Makes the object idle again.
    pub(super) fn keep(self) {
        let Self { doomed, away } = self;
        away.0.put_back(doomed.spare());
    }
}
