//! The pool of one thread.
#![forbid(unsafe_code)]

use super::{error::PoolError, held::Held};
use crate::{
    advanced::budget::{Budget, Reservation},
    core::{
        Usage,
        error::{NoObject, Refused, RefusedReason},
    },
    integration::traits::{Factory, Lifecycle},
};
use core::{
    cell::{Cell, RefCell},
    fmt, mem,
    ops::{Deref, DerefMut},
    time::Duration,
};
use std::{boxed::Box, vec::Vec};

/// A pool of objects for one thread, without atomic operations. The objects need not be [`Send`].
///
/// Its bytes are on the ledger like those of a [`Pool`](super::Pool), but no other thread can reclaim its idle objects:
/// [`trim`](Self::trim) it now and then. It never waits, and it has no time limits: building it with such an option is
/// an error.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, Pool};
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let buffers = Pool::options("scratch")
///     .budget(&budget)
///     .build_local(|| Vec::<u8>::with_capacity(4096))?;
/// let mut buffer = buffers.try_get()?;
/// buffer.push(1);
/// drop(buffer);
/// assert_eq!((buffers.idle(), buffers.try_get()?.len()), (1, 0));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// Two threads cannot use it:
///
/// ```compile_fail,E0277
/// let pool = nebula_memory::Pool::options("lines").build_local(String::new).unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(|| pool.idle());
/// });
/// ```
pub struct LocalPool<L: Lifecycle> {
    lifecycle: L,
    budget: Budget,
    max_idle: usize,
    max_objects: usize,
    max_object_bytes: usize,
    estimate: usize,
    /// An object has a box of its own, so that it does not move with the list.
    idle: RefCell<Vec<Box<Held<L::Object>>>>,
    /// Objects, idle and checked out.
    live: Cell<usize>,
}

/// The options that a local pool has.
pub(super) struct LocalSettings {
    pub(super) max_idle: usize,
    pub(super) max_objects: usize,
    pub(super) max_object_bytes: usize,
    pub(super) estimate: usize,
}

impl<L: Lifecycle> LocalPool<L> {
    pub(super) const fn new(lifecycle: L, budget: Budget, settings: &LocalSettings) -> Self {
        let LocalSettings { max_idle, max_objects, max_object_bytes, estimate } = *settings;
        Self {
            lifecycle,
            budget,
            max_idle,
            max_objects,
            max_object_bytes,
            estimate,
            idle: RefCell::new(Vec::new()),
            live: Cell::new(0),
        }
    }

    /// Returns the most recently used idle object, or makes a new one.
    ///
    /// # Errors
    ///
    /// As for [`Pool::try_get`](super::Pool::try_get).
    #[inline]
    pub fn try_get(&self) -> Result<LocalPooled<'_, L>, PoolError<L::Error>>
    where
        L: Factory<L::Object>,
    {
        match self.pop_fit() {
            Some(held) => Ok(LocalPooled { held: Some(held), pool: self }),
            None => self.make(),
        }
    }

    /// Takes an idle object that is fit.
    #[inline]
    fn pop_fit(&self) -> Option<Box<Held<L::Object>>> {
        loop {
            // Foreign code runs while nothing is borrowed.
            let idle = self.idle.borrow_mut().pop();
            let mut held = idle?;
            if self.lifecycle.validate(&mut held.object) {
                return Some(held);
            }
            self.destroy(held);
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&self) -> Result<LocalPooled<'_, L>, PoolError<L::Error>>
    where
        L: Factory<L::Object>,
    {
        if self.live.get() >= self.max_objects {
            let (name, max) = (self.budget.name(), self.max_objects);
            let error = NoObject::new(name, RefusedReason::OverLimit, max, Duration::ZERO);
            return Err(PoolError::NoObject { error, holders: Vec::new() });
        }
        let place = LocalPlace::enter(&self.live);
        let charge = self.budget.try_reserve(Held::<L::Object>::cost(self.estimate))?;
        let object = self.lifecycle.create().map_err(PoolError::Create)?;
        let held = Held::new(object, charge, &self.lifecycle)?;
        mem::forget(place);
        Ok(LocalPooled { held: Some(Box::new(held)), pool: self })
    }

    /// Drops idle objects, the least recently used first, until at most `max_idle` are left. Returns the released
    /// bytes.
    pub fn trim(&self, max_idle: usize) -> usize {
        let mut freed = 0;
        loop {
            let oldest = {
                let mut idle = self.idle.borrow_mut();
                (idle.len() > max_idle).then(|| idle.remove(0))
            };
            let Some(held) = oldest else { return freed };
            freed += held.size();
            self.destroy(held);
        }
    }

    /// Destroys an object of the pool.
    #[cold]
    #[inline(never)]
    #[expect(clippy::boxed_local, reason = "the callers have a box, and do not move what is in it")]
    fn destroy(&self, held: Box<Held<L::Object>>) {
        let _place = LocalPlace(&self.live);
        (*held).destroy(&self.lifecycle);
    }

    /// Returns the number of idle objects.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Returns the pool's node on the ledger.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the figures of all objects, idle and checked out, in bytes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }

    /// Keeps a returned object, if it is fit and there is room.
    #[inline]
    fn take_back(&self, held: Box<Held<L::Object>>) {
        let mut doomed = LocalDoomed { held: Some(held), pool: self };
        if let Some(held) = &mut doomed.held
            && self.lifecycle.recycle(&mut held.object)
            && held.settle(&self.lifecycle, self.max_object_bytes)
            && !(self.budget.may_be_over_limit() && self.budget.is_over_limit())
        {
            let mut idle = self.idle.borrow_mut();
            if idle.len() < self.max_idle
                && let Some(held) = doomed.held.take()
            {
                idle.push(held);
            }
        }
    }
}

/// A place in a local pool, which is given up when this is dropped.
struct LocalPlace<'p>(&'p Cell<usize>);

impl<'p> LocalPlace<'p> {
    fn enter(live: &'p Cell<usize>) -> Self {
        live.set(live.get() + 1);
        Self(live)
    }
}

impl Drop for LocalPlace<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<L: Lifecycle> Drop for LocalPool<L> {
    fn drop(&mut self) {
        self.trim(0);
    }
}

impl<L: Lifecycle> fmt::Debug for LocalPool<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPool")
            .field("name", &self.budget.name())
            .field("idle", &self.idle())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

/// A guard of an object that is checked out of a [`LocalPool`]. When it is dropped, the object returns to the pool.
pub struct LocalPooled<'p, L: Lifecycle> {
    /// # Invariants
    ///
    /// `Some` until what consumes the guard takes it.
    held: Option<Box<Held<L::Object>>>,
    pool: &'p LocalPool<L>,
}

impl<'p, L: Lifecycle> LocalPooled<'p, L> {
    /// Sets the bytes that are charged for the object; see [`Pooled::try_charge`](super::Pooled::try_charge).
    ///
    /// # Errors
    ///
    /// [`Refused`]; the object and its charge do not change.
    #[expect(clippy::missing_panics_doc, reason = "a guard has its object until it is consumed")]
    pub fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.held.as_mut().expect(HELD).try_charge(bytes)
    }

    /// Removes the object from the pool for good. Returns it with the reservation of its own bytes.
    #[expect(clippy::missing_panics_doc, reason = "a guard has its object until it is consumed")]
    #[must_use = "dropping the object and its reservation is what `drop` does better"]
    pub fn detach(mut this: Self) -> (L::Object, Reservation) {
        let held = this.held.take().expect(HELD);
        let _place = LocalPlace(&this.pool.live);
        (*held).into_parts()
    }
}

const HELD: &str = "a guard has its object until it is consumed";

impl<L: Lifecycle> Deref for LocalPooled<'_, L> {
    type Target = L::Object;

    #[inline]
    fn deref(&self) -> &L::Object {
        &self.held.as_ref().expect(HELD).object
    }
}

impl<L: Lifecycle> DerefMut for LocalPooled<'_, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut L::Object {
        &mut self.held.as_mut().expect(HELD).object
    }
}

impl<L: Lifecycle> Drop for LocalPooled<'_, L> {
    #[inline]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.pool.take_back(held);
        }
    }
}

impl<L: Lifecycle> fmt::Debug for LocalPooled<'_, L>
where
    L::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalPooled").field(&**self).finish()
    }
}

/// An object that is destroyed when this is dropped, unless it is spared.
struct LocalDoomed<'p, L: Lifecycle> {
    held: Option<Box<Held<L::Object>>>,
    pool: &'p LocalPool<L>,
}

impl<L: Lifecycle> Drop for LocalDoomed<'_, L> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.pool.destroy(held);
        }
    }
}
