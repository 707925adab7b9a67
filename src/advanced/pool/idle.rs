//! Gives out and destroys the idle objects of a pool.

use super::{
    flag,
    inner::{Inner, Out},
    population::Member,
    returning::Doomed,
    shelf::{Facts, Sweep},
};
use crate::{
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable, Usage},
    integration::traits::Lifecycle,
    utils::{sync::Ordering, thread_number::thread_number, unwind::for_each},
};
use core::cell::Cell;
use std::time::Instant;

impl<L: Lifecycle> Inner<L> {
    /// Takes an object that the calling thread has returned. The caller has a permit. `None` if there is more to do
    /// than that: then [`pop_fit`](Self::pop_fit) may find one.
    #[inline(always)]
    pub(super) fn pop_own(&self, flags: u32) -> Option<Out<L>> {
        if flags & !flag::BOUNDED != 0 {
            return None;
        }
        let mut doomed = Doomed::new(self, self.shelf.pop_own(thread_number())?);
        if doomed.is_valid() { Some(doomed.spare()) } else { self.refuse(doomed) }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, invalid: Doomed<'_, L>) -> Option<Out<L>> {
        self.counts.invalid.fetch_add(1, Ordering::Relaxed);
        self.counts.not_given.fetch_add(1, Ordering::Relaxed);
        drop(invalid);
        None
    }

    /// Takes an idle object that is fit. The caller has a permit.
    pub(super) fn pop_fit(&self) -> Option<Out<L>> {
        loop {
            let slot = self.shelf.pop(thread_number())?;
            if let Some(slot) = self.fit(slot) {
                return Some(slot);
            }
        }
    }

    /// Returns an object that was idle if it is fit, and destroys it if not.
    pub(super) fn fit(&self, slot: Out<L>) -> Option<Out<L>> {
        let flags = self.flags();
        let mut doomed = Doomed::new(self, slot);
        self.uncount_idle(flags, 1);
        if flags & flag::TIMED != 0 && self.is_expired(doomed.facts(), self.since(self.now())) {
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
            self.counts.not_given.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if doomed.is_valid() { Some(doomed.spare()) } else { self.refuse(doomed) }
    }

    /// Destroys idle objects while there are more objects than allowed.
    pub(super) fn shrink_now(&self) {
        while self.population.claim_surplus() {
            let _away = self.gone_away();
            let Some(oldest) = self.take_oldest() else { return };
            drop(oldest);
        }
        if self.population.is_over() {
            // Those too many are out. The next that is returned is destroyed.
            return;
        }
        self.flags.fetch_and(!flag::OVERFULL, Ordering::SeqCst);
        // Another thread may have lowered the maximum meanwhile.
        if self.population.is_over() {
            self.flags.fetch_or(flag::OVERFULL, Ordering::SeqCst);
        }
    }

    /// Takes the idle object that was used least recently.
    fn take_oldest(&self) -> Option<Doomed<'_, L>> {
        let is_found = Cell::new(false);
        let judge = |_: &Facts| if is_found.replace(true) { Sweep::Stop } else { Sweep::Remove };
        let mut removed = self.shelf.sweep(thread_number(), judge, || is_found.set(false));
        self.swept(removed.len());
        removed.next().map(|slot| Doomed::new(self, slot))
    }

    /// What follows a sweep that has removed so many objects: they are away by now.
    pub(super) fn swept(&self, removed: usize) {
        self.uncount_idle(self.flags(), removed);
        // Those that were kept may have been out of sight when a request that waits looked for one.
        if self.flags.load(Ordering::SeqCst) & flag::AWAITED != 0 && self.shelf.idle() > 0 {
            self.returns.wake_all(&self.flags);
        }
    }

    /// Destroys at most `most` idle objects, of each thread the least recently used first. Returns how many.
    ///
    /// `judge` decides, by the facts of an object and its bytes. If it decides to remove an object that cannot be
    /// removed after all, `missed` is called with the bytes.
    pub(super) fn drop_oldest(
        &self,
        most: usize,
        mut judge: impl FnMut(&Facts, usize) -> Sweep,
        mut missed: impl FnMut(usize),
    ) -> usize {
        let (count, last) = (Cell::new(0), Cell::new(0));
        let judge = |facts: &Facts| {
            if count.get() == most {
                return Sweep::Stop;
            }
            let bytes = facts.size.load(Ordering::Relaxed);
            let verdict = judge(facts, bytes);
            if verdict == Sweep::Remove {
                count.set(count.get() + 1);
                last.set(bytes);
            }
            verdict
        };
        let removed = self.shelf.sweep(thread_number(), judge, || {
            count.set(count.get() - 1);
            missed(last.get());
        });
        let count = removed.len();
        self.population.go_away(count);
        self.swept(count);
        // The end of an object may panic. The others are destroyed all the same.
        for_each(removed, |slot| {
            let _away = self.gone_away();
            drop(Doomed::new(self, slot));
        });
        count
    }

    /// Destroys idle objects that nobody waits for, until at least `wanted` bytes are released, and at most `most`.
    /// Returns the bytes.
    fn drop_bytes(&self, wanted: usize, most: usize) -> usize {
        let freed = Cell::new(0);
        // Counted once there is an idle object: whoever waited when it was returned is seen.
        let mut spare = None;
        let judge = |_: &Facts, bytes| {
            let spare = spare.get_or_insert_with(|| self.spare());
            if *spare == 0 || freed.get() >= wanted || bytes > most - freed.get() {
                return Sweep::Stop;
            }
            *spare -= 1;
            freed.set(freed.get() + bytes);
            Sweep::Remove
        };
        self.drop_oldest(usize::MAX, judge, |bytes| freed.set(freed.get() - bytes));
        freed.get()
    }

    /// The idle objects, without the objects that requests of this pool are about to take.
    fn spare(&self) -> usize {
        self.shelf.idle().saturating_sub(self.returns.len())
    }

    /// Destroys all idle objects.
    pub(super) fn drop_all(&self) {
        self.drop_oldest(usize::MAX, |_, _| Sweep::Remove, |_| ());
    }

    /// Destroys the idle object that was used least recently. Returns whether there was one.
    pub(super) fn drop_one(&self) -> bool {
        self.drop_oldest(1, |_, _| Sweep::Remove, |_| ()) > 0
    }

    /// Destroys the idle objects that have been idle for too long or are too old. Returns how many.
    pub(super) fn expire(&self, now: Instant) -> usize {
        if self.flags() & flag::TIMED == 0 {
            return 0;
        }
        let now = self.since(now);
        let mut spare = self.shelf.idle().saturating_sub(self.settings.min_idle);
        let judge = |facts: &Facts, _| {
            if self.is_too_old(facts, now) {
                spare = spare.saturating_sub(1);
                Sweep::Remove
            } else if spare > 0 && self.is_idle_too_long(facts, now) {
                spare -= 1;
                Sweep::Remove
            } else {
                Sweep::Keep
            }
        };
        let expired = self.drop_oldest(usize::MAX, judge, |_| ());
        self.counts.expired.fetch_add(expired as u64, Ordering::Relaxed);
        expired
    }

    fn is_expired(&self, facts: &Facts, now: u64) -> bool {
        self.is_too_old(facts, now) || self.is_idle_too_long(facts, now)
    }

    fn is_idle_too_long(&self, facts: &Facts, now: u64) -> bool {
        let Some(most) = self.settings.idle_timeout else { return false };
        let since = facts.idle_since.load(Ordering::Relaxed);
        u128::from(now.saturating_sub(since)) >= most.as_nanos()
    }

    /// Objects that were made together do not all expire together: each ends up to a tenth earlier.
    pub(super) fn is_too_old(&self, facts: &Facts, now: u64) -> bool {
        let Some(most) = self.settings.max_age else { return false };
        let (most, made) = (most.as_nanos(), facts.made.load(Ordering::Relaxed));
        let earlier = (most / 10 * u128::from(mixed(made) >> 32)) >> 32;
        u128::from(now.saturating_sub(made)) >= most - earlier
    }
}

/// `SplitMix64`'s output function (Steele, Lea and Flood, 2014).
const fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<L> Member for Inner<L>
where
    L: Lifecycle + Send + Sync,
    L::Object: Send,
{
    fn evict(&self) -> bool {
        self.drop_one()
    }

    fn shrink(&self) {
        self.flags.fetch_or(flag::OVERFULL, Ordering::SeqCst);
        self.shrink_now();
    }

    fn close(&self) {
        if let Some(permits) = &self.permits {
            permits.close();
        }
        self.flags.fetch_or(flag::CLOSED, Ordering::SeqCst);
        self.returns.wake_all(&self.flags);
        self.drop_all();
    }
}

/// The last handle and the last guard are gone: the idle objects are destroyed, and leave the family.
impl<L: Lifecycle> Drop for Inner<L> {
    fn drop(&mut self) {
        self.flags.fetch_or(flag::CLOSED, Ordering::Relaxed);
        self.drop_all();
    }
}

impl<L: Lifecycle> MemoryUsage for Inner<L> {
    fn used_bytes(&self) -> usize {
        self.budget.usage().used
    }

    fn peak_bytes(&self) -> usize {
        self.budget.usage().peak
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.budget.limit()
    }

    fn usage(&self) -> Usage {
        self.budget.usage()
    }
}

impl<L> MemoryManager for Inner<L>
where
    L: Lifecycle + Send + Sync,
    L::Object: Send,
{
    fn name(&self) -> &str {
        self.budget.name()
    }

    fn class(&self) -> ReclaimClass {
        self.lifecycle.class()
    }

    fn reclaimable(&self) -> Reclaimable {
        let (idle, spare) = (self.shelf.idle(), self.spare());
        let cost = (spare as u64).saturating_mul(self.settings.rebuild_cost_micros);
        let bytes = self.shelf.idle_bytes();
        let kept = (bytes / idle.max(1)).saturating_mul(idle.saturating_sub(spare));
        Reclaimable::new(bytes.saturating_sub(kept), cost)
    }

    fn unheld_bytes(&self) -> usize {
        self.shelf.idle_bytes()
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.drop_bytes(ticket.wanted(), ticket.most()))
    }
}
