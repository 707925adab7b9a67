//! Makes objects, and adds them to a pool.

use super::{
    error::PoolError,
    flag,
    held::Held,
    inner::{Inner, Out, Place},
};
use crate::{
    advanced::budget::{Permits, Reservation},
    core::error::Refused,
    integration::traits::{Factory, Lifecycle},
    utils::{
        sync::{Ordering, yield_now},
        thread_number::thread_number,
    },
};
use core::{convert::Infallible, mem, mem::ManuallyDrop, ptr};
use std::time::Instant;

/// An object that may be made: it is counted, and its bytes are charged.
pub(super) struct Birth<'p, L: Lifecycle> {
    inner: &'p Inner<L>,
    charge: Reservation,
    begun: Instant,
}

/// The result for a caller that found no idle object.
pub(super) enum Begun<'p, L: Lifecycle> {
    Idle(Out<L>),
    New(Place<'p, L>),
    /// The maximum was lowered since the permit was given: it is one too many.
    Full,
    /// The object that the permit stands for is away. So many had [come back](Population::back) before it was looked for.
    Away(usize),
}

impl<L: Lifecycle> Inner<L> {
    /// A place for a new object, if there may be one more.
    pub(super) fn place(&self) -> Option<Place<'_, L>> {
        self.population.enter().is_ok().then(|| Place(self))
    }

    /// Finds an idle object, or a place for a new one. The caller has a permit.
    pub(super) fn find(&self) -> Begun<'_, L> {
        self.pop_fit().map_or_else(|| self.begin(), Begun::Idle)
    }

    /// Like [`find`](Self::find), for a caller that has just found no idle object: looks for one only if there may be no
    /// more objects.
    pub(super) fn begin(&self) -> Begun<'_, L> {
        loop {
            let back = self.population.back();
            let full = match self.population.enter() {
                Ok(()) => return Begun::New(Place(self)),
                Err(full) => full,
            };
            if let Some(slot) = self.shelf.pop_settled(thread_number())
                && let Some(slot) = self.fit(slot)
            {
                return Begun::Idle(slot);
            }
            if full.evict() {
                continue;
            }
            if self.permits.as_ref().is_none_or(Permits::is_over) {
                return Begun::Full;
            }
            if full.has_away() {
                return Begun::Away(back);
            }
            // Another thread is about to push an object, or has popped one and will not need its place. No foreign code runs
            // meanwhile.
            yield_now();
        }
    }

    /// Charges a new object's bytes.
    pub(super) fn charge_new<'p>(&'p self, place: Place<'p, L>) -> Result<Birth<'p, L>, Refused> {
        let charge = self.budget.try_reserve(self.new_cost())?;
        Ok(Self::birth(place, charge))
    }

    pub(super) fn birth(place: Place<'_, L>, charge: Reservation) -> Birth<'_, L> {
        let inner = place.0;
        // `Birth` gives the place up from now on.
        mem::forget(place);
        Birth { inner, charge, begun: Instant::now() }
    }

    /// The bytes that are charged before an object is made.
    pub(super) fn new_cost(&self) -> usize {
        let last = self.last_bytes.load(Ordering::Relaxed);
        Held::<L::Object>::cost(self.settings.estimate.max(last))
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
            Begun::Full | Begun::Away(_) => return Err(self.all_in_use()),
        };
        let slot = self.charge_new(place)?.finish(self.lifecycle.create())?;
        self.counts.first_taken();
        Ok(slot)
    }

    /// Adds an object that was made elsewhere, as an idle one.
    pub(super) fn add(&self, object: L::Object) -> Result<(), (PoolError<Infallible>, L::Object)> {
        if self.flags() & flag::CLOSED != 0 {
            return Err((self.closed(), object));
        }
        // Dropped last.
        let _away = self.away();
        let Some(place) = self.place() else { return Err((self.full(self.most()), object)) };
        let bytes = Held::<L::Object>::cost(self.lifecycle.bytes(&object));
        let charge = match self.budget.try_reserve(bytes) {
            Ok(charge) => charge,
            Err(refused) => return Err((refused.into(), object)),
        };
        let now = self.since(self.now());
        let held = Held::charged_for(object, charge);
        let size = held.size();
        let flags = self.flags();
        if !self.count_idle(flags) {
            return Err((self.full(self.settings.max_idle), held.into_parts().0));
        }
        match self.shelf.add(held, size, now) {
            Ok(slot) => {
                mem::forget(place);
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                self.put_counted(slot);
                Ok(())
            }
            Err(held) => {
                self.uncount_idle(flags, 1);
                Err((self.full(self.most()), held.into_parts().0))
            }
        }
    }
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
        let charge = unsafe { ptr::read(&raw const this.charge) };
        let place = Place(inner);
        let made = if inner.flags() & flag::TIMED == 0 { 0 } else { inner.since(inner.now()) };
        let held = Held::new(object, charge, &inner.lifecycle)?;
        inner.last_bytes.store(held.charged(), Ordering::Relaxed);
        let size = held.size();
        match inner.shelf.add(held, size, made) {
            Ok(slot) => {
                mem::forget(place);
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
