//! Pools of objects that are expensive to make: a returned object is kept for the next caller.
//!
//! ```text
//!            try_get, get                            drop of the guard
//!  caller ◄────────── newest idle object   ┌───────────────────────────────────┐
//!                     or a new one         │ recycle, measure, settle bytes    │
//!                                          └──────────────┬────────────────────┘
//!   idle: thread 0  [oldest … newest] ◄────────── kept ───┴──► destroyed (unfit, too large or old,
//!         thread 1  [oldest … newest]                          too many, budget over its limit)
//!             └── reclaim, trim, maintenance, other threads that have none
//! ```
//!
//! | | threads | a `get` and its return | waits | idle memory is reclaimed |
//! |---|---|---|---|---|
//! | [`Pool`] | many | one atomic exchange | for bytes; with [`max_objects`](PoolOptions::max_objects) also for an object | yes |
//! | [`LocalPool`] | one | no atomic operation | no | by its own thread |
//!
//! An object never moves while it is in a pool: a guard points to the object's slot.
//!
//! # On the ledger
//!
//! A pool has its own node on the ledger, below the budget that you pass. Every object, idle or checked out, has a
//! reservation from that node: for the object's own bytes and for its [slot](Pool::OBJECT_OVERHEAD). A pool never frees
//! slots before it is dropped, so it has as many slots as the most objects that it ever had at once. They are allocated
//! in blocks, each twice as large as the one before, so they may take twice the bytes that are charged for them.
//!
//! If a limit was lowered below the bytes of the pool, idle objects are dropped each time an object is returned,
//! until the rest fits. A closed pool keeps no object.
//!
//! When the ledger needs memory it reclaims idle objects, of each thread the least recently used first. For another
//! tenant, it stops at an object that is larger than the bytes that the pool's tenant still borrows. Objects that are
//! checked out are never reclaimed.
//!
//! # A maximum, and waiting
//!
//! With [`max_objects`](PoolOptions::max_objects) there are never more objects, counting idle objects, objects in use,
//! and objects that are being made or destroyed. A thread can take the idle objects of all other threads, so no request
//! is refused while an object is idle. [`Pool::try_get`] refuses at once. [`Pool::get`] waits, as a future or on a
//! thread. It waits in a queue of a ledger, with its order, priorities, deadlines and cancellation: a permit to hold an
//! object is a unit of a ledger that counts objects. The permit of a returned object goes to the first waiter before
//! any other request can take it. [`Get::many`] takes several objects or none, so two callers cannot each hold objects
//! that the other waits for. The objects of a [child](Pool::child) count towards the maximum of its parent.
//!
//! # Foreign code
//!
//! The functions of the life cycle, the factory, wakers and the drops of objects run without a lock, so they may use
//! the pool and the ledger. If one panics, the object is dropped, its bytes are released, and its permit is passed on.
//! The same holds if a future is dropped.
//!
//! # When not to use it
//!
//! For small plain values the allocator is as fast. A pool is worth it for objects that take microseconds to
//! make, and for large buffers that would otherwise be allocated and freed often.

mod error;
mod flag;
mod get;
mod guard;
mod held;
mod idle;
mod inner;
mod local;
mod making;
mod options;
mod population;
mod returning;
mod round;
mod shelf;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod stats;
mod wait;

pub use self::{
    error::{Holder, PoolError},
    get::Get,
    guard::Pooled,
    local::{LocalPool, LocalPooled},
    options::PoolOptions,
    stats::{Health, PoolStats},
};

use self::{
    held::Held,
    inner::Inner,
    shelf::{Facts, Slot, Sweep},
};
use crate::{
    advanced::budget::{Budget, Permits},
    core::{MemoryError, Usage},
    integration::traits::{AsyncFactory, Factory, Lifecycle},
    utils::{
        sync::Ordering,
        unwind::{contained, for_each},
    },
};
use core::{cell::Cell, convert::Infallible, fmt, panic::Location, time::Duration};
use std::{boxed::Box, sync::Arc, thread, time::Instant, vec::Vec};

/// A pool of objects that threads share. A clone is a handle to the same pool, and costs a reference count.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, pool::Pool};
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let buffers = Pool::options("buffers").budget(&budget).build(Vec::<u8>::new)?;
///
/// let mut buffer = buffers.try_get()?;
/// buffer.try_charge(4096)?; // tell the ledger, then grow
/// buffer.reserve_exact(4096);
/// drop(buffer);
///
/// assert_eq!(buffers.idle(), 1);
/// assert!(budget.usage().used > 4096, "an idle object is charged too, with its slot");
/// assert_eq!(buffers.try_get()?.capacity(), 4096, "the same buffer, emptied");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Pool<L: Lifecycle> {
    inner: Arc<Inner<L>>,
}

/// A pool whose objects are made by a boxed closure; from [`PoolOptions::build_fn`]. Use it if you must write the
/// pool's type, such as in a struct. `FnPool<Vec<u8>>` is a pool of buffers, each charged for its capacity.
///
/// # Examples
///
/// ```
/// use nebula_memory::{MemoryError, pool::{FnPool, Pool}};
///
/// struct Encoder {
///     buffers: FnPool<Vec<u8>>,
/// }
///
/// impl Encoder {
///     fn new(page: usize) -> Result<Self, MemoryError> {
///         let buffers = Pool::options("buffers").build_fn(move || Vec::with_capacity(page))?;
///         Ok(Self { buffers })
///     }
/// }
///
/// assert_eq!(Encoder::new(4096)?.buffers.try_get()?.capacity(), 4096);
/// # Ok::<(), MemoryError>(())
/// ```
pub type FnPool<T> = Pool<Box<dyn Fn() -> T + Send + Sync>>;

impl<L: Lifecycle + Factory<L::Object>> Pool<L> {
    /// Returns an idle object, or makes a new one. Never waits.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NoObject`] if as many objects are in use as there may be, or the pool is closed.
    /// - [`PoolError::Refused`] if the ledger has no room for a new object, after cheaper memory was reclaimed.
    /// - [`PoolError::Create`] with the factory's own error.
    ///
    /// # Complexity
    ///
    /// One atomic exchange if the thread has returned an object before, and up to one for each thread that has one
    /// if not. A new object also takes a reservation and a call of the factory.
    #[inline]
    #[track_caller]
    pub fn try_get(&self) -> Result<Pooled<'_, L>, PoolError<L::Error>> {
        let inner = &self.inner;
        let flags = inner.flags();
        if flags & flag::BOUNDED == 0
            && let Some(slot) = inner.pop_own(flags)
        {
            return Ok(Pooled::new(slot, inner));
        }
        self.get_slowly(flags, Location::caller())
    }

    #[inline(never)]
    fn get_slowly(
        &self,
        flags: u32,
        place: &'static Location<'static>,
    ) -> Result<Pooled<'_, L>, PoolError<L::Error>> {
        let inner = &self.inner;
        if flags & flag::CLOSED != 0 {
            return Err(inner.closed());
        }
        let permit = match inner.try_permit() {
            Ok(permit) => permit,
            Err(refused) => return Err(inner.no_object(&refused, Duration::ZERO)),
        };
        let slot = match inner.pop_own(flags).or_else(|| inner.pop_fit()) {
            Some(slot) => slot,
            None => inner.make()?,
        };
        Ok(inner.hand_out(slot, place, Some(permit)))
    }

    /// Destroys the idle objects that are too old or were idle for too long, and then makes objects until
    /// [`min_idle`](PoolOptions::min_idle) are idle. Returns how many it destroyed, and how many it made.
    ///
    /// It makes no object while others wait for one. Call it now and then, or see
    /// [`maintain_every`](Self::maintain_every).
    ///
    /// # Errors
    ///
    /// As for [`try_get`](Self::try_get). What was destroyed and made before the error stays so.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = Pool::options("lines")
    ///     .min_idle(2)
    ///     .idle_timeout(Duration::from_secs(60))
    ///     .build(String::new)?;
    /// assert_eq!(pool.maintain(Instant::now())?, (0, 2));
    ///
    /// drop([pool.try_get()?, pool.try_get()?, pool.try_get()?]);
    /// let later = Instant::now() + Duration::from_secs(61);
    /// assert_eq!(pool.maintain(later)?, (1, 0));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn maintain(&self, now: Instant) -> Result<(usize, usize), PoolError<L::Error>> {
        let inner = &*self.inner;
        let expired = inner.expire(now);
        let mut made = 0;
        let is_awaited = || inner.permits.as_ref().is_some_and(|permits| permits.waiting() > 0);
        while inner.shelf.idle() < inner.settings.min_idle
            && inner.flags() & flag::CLOSED == 0
            && !is_awaited()
        {
            let _away = inner.away();
            let Some(place) = inner.place() else { break };
            let birth = inner.charge_new(place)?;
            let slot = birth.finish(inner.lifecycle.create())?;
            inner.put_back(slot);
            made += 1;
        }
        Ok((expired, made))
    }

    /// Starts a thread that calls [`maintain`](Self::maintain) in this interval, until the pool is closed or its last
    /// handle is dropped. It ignores errors: they show in the [health](Self::health), and the next round tries again.
    ///
    /// # Errors
    ///
    /// [`std::io::Error`] if the system starts no more threads.
    pub fn maintain_every(&self, interval: Duration) -> std::io::Result<()>
    where
        L: Send + Sync + 'static,
        L::Object: Send + 'static,
    {
        let pool = Arc::downgrade(&self.inner);
        let round = move || {
            loop {
                thread::park_timeout(interval);
                let Some(inner) = pool.upgrade() else { return };
                if inner.flags() & flag::CLOSED != 0 {
                    return;
                }
                let pool = Self { inner };
                contained(|| drop(pool.maintain(pool.inner.now())));
            }
        };
        thread::Builder::new().name("nebula-pool".into()).spawn(round).map(drop)
    }
}

impl<L: Lifecycle + AsyncFactory<L::Object>> Pool<L> {
    /// Requests an object, and waits until there is one. The result is a future for any runtime;
    /// [`wait`](Get::wait) blocks a thread instead.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NoObject`] at the deadline, when the request is cancelled, and if the pool is closed.
    /// - [`PoolError::Refused`] if the ledger refuses the bytes of a new object for good, or until the deadline.
    /// - [`PoolError::Create`] with the factory's own error, and [`PoolError::CreateTimedOut`].
    ///
    /// # Complexity
    ///
    /// Like [`try_get`](Self::try_get) if there is an idle object. A wait takes `O(log w)` with `w` waiters.
    #[track_caller]
    pub fn get(&self) -> Get<'_, L> {
        Get::new(self, Location::caller())
    }

    /// [Checks](AsyncFactory::check) each object that is idle now, one after the other, and destroys each object that
    /// fails. Returns the number of destroyed objects. The [health](Self::health) reports failures.
    ///
    /// Call it from a task of your runtime now and then. Dropping the future destroys the object that is being checked.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::{Health, Pool};
    ///
    /// # futures_lite_block_on(async {
    /// let pool = Pool::options("lines").build(String::new).unwrap();
    /// drop(pool.try_get().unwrap());
    /// assert_eq!(pool.check().await, 0);
    /// assert_eq!(pool.health(), Health::Healthy);
    /// # });
    /// # fn futures_lite_block_on(future: impl Future<Output = ()>) {
    /// #     let waker = std::task::Waker::noop();
    /// #     let mut context = std::task::Context::from_waker(waker);
    /// #     assert!(std::pin::pin!(future).poll(&mut context).is_ready());
    /// # }
    /// ```
    pub async fn check(&self) -> usize {
        let inner = &*self.inner;
        let mut failed = 0;
        let mut round = inner.round();
        while let Some(mut one) = round.next() {
            if AsyncFactory::check(&inner.lifecycle, one.object()).await {
                inner.counts.healthy();
                one.keep();
            } else {
                inner.counts.invalid.fetch_add(1, Ordering::Relaxed);
                inner.counts.unhealthy();
                failed += 1;
            }
        }
        failed
    }
}

impl<L: Lifecycle> Pool<L> {
    /// The bytes that are charged for an object in addition to its own heap memory: those of its slot, which are the
    /// object itself, its reservation and the link to the next idle one.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::{FnPool, Pool};
    ///
    /// let pool = Pool::options("buffers").build_fn(|| vec![0_u8; 100])?;
    /// let buffer = pool.try_get()?;
    /// assert_eq!(pool.usage().used, 100 + FnPool::<Vec<u8>>::OBJECT_OVERHEAD);
    /// # drop(buffer);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const OBJECT_OVERHEAD: usize = size_of::<Slot<Held<L::Object>>>();

    /// Adds an object that was made elsewhere, as an idle one.
    ///
    /// # Errors
    ///
    /// The object, and [`PoolError::NoObject`] if there are as many as there may be, or [`PoolError::Refused`] if the
    /// ledger has no room for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").max_objects(1).build(String::new)?;
    /// pool.add(String::from("first")).map_err(|(error, _)| error)?;
    /// assert_eq!(&pool.try_get()?[..], "first");
    /// assert!(pool.add(String::from("second")).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn add(&self, object: L::Object) -> Result<(), (PoolError<Infallible>, L::Object)> {
        self.inner.add(object)
    }

    /// Destroys the idle objects for which `keep` is false. Returns how many. `keep` may change an object, but not its
    /// size.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("numbers").build(|| Vec::<u8>::with_capacity(8))?;
    /// drop((pool.try_get()?, pool.try_get()?));
    /// assert_eq!(pool.retain(|buffer| buffer.capacity() > 8), 2);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn retain(&self, mut keep: impl FnMut(&mut L::Object) -> bool) -> usize {
        let mut removed = 0;
        let mut round = self.inner.round();
        while let Some(mut one) = round.next() {
            if keep(one.object()) {
                one.keep();
            } else {
                removed += 1;
            }
        }
        removed
    }

    /// Drops idle objects, of each thread the least recently used first, until at most `max_idle` are left. Returns the
    /// released bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::{FnPool, Pool};
    ///
    /// let pool = Pool::options("strings").build_fn(|| String::with_capacity(64))?;
    /// drop((pool.try_get()?, pool.try_get()?));
    /// assert_eq!(pool.trim(1), 64 + FnPool::<String>::OBJECT_OVERHEAD);
    /// assert_eq!(pool.idle(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim(&self, max_idle: usize) -> usize {
        let freed = Cell::new(0);
        loop {
            let idle = Cell::new(self.idle());
            let judge = |_: &Facts, bytes| {
                if idle.get() <= max_idle {
                    return Sweep::Stop;
                }
                idle.set(idle.get() - 1);
                freed.set(freed.get() + bytes);
                Sweep::Remove
            };
            let removed = self.inner.drop_oldest(usize::MAX, judge, |bytes| {
                idle.set(idle.get() + 1);
                freed.set(freed.get() - bytes);
            });
            // The drop of an object may return another one.
            if removed == 0 {
                return freed.get();
            }
        }
    }

    /// Sets the largest number of objects. Idle objects beyond it are destroyed at once, and those in use when they
    /// are returned. A higher maximum serves waiting requests.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for 0, and for a pool that was made without a maximum.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").max_objects(2).build(String::new)?;
    /// drop((pool.try_get()?, pool.try_get()?));
    /// pool.set_max_objects(1)?;
    /// assert_eq!(pool.idle(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn set_max_objects(&self, objects: usize) -> Result<(), MemoryError> {
        let inner = &*self.inner;
        inner.set_most(objects)
    }

    /// Closes the pool and its children. Idle objects are destroyed, and those in use when they are returned. Requests
    /// that wait, and all later ones, are refused.
    ///
    /// An object that another thread returns at this very moment may stay idle until the ledger reclaims it or the last
    /// handle is dropped. It is not given out.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").build(String::new)?;
    /// let line = pool.try_get()?;
    /// drop(pool.try_get()?);
    /// pool.close();
    /// assert_eq!(pool.idle(), 0);
    /// assert_eq!(pool.try_get().unwrap_err().to_string(), "pool `lines`: closed");
    /// drop(line);
    /// assert_eq!(pool.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn close(&self) {
        if let Some(permits) = &self.inner.permits {
            permits.close();
        }
        // The end of an idle object may panic. The others are closed all the same.
        for_each(self.inner.population.close(), |member| member.close());
    }

    /// Returns whether the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.flags() & flag::CLOSED != 0
    }

    /// Returns the number of idle objects.
    ///
    /// # Complexity
    ///
    /// Linear in the threads that have used the pool. Exact while no thread is in the middle of a call.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inner.shelf.idle()
    }

    /// Returns what the pool has counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").build(String::new)?;
    /// drop(pool.try_get()?);
    /// let line = pool.try_get()?;
    /// let stats = pool.stats();
    /// assert_eq!((stats.taken, stats.hits, stats.made, stats.in_use), (2, 1, 1, 1));
    /// # drop(line);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let Inner { counts, shelf, population, permits, returns, .. } = &*self.inner;
        let read = |counter: &crate::utils::sync::AtomicU64| counter.load(Ordering::Relaxed);
        let idle = shelf.idle();
        let hits = shelf.hits().saturating_sub(read(&counts.not_given));
        let taken = hits + read(&counts.first_taken);
        let (made, destroyed) = (read(&counts.made), read(&counts.destroyed));
        let detached = read(&counts.detached);
        let live = made.saturating_sub(destroyed).saturating_sub(detached);
        let in_use = usize::try_from(live).unwrap_or(usize::MAX).saturating_sub(idle);
        let (waits, wait_classes) = counts.waits();
        let (_, create_classes) = counts.creates();
        PoolStats {
            idle,
            in_use,
            peak: population.peak(),
            max: permits.as_ref().map(Permits::most).filter(|most| *most != usize::MAX),
            waiting: permits.as_ref().map_or(0, Permits::waiting) + returns.len(),
            taken,
            hits,
            returned: taken.saturating_sub(in_use as u64).saturating_sub(detached),
            made,
            destroyed,
            detached,
            expired: read(&counts.expired),
            invalid: read(&counts.invalid),
            create_failures: read(&counts.create_failures),
            timeouts: read(&counts.timeouts),
            waits,
            wait_classes,
            create_classes,
        }
    }

    /// Returns the holders of objects, the longest holder first. Empty unless [recorded](PoolOptions::record_holders).
    /// A holder that is listed for too long is a leak.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").record_holders().build(String::new)?;
    /// let line = pool.try_get()?;
    /// assert!(pool.holders()[0].place.file().ends_with(".rs"));
    /// drop(line);
    /// assert!(pool.holders().is_empty());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.inner.holders()
    }

    /// Returns whether objects could be made and passed their checks lately.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.counts.health(self.inner.settings.failing_after)
    }

    /// Returns the pool's node on the ledger.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Returns the figures of all objects, idle and checked out, in bytes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.budget.usage()
    }
}

impl<L: Lifecycle> Clone for Pool<L> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<L: Lifecycle> fmt::Debug for Pool<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.budget().name())
            .field("stats", &self.stats())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
