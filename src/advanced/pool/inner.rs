//! What the handles and guards of a pool share.

use super::{
    error::{Holder, PoolError},
    guard::Pooled,
    held::Held,
    population::{Member, Population},
    returns::Returns,
    shelf::{Facts, Shelf, Sweep, Taken},
    stats::Counts,
};
use crate::{
    advanced::budget::{Budget, Permits, Reservation, Reserve},
    core::{
        Label, MemoryError, MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
        Usage,
        error::{ConfigError, NoObject, Refused, RefusedReason},
    },
    integration::traits::{Factory, Lifecycle},
    utils::{
        sync::{AtomicU32, AtomicUsize, Mutex, Ordering, lock, yield_now},
        thread_number::thread_number,
    },
};
use core::{convert::Infallible, mem::ManuallyDrop, panic::Location, time::Duration};
use std::{collections::BTreeMap, string::ToString, sync::Arc, time::Instant, vec::Vec};

/// What a call has to look at beside the shelf. Most pools have none of them.
pub(super) mod flag {
    pub(in super::super) const CLOSED: u32 = 1;
    /// There are permits.
    pub(in super::super) const BOUNDED: u32 = 1 << 1;
    /// Objects have a maximum age or an idle time-out.
    pub(in super::super) const TIMED: u32 = 1 << 2;
    /// The number of idle objects is limited.
    pub(in super::super) const CAPPED: u32 = 1 << 3;
    /// Holders are recorded.
    pub(in super::super) const RECORDED: u32 = 1 << 4;
    /// There may be more objects than allowed.
    pub(in super::super) const OVERFULL: u32 = 1 << 5;
    /// One for each caller that is about to make an object and would take a returned one instead.
    pub(in super::super) const AWAITED: u32 = 1 << 8;
    /// The objects are given out in turn.
    pub(in super::super) const IN_TURN: u32 = 1 << 6;
    /// What a return has to look at once the object is idle.
    pub(in super::super) const AFTER_RETURN: u32 = !(BOUNDED | TIMED | CAPPED | RECORDED | IN_TURN);
}

/// The options that do not change.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) max_idle: usize,
    pub(super) min_idle: usize,
    pub(super) max_object_bytes: usize,
    /// The bytes that are charged before an object is made.
    pub(super) estimate: usize,
    pub(super) rebuild_cost_micros: u64,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) create_timeout: Option<Duration>,
    pub(super) failing_after: u32,
}

pub(super) struct Inner<L: Lifecycle> {
    pub(super) lifecycle: L,
    pub(super) budget: Budget,
    pub(super) settings: Settings,
    /// See [`flag`]. Changed rarely, and read by each call.
    pub(super) flags: AtomicU32,
    pub(super) shelf: Shelf<Held<L::Object>>,
    /// One for each object that is checked out, being made or being destroyed; `None` without a maximum.
    pub(super) permits: Option<Permits>,
    pub(super) population: Arc<Population>,
    /// The idle objects; counted where they are limited.
    pub(super) capped: AtomicUsize,
    pub(super) returns: Returns,
    pub(super) counts: Counts,
    pub(super) holders: Mutex<BTreeMap<u32, Holder>>,
    pub(super) made: Instant,
    /// Rounds of checks; wraps around.
    pub(super) rounds: AtomicU32,
    /// A wait with a deadline that nobody serves: the clock of the time limits of hooks.
    pub(super) timer: Option<Permits>,
}

/// A slot that is taken from the pool's shelf.
pub(super) type Out<L> = Taken<Held<<L as Lifecycle>::Object>>;

/// A permit, which is given back when this is dropped. Without a maximum it is nothing.
pub(super) struct Permit<'p>(Option<&'p Permits>);

impl Permit<'_> {
    /// The guard of an object takes the permit over.
    #[inline]
    pub(super) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(permits) = self.0 {
            permits.give(1);
        }
    }
}

/// An object that may be made: it is counted, and its bytes are charged.
pub(super) struct Birth<'p, L: Lifecycle> {
    inner: &'p Inner<L>,
    charge: Reservation,
    begun: Instant,
}

/// What a caller gets that found no idle object.
pub(super) enum Begun<'p, L: Lifecycle> {
    Idle(Out<L>),
    New(Place<'p, L>),
}

/// A place in the population, which is given up when this is dropped.
pub(super) struct Place<'p, L: Lifecycle>(&'p Inner<L>);

impl<L: Lifecycle> Drop for Place<'_, L> {
    fn drop(&mut self) {
        self.0.population.leave();
    }
}

impl<L: Lifecycle> Inner<L> {
    #[inline]
    pub(super) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Takes a permit if one is free and nobody waits for it.
    #[inline]
    pub(super) fn try_permit(&self) -> Result<Permit<'_>, Refused> {
        if let Some(permits) = &self.permits {
            permits.try_take(1)?;
        }
        Ok(Permit(self.permits.as_ref()))
    }

    /// A permit that was taken already.
    pub(super) fn permit(&self) -> Permit<'_> {
        Permit(self.permits.as_ref())
    }

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

    /// Destroys an object that was idle and is not fit.
    fn fit(&self, slot: Out<L>) -> Option<Out<L>> {
        let flags = self.flags();
        let mut doomed = Doomed::new(self, slot);
        if flags & flag::CAPPED != 0 {
            self.capped.fetch_sub(1, Ordering::Relaxed);
        }
        if flags & flag::TIMED != 0 && self.is_expired(doomed.facts(), self.since(self.now())) {
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if doomed.is_valid() { Some(doomed.spare()) } else { self.refuse(doomed) }
    }

    /// A place for a new object, if there may be one more.
    pub(super) fn place(&self) -> Option<Place<'_, L>> {
        self.population.enter().is_ok().then(|| Place(self))
    }

    /// Finds an idle object, or a place for a new one. The caller has a permit.
    pub(super) fn begin(&self) -> Begun<'_, L> {
        loop {
            let full = match self.population.enter() {
                Ok(()) => return Begun::New(Place(self)),
                Err(full) => full,
            };
            if let Some(slot) = self.shelf.pop_settled(thread_number())
                && let Some(slot) = self.fit(slot)
            {
                return Begun::Idle(slot);
            }
            // The caller's permit stands for the object that is destroyed.
            if !full.evict() {
                // An object is on its way back, or to a caller that will not need a place.
                yield_now();
            }
        }
    }

    /// Charges a new object's bytes.
    pub(super) fn charge_new<'p>(
        &'p self,
        place: Place<'p, L>,
    ) -> Result<Birth<'p, L>, Refused> {
        let charge = self.budget.try_reserve(self.new_cost())?;
        Ok(Self::birth(place, charge))
    }

    pub(super) fn birth(place: Place<'_, L>, charge: Reservation) -> Birth<'_, L> {
        let inner = place.0;
        // `Birth` gives the place up from now on.
        core::mem::forget(place);
        Birth { inner, charge, begun: Instant::now() }
    }

    /// The bytes that are charged before an object is made.
    pub(super) fn new_cost(&self) -> usize {
        Held::<L::Object>::cost(self.settings.estimate)
    }

    /// Makes an object now, or finds an idle one. The caller has a permit.
    pub(super) fn make(&self) -> Result<Out<L>, PoolError<<L as Factory<L::Object>>::Error>>
    where
        L: Factory<L::Object>,
    {
        if self.flags() & flag::CLOSED != 0 {
            return Err(self.closed());
        }
        let place = match self.begin() {
            Begun::Idle(slot) => return Ok(slot),
            Begun::New(place) => place,
        };
        let slot = self.charge_new(place)?.finish(self.lifecycle.create())?;
        self.counts.first_taken();
        Ok(slot)
    }

    /// Makes the guard of an object, which takes over the permit that the caller has for it.
    #[inline]
    pub(super) fn hand_out<'p>(
        self: &'p Arc<Self>,
        slot: Out<L>,
        place: &'static Location<'static>,
        permit: Option<Permit<'p>>,
    ) -> Pooled<'p, L> {
        if let Some(permit) = permit {
            permit.keep();
        }
        let guard = Pooled::new(slot, self);
        if self.flags() & flag::RECORDED != 0 {
            self.record_holder(guard.slot(), place);
        }
        guard
    }

    /// Makes an object idle as it is. The caller has a permit for it.
    pub(super) fn put_back(&self, slot: Out<L>) {
        if self.flags() & flag::CAPPED != 0 {
            self.capped.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: a slot of this shelf.
        unsafe { self.shelf.push(thread_number(), slot) };
        if self.flags.load(Ordering::SeqCst) & flag::AFTER_RETURN != 0 {
            self.after_return();
        }
    }

    /// Takes an idle object that this round of checks has not seen. The caller has a permit for it.
    pub(super) fn pop_unchecked(&self, round: u32) -> Option<Out<L>> {
        let mut is_found = false;
        let removed = self.shelf.sweep(thread_number(), |facts| {
            match facts.checked.load(Ordering::Relaxed) == round {
                _ if is_found => Sweep::Stop,
                true => Sweep::Keep,
                false => {
                    is_found = true;
                    Sweep::Remove
                }
            }
        });
        let slot = removed.into_iter().next()?;
        if self.flags() & flag::CAPPED != 0 {
            self.capped.fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: a slot of this shelf.
        unsafe { slot.facts() }.checked.store(round, Ordering::Relaxed);
        Some(slot)
    }

    /// Adds an object that was made elsewhere, as an idle one.
    pub(super) fn add(
        &self,
        object: L::Object,
    ) -> Result<(), (PoolError<Infallible>, L::Object)> {
        if self.flags() & flag::CLOSED != 0 {
            return Err((self.closed(), object));
        }
        let Some(place) = self.place() else {
            return Err((self.all_in_use(), object));
        };
        let bytes = Held::<L::Object>::cost(self.lifecycle.bytes(&object));
        let charge = match self.budget.try_reserve(bytes) {
            Ok(charge) => charge,
            Err(refused) => return Err((refused.into(), object)),
        };
        let now = self.since(self.now());
        let held = Held::new(object, charge, &self.lifecycle);
        let held = held.expect("the charge covers what the object was measured to hold");
        let size = held.size();
        match self.shelf.add(held, size, now) {
            Ok(slot) => {
                core::mem::forget(place);
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                self.put_back(slot);
                Ok(())
            }
            Err(held) => Err((self.all_in_use(), held.into_parts().0)),
        }
    }

    /// Changes the maximum.
    pub(super) fn set_most(&self, most: usize) -> Result<(), MemoryError> {
        let Some(permits) = &self.permits else {
            let allowed = "a pool that was made with a maximum of objects";
            return Err(ConfigError::new("pool.max_objects", most.to_string(), allowed).into());
        };
        if most == 0 {
            return Err(ConfigError::new("pool.max_objects", "0", "at least 1").into());
        }
        // A lower maximum is in force for new objects first, a higher one last: so a permit always stands for a place.
        if most < permits.most() {
            permits.set_most(most)?;
            self.population.set_most(most);
            for member in self.population.members() {
                member.shrink();
            }
        } else {
            self.population.set_most(most);
            permits.set_most(most)?;
        }
        Ok(())
    }

    pub(super) fn closed<E>(&self) -> PoolError<E> {
        self.without_object(RefusedReason::Closed, self.most())
    }

    pub(super) fn all_in_use<E>(&self) -> PoolError<E> {
        self.without_object(RefusedReason::OverLimit, self.most().min(Shelf::<Held<L::Object>>::MOST))
    }

    pub(super) fn most(&self) -> usize {
        self.permits.as_ref().map_or(usize::MAX, Permits::most)
    }

    fn without_object<E>(&self, reason: RefusedReason, max: usize) -> PoolError<E> {
        let pool = Label::new(self.budget.name());
        let error = NoObject { pool, reason, max, waited: Duration::ZERO };
        PoolError::NoObject { error, holders: self.holders() }
    }

    /// A wait that ends when the factory has had its time.
    pub(super) fn time_limit(&self) -> Option<Reserve> {
        let (timer, limit) = (self.timer.as_ref()?, self.settings.create_timeout?);
        let end = timer.take(1, &self.budget);
        Some(match self.now().checked_add(limit) {
            Some(at) => end.deadline(at),
            None => end.no_timeout(),
        })
    }

    /// Takes a returned object back, and its permit: keeps it, if it is fit and there is room.
    #[inline]
    pub(super) fn take_back(&self, slot: Out<L>) {
        let mut returned = Returned { doomed: ManuallyDrop::new(Doomed::new(self, slot)) };
        let flags = self.flags();
        let held = returned.doomed.held_mut();
        let size = held.size();
        if !self.lifecycle.recycle(&mut held.object)
            || !held.settle(&self.lifecycle, self.settings.max_object_bytes)
        {
            return;
        }
        let now = held.size();
        if now != size {
            returned.doomed.facts().size.store(now, Ordering::Relaxed);
        }
        if flags & !flag::BOUNDED != 0 {
            self.keep_slowly(returned, flags);
        } else {
            // SAFETY: a slot of this shelf.
            unsafe { self.shelf.push(thread_number(), returned.spare()) };
            if flags != 0 {
                drop(self.permit());
            }
        }
        // Read after the push, and both are in one total order with what a closer, a resizer and a caller that is
        // about to make an object do: they set their flag, then look at the shelf. The ledger's limits are read here
        // too: so either a lowered one is seen, or the object is already idle when the pool is asked.
        let flags = self.flags.load(Ordering::SeqCst);
        if flags & flag::AFTER_RETURN != 0 || self.budget.may_be_over_limit() {
            self.after_return();
        }
    }

    /// What only some pools do with a returned object that is fit.
    #[cold]
    #[inline(never)]
    fn keep_slowly(&self, returned: Returned<'_, L>, flags: u32) {
        if flags & flag::RECORDED != 0 {
            self.forget_holder(&returned.doomed.slot);
        }
        if flags & flag::TIMED != 0 {
            let (now, facts) = (self.since(self.now()), returned.doomed.facts());
            if self.is_too_old(facts, now) {
                self.counts.expired.fetch_add(1, Ordering::Relaxed);
                return;
            }
            facts.idle_since.store(now, Ordering::Relaxed);
        }
        if flags & flag::CAPPED != 0 {
            let most = self.settings.max_idle;
            let more = |idle| (idle < most).then_some(idle + 1);
            let counted = self.capped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            if counted.is_err() {
                return;
            }
        }
        let permit = self.permit();
        // SAFETY: a slot of this shelf.
        unsafe { self.shelf.push(thread_number(), returned.spare()) };
        drop(permit);
    }

    #[cold]
    #[inline(never)]
    fn after_return(&self) {
        let flags = self.flags();
        if flags & flag::CLOSED != 0 {
            self.drop_oldest(usize::MAX, |_, _| Sweep::Remove);
        } else if flags & flag::OVERFULL != 0 {
            self.shrink_now();
        }
        if flags >= flag::AWAITED {
            self.returns.wake_one(&self.flags);
        }
        while self.budget.is_over_limit() && self.drop_oldest(1, |_, _| Sweep::Remove) > 0 {}
    }

    /// Destroys idle objects while there are more objects than allowed.
    fn shrink_now(&self) {
        while self.population.is_over() {
            if self.drop_oldest(1, |_, _| Sweep::Remove) == 0 {
                return;
            }
        }
        self.flags.fetch_and(!flag::OVERFULL, Ordering::SeqCst);
    }

    /// Destroys idle objects, of each thread's the least recently used first: at most `most`, as `judge(object,
    /// bytes)` says. Returns how many.
    pub(super) fn drop_oldest(
        &self,
        most: usize,
        mut judge: impl FnMut(&Facts, usize) -> Sweep,
    ) -> usize {
        let mut left = most;
        let removed = self.shelf.sweep(thread_number(), |facts| {
            if left == 0 {
                return Sweep::Stop;
            }
            let verdict = judge(facts, facts.size.load(Ordering::Relaxed));
            if verdict != Sweep::Remove {
                return verdict;
            }
            // It is in use until it is destroyed. Where no permit is left, a caller is about to take it.
            if self.permits.as_ref().is_some_and(|permits| permits.try_take(1).is_err()) {
                return Sweep::Stop;
            }
            left -= 1;
            Sweep::Remove
        });
        let count = removed.len();
        if self.flags() & flag::CAPPED != 0 {
            self.capped.fetch_sub(count, Ordering::Relaxed);
        }
        let removed: Vec<_> = removed
            .into_iter()
            .map(|slot| (Doomed::new(self, slot), self.permit()))
            .collect();
        drop(removed);
        count
    }

    /// Destroys idle objects until at least `wanted` bytes are released, and at most `most`. Returns the bytes.
    pub(super) fn drop_bytes(&self, wanted: usize, most: usize) -> usize {
        let mut freed = 0;
        self.drop_oldest(usize::MAX, |_, bytes| {
            if freed >= wanted || bytes > most - freed {
                return Sweep::Stop;
            }
            freed += bytes;
            Sweep::Remove
        });
        freed
    }

    /// Destroys the idle objects that have been idle for too long or are too old. Returns how many.
    pub(super) fn expire(&self, now: Instant) -> usize {
        if self.flags() & flag::TIMED == 0 {
            return 0;
        }
        let now = self.since(now);
        let spare = self.shelf.idle().saturating_sub(self.settings.min_idle);
        let mut spare = spare;
        let expired = self.drop_oldest(usize::MAX, |facts, _| {
            if self.is_too_old(facts, now) {
                spare = spare.saturating_sub(1);
                Sweep::Remove
            } else if spare > 0 && self.is_idle_too_long(facts, now) {
                spare -= 1;
                Sweep::Remove
            } else {
                Sweep::Keep
            }
        });
        self.counts.expired.fetch_add(expired as u64, Ordering::Relaxed);
        expired
    }

    pub(super) fn now(&self) -> Instant {
        self.budget.now()
    }

    /// Nanoseconds since the pool was made.
    pub(super) fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
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
    fn is_too_old(&self, facts: &Facts, now: u64) -> bool {
        let Some(most) = self.settings.max_age else { return false };
        let (most, made) = (most.as_nanos(), facts.made.load(Ordering::Relaxed));
        let earlier = (most / 10 * u128::from(mixed(made) >> 32)) >> 32;
        u128::from(now.saturating_sub(made)) >= most - earlier
    }

    /// Records who takes an object.
    pub(super) fn record_holder(&self, slot: &Out<L>, place: &'static Location<'static>) {
        // SAFETY: a slot of this shelf.
        let number = unsafe { slot.number() };
        let holder = Holder::new(place, self.now());
        let before = lock(&self.holders).insert(number, holder);
        drop(before);
    }

    #[cold]
    pub(super) fn forget_holder(&self, slot: &Out<L>) {
        // SAFETY: a slot of this shelf.
        let number = unsafe { slot.number() };
        let before = lock(&self.holders).remove(&number);
        drop(before);
    }

    /// The recorded holders, who has held for longest first.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<_> = lock(&self.holders).values().cloned().collect();
        holders.sort_by_key(|holder| holder.since);
        holders
    }

    /// The error of a request for an object that was refused for want of a permit.
    pub(super) fn no_object<E>(&self, refused: &Refused, waited: Duration) -> PoolError<E> {
        if refused.reason == RefusedReason::TimedOut {
            self.counts.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        let error = NoObject {
            pool: Label::new(self.budget.name()),
            reason: refused.reason,
            max: refused.limit,
            waited,
        };
        PoolError::NoObject { error, holders: self.holders() }
    }

    /// Takes a slot's object out of the pool for good.
    pub(super) fn detach(&self, slot: Out<L>) -> Option<Held<L::Object>> {
        let _permit = self.permit();
        self.forget_holder(&slot);
        // SAFETY: a slot of this shelf.
        let held = unsafe { self.shelf.remove(slot) };
        self.population.leave();
        self.counts.detached.fetch_add(1, Ordering::Relaxed);
        held
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
const fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<'p, L: Lifecycle> Birth<'p, L> {
    /// Puts the object that was made into a slot.
    pub(super) fn finish<E>(self, made: Result<L::Object, E>) -> Result<Out<L>, PoolError<E>> {
        let inner = self.inner;
        let object = match made {
            Ok(object) => object,
            Err(error) => {
                inner.counts.failed();
                return Err(PoolError::Create(error));
            }
        };
        let begun = self.begun;
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped.
        let charge = unsafe { core::ptr::read(&raw const this.charge) };
        let place = Place(inner);
        let made = if inner.flags() & flag::TIMED == 0 { 0 } else { inner.since(inner.now()) };
        let held = Held::new(object, charge, &inner.lifecycle)?;
        let size = held.size();
        match inner.shelf.add(held, size, made) {
            Ok(slot) => {
                core::mem::forget(place);
                inner.counts.made(begun.elapsed());
                Ok(slot)
            }
            Err(held) => {
                held.destroy(&inner.lifecycle);
                Err(inner.all_in_use())
            }
        }
    }
}

impl<L: Lifecycle> Drop for Birth<'_, L> {
    fn drop(&mut self) {
        self.inner.population.leave();
    }
}

/// An object that is destroyed when this is dropped, unless it is spared.
pub(super) struct Doomed<'p, L: Lifecycle> {
    inner: &'p Inner<L>,
    slot: ManuallyDrop<Out<L>>,
}

impl<'p, L: Lifecycle> Doomed<'p, L> {
    #[inline]
    pub(super) fn new(inner: &'p Inner<L>, slot: Out<L>) -> Self {
        Self { inner, slot: ManuallyDrop::new(slot) }
    }

    #[inline]
    fn facts(&self) -> &'p Facts {
        // SAFETY: the shelf lives as long as the result.
        unsafe { self.slot.facts() }
    }

    #[inline]
    pub(super) fn held_mut(&mut self) -> &mut Held<L::Object> {
        // SAFETY: 1. The shelf lives as long as `self`. 2. The result borrows it uniquely.
        unsafe { self.slot.get_mut() }
    }

    #[inline]
    fn is_valid(&mut self) -> bool {
        let lifecycle = &self.inner.lifecycle;
        lifecycle.validate(&mut self.held_mut().object)
    }

    #[inline]
    pub(super) fn spare(self) -> Out<L> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and not used again.
        unsafe { ManuallyDrop::take(&mut this.slot) }
    }
}

impl<L: Lifecycle> Drop for Doomed<'_, L> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        let _place = Place(self.inner);
        // SAFETY: only `spare` takes it, and then this is not dropped.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        // SAFETY: a slot of this shelf.
        let held = unsafe { self.inner.shelf.remove(slot) };
        self.inner.counts.destroyed.fetch_add(1, Ordering::Relaxed);
        if let Some(held) = held {
            held.destroy(&self.inner.lifecycle);
        }
    }
}

/// An object on its way back. If this is dropped, it is destroyed and its permit is given back.
struct Returned<'p, L: Lifecycle> {
    doomed: ManuallyDrop<Doomed<'p, L>>,
}

impl<L: Lifecycle> Returned<'_, L> {
    /// The caller gives the permit back.
    #[inline(always)]
    fn spare(self) -> Out<L> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and not used again.
        unsafe { ManuallyDrop::take(&mut this.doomed.slot) }
    }
}

impl<L: Lifecycle> Drop for Returned<'_, L> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        let inner = self.doomed.inner;
        let _permit = inner.permit();
        if inner.flags() & flag::RECORDED != 0 {
            inner.forget_holder(&self.doomed.slot);
        }
        // SAFETY: only `spare` takes it, and then this is not dropped.
        unsafe { ManuallyDrop::drop(&mut self.doomed) };
    }
}

impl<L> Member for Inner<L>
where
    L: Lifecycle + Send + Sync,
    L::Object: Send,
{
    fn evict(&self) -> bool {
        let mut is_first = true;
        let removed = self.shelf.sweep(thread_number(), |_| {
            if core::mem::take(&mut is_first) { Sweep::Remove } else { Sweep::Stop }
        });
        if self.flags() & flag::CAPPED != 0 {
            self.capped.fetch_sub(removed.len(), Ordering::Relaxed);
        }
        let is_one = !removed.is_empty();
        for slot in removed {
            drop(Doomed::new(self, slot));
        }
        is_one
    }

    fn shrink(&self) {
        self.flags.fetch_or(flag::OVERFULL, Ordering::SeqCst);
        self.shrink_now();
    }

    fn close(&self) {
        self.flags.fetch_or(flag::CLOSED, Ordering::SeqCst);
        self.returns.wake_all(&self.flags);
        self.drop_oldest(usize::MAX, |_, _| Sweep::Remove);
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
        let cost = (self.shelf.idle() as u64).saturating_mul(self.settings.rebuild_cost_micros);
        Reclaimable::new(self.shelf.idle_bytes(), cost)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.drop_bytes(ticket.wanted(), ticket.most()))
    }
}
