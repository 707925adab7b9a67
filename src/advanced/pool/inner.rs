//! The state that the handles and guards of a pool share.

use super::{
    error::{Holder, PoolError},
    flag,
    held::Held,
    population::Population,
    shelf::{Facts, Shelf, Taken},
    stats::Counts,
};
use crate::{
    advanced::budget::{Budget, Permits, Timer},
    core::{
        MemoryError,
        error::{ConfigError, NoObject, Refused, RefusedReason},
    },
    integration::traits::Lifecycle,
    utils::{
        sync::{AtomicU32, AtomicUsize, Mutex, Ordering, lock},
        unwind::for_each,
        wakers::Wakers,
    },
};
use core::{mem, panic::Location, time::Duration};
use std::{collections::BTreeMap, string::ToString, sync::Arc, time::Instant, vec::Vec};

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
    /// The callers that would take a returned object.
    pub(super) returns: Wakers,
    pub(super) counts: Counts,
    pub(super) holders: Mutex<BTreeMap<u32, Holder>>,
    pub(super) made: Instant,
    /// The bytes of the object that was made last.
    pub(super) last_bytes: AtomicUsize,
    /// Rounds of checks; wraps around.
    pub(super) rounds: AtomicU32,
    /// The clock of waits for something else than the ledger; made when it is needed.
    pub(super) timer: Mutex<Option<Timer>>,
}

/// A slot that is taken from the pool's shelf.
pub(super) type Out<L> = Taken<Held<<L as Lifecycle>::Object>>;

/// A permit, which is given back when this is dropped. Without a maximum it is nothing.
pub(super) struct Permit<'p>(Option<&'p Permits>);

impl Permit<'_> {
    /// The guard of an object takes the permit over.
    #[inline]
    pub(super) fn keep(self) {
        mem::forget(self);
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

/// A place in the population that is [away](Population) until this is dropped. By then it is left, or its object is
/// idle.
pub(super) struct Away<'p, L: Lifecycle>(pub(super) &'p Inner<L>);

impl<L: Lifecycle> Drop for Away<'_, L> {
    fn drop(&mut self) {
        self.0.population.come_back();
    }
}

/// A place in the population, which is given up when this is dropped.
pub(super) struct Place<'p, L: Lifecycle>(pub(super) &'p Inner<L>);

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

    /// Counts an object that becomes idle, where their number is limited. Returns whether there may be one more.
    #[inline]
    pub(super) fn count_idle(&self, flags: u32) -> bool {
        if flags & flag::CAPPED == 0 {
            return true;
        }
        let most = self.settings.max_idle;
        let more = |idle| (idle < most).then_some(idle + 1);
        self.capped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts idle objects that are not idle any more, where their number is limited.
    #[inline]
    pub(super) fn uncount_idle(&self, flags: u32, objects: usize) {
        if flags & flag::CAPPED != 0 {
            self.capped.fetch_sub(objects, Ordering::Relaxed);
        }
    }

    /// A place that is away from now on.
    pub(super) fn away(&self) -> Away<'_, L> {
        self.population.go_away(1);
        Away(self)
    }

    /// A place that went away already.
    pub(super) const fn gone_away(&self) -> Away<'_, L> {
        Away(self)
    }

    /// A permit that was taken already.
    pub(super) fn permit(&self) -> Permit<'_> {
        Permit(self.permits.as_ref())
    }

    /// Changes the maximum.
    pub(super) fn set_most(&self, most: usize) -> Result<(), MemoryError> {
        let Some(permits) = &self.permits else {
            let allowed = "a pool that was made with a maximum of objects";
            let error = ConfigError::new("pool.max_objects", most.to_string(), allowed);
            return Err(error.of(self.budget.name()).into());
        };
        if most == 0 {
            let error = ConfigError::new("pool.max_objects", "0", "at least 1");
            return Err(error.of(self.budget.name()).into());
        }
        // A higher maximum is in force for objects before it is for permits, a lower one after: so a permit always stands
        // for a place.
        let before = permits.most();
        if most > before {
            self.population.set_most(most);
        }
        permits.set_most(most)?;
        // Another thread may set another maximum meanwhile: the one of the permits holds.
        loop {
            let now = permits.most();
            self.population.set_most(now);
            if permits.most() == now {
                break;
            }
        }
        if most < before {
            // The end of an object may panic. The others are destroyed all the same.
            for_each(self.population.members(), |member| member.shrink());
        }
        Ok(())
    }

    pub(super) fn closed<E>(&self) -> PoolError<E> {
        self.without_object(RefusedReason::Closed, self.most(), Duration::ZERO)
    }

    pub(super) fn all_in_use<E>(&self) -> PoolError<E> {
        self.without_object(RefusedReason::OverLimit, self.most(), Duration::ZERO)
    }

    /// The error of an object that is added to `max` others, which are as many as there may be.
    pub(super) fn full<E>(&self, max: usize) -> PoolError<E> {
        let name = self.budget.name();
        PoolError::Full(NoObject::new(name, RefusedReason::OverLimit, max, Duration::ZERO))
    }

    /// The most objects that the pool may have, by its own limit and those above.
    pub(super) fn most(&self) -> usize {
        self.population.bound().min(Shelf::<Held<L::Object>>::MOST)
    }

    fn without_object<E>(
        &self,
        reason: RefusedReason,
        max: usize,
        waited: Duration,
    ) -> PoolError<E> {
        let error = NoObject::new(self.budget.name(), reason, max, waited);
        PoolError::NoObject { error, holders: self.holders() }
    }

    pub(super) fn now(&self) -> Instant {
        self.budget.now()
    }

    /// Nanoseconds since the pool was made.
    pub(super) fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    pub(super) fn facts<'p>(&'p self, slot: &Out<L>) -> &'p Facts {
        // SAFETY: a slot of this shelf, which lives as long as the result.
        unsafe { slot.facts() }
    }

    /// Records that the caller at `place` takes the object in a slot.
    pub(super) fn record_holder(&self, slot: &Out<L>, place: &'static Location<'static>) {
        // SAFETY: a slot of this shelf.
        let number = unsafe { slot.number() };
        let holder = Holder::new(place, self.now());
        lock(&self.holders).insert(number, holder);
    }

    #[cold]
    pub(super) fn forget_holder(&self, slot: &Out<L>) {
        // SAFETY: a slot of this shelf.
        let number = unsafe { slot.number() };
        lock(&self.holders).remove(&number);
    }

    /// The recorded holders, in the order in which they took their objects.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<_> = lock(&self.holders).values().cloned().collect();
        holders.sort_by_key(|holder| holder.since);
        holders
    }

    /// The error of a request for an object that was refused for want of a permit.
    pub(super) fn no_object<E>(&self, refused: &Refused, waited: Duration) -> PoolError<E> {
        self.count_end(refused.reason);
        self.without_object(refused.reason, refused.limit, waited)
    }

    /// The error of a request whose wait has [ended](super::wait::Terms::end).
    pub(super) fn ended<E>(&self, reason: RefusedReason, waited: Duration) -> PoolError<E> {
        self.count_end(reason);
        self.without_object(reason, self.most(), waited)
    }

    /// The error of a request that was refused the bytes of a new object.
    pub(super) fn no_bytes<E>(&self, refused: Refused) -> PoolError<E> {
        self.count_end(refused.reason);
        refused.into()
    }

    fn count_end(&self, reason: RefusedReason) {
        if reason == RefusedReason::TimedOut {
            self.counts.timeouts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The error of a factory that has not made an object within its time limit.
    pub(super) fn create_timed_out<E>(&self, limit: Duration) -> PoolError<E> {
        self.counts.failed();
        let name = self.budget.name();
        let error = NoObject::new(name, RefusedReason::TimedOut, self.most(), limit);
        PoolError::CreateTimedOut { limit, error }
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
