//! Pools of objects that are expensive to make: a returned object is kept for the next caller.
//!
//! ```text
//!            try_get                                 drop of the guard
//!  caller ◄────────── newest idle object   ┌───────────────────────────────┐
//!                     or a new one         │ recycle, measure, settle bytes │
//!                                          └──────────────┬────────────────┘
//!   idle:  [oldest … … … newest] ◄──────────── kept ──────┴──► dropped (unfit, too large, full,
//!             └── reclaim, trim                                         budget over its limit)
//! ```
//!
//! A pool has its own node on the ledger, below the budget that you pass. Every object, idle or checked out, has
//! a reservation from that node: for the object's own bytes and for its [slot](Pool::OBJECT_OVERHEAD) in the list
//! of idle objects. The list grows by doubling, so it may take twice the bytes that are charged for the slots. It
//! shrinks as idle objects are reclaimed.
//!
//! If a limit was lowered below the bytes of the pool, idle objects are dropped each time an object is returned,
//! until the rest fits. A closed pool keeps no object.
//!
//! When the ledger needs memory it reclaims idle objects, the least recently used first. It stops at an object
//! that is larger than the bytes that the pool's tenant still borrows. Objects that are checked out are never
//! reclaimed.
//!
//! The functions of the life cycle and the drops of objects run outside the pool's lock, so they may use the pool
//! and the ledger. If one panics, the object is dropped and its bytes are released; the pool can still be used.
//!
//! # When not to use it
//!
//! For small plain values the allocator is as fast. A pool is worth it for objects that take microseconds to
//! make, and for large buffers that would otherwise be allocated and freed often.
#![forbid(unsafe_code)]

mod guard;
mod options;

pub use self::{guard::Pooled, options::PoolOptions};

use crate::{
    advanced::budget::{Budget, Reservation},
    core::{
        ConfigError, MemoryError, MemoryManager, MemoryUsage, Progress, ReclaimClass,
        ReclaimTicket, Reclaimable, Usage, error::Refused,
    },
    integration::traits::Lifecycle,
    utils::sync::{AtomicUsize, Mutex, Ordering, lock},
};
use core::{convert::Infallible, fmt};
use std::{boxed::Box, collections::VecDeque, sync::Arc};

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
/// assert!(budget.usage().used > 4096, "idle it is charged too, with the slot that it lies in");
/// assert_eq!(buffers.try_get()?.capacity(), 4096, "the same buffer, emptied");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Pool<L: Lifecycle> {
    inner: Arc<Inner<L>>,
}

struct Inner<L: Lifecycle> {
    lifecycle: L,
    budget: Budget,
    max_idle: usize,
    max_object_bytes: usize,
    /// The bytes that are charged before an object is made.
    estimate: usize,
    rebuild_cost_micros: u64,
    /// The idle objects, the least recently used first. No foreign code runs while this is locked.
    idle: Mutex<Idle<L>>,
    /// The objects in `idle` and their charges in bytes. Changed under its lock, and read without it.
    idle_objects: AtomicUsize,
    idle_bytes: AtomicUsize,
}

/// A pool whose objects are made by a boxed closure; from [`PoolOptions::build_fn`]. Use it if you must write the
/// pool's type, such as in a struct.
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

type Idle<L> = VecDeque<Slot<<L as Lifecycle>::Object>>;

/// An object with its charge. The fields are dropped in this order: the memory is freed before its bytes are
/// released.
struct Slot<T> {
    object: T,
    charge: Reservation,
    /// The bytes that the object itself had charged when it was last returned.
    charged_by_object: usize,
}

impl<T> Slot<T> {
    /// Returns the charge of an object that owns `bytes` in addition to its own size. The sum saturates: no
    /// budget has so many bytes.
    const fn cost(bytes: usize) -> usize {
        bytes.saturating_add(size_of::<Self>())
    }

    /// Returns the bytes that are released when the slot is dropped.
    const fn size(&self) -> usize {
        self.charge.size().saturating_add(self.charged_by_object)
    }

    /// Charges the object for `bytes` in addition to its own size.
    fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.charge.try_resize(Self::cost(bytes))
    }
}

impl<L: Lifecycle> Pool<L> {
    /// The bytes that are charged for an object in addition to its own heap memory: the size of the object itself
    /// and of its reservation, which are in its slot in the list of idle objects.
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
    pub const OBJECT_OVERHEAD: usize = size_of::<Slot<L::Object>>();

    /// Returns the most recently used idle object, or makes a new one.
    ///
    /// # Errors
    ///
    /// [`PoolError::Refused`] if the ledger has no room for a new object, after cheaper memory was reclaimed;
    /// [`PoolError::Create`] with the life cycle's own error.
    ///
    /// # Complexity
    ///
    /// One short critical section. A new object also takes a reservation and a call of the life cycle's `create`.
    pub fn try_get(&self) -> Result<Pooled<L>, PoolError<L::Error>> {
        let slot = match self.inner.pop_newest() {
            Some(slot) => slot,
            None => self.inner.create()?,
        };
        Ok(Pooled::new(slot, Arc::clone(&self.inner)))
    }

    /// Drops idle objects, the least recently used first, until at most `max_idle` are left. Returns the
    /// released bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("strings").build(|| String::with_capacity(64))?;
    /// drop((pool.try_get()?, pool.try_get()?));
    /// assert_eq!(pool.trim(1), 64 + size_of::<String>() + 24);
    /// assert_eq!(pool.idle(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim(&self, max_idle: usize) -> usize {
        self.inner.drop_oldest(usize::MAX, |objects, _freed| objects > max_idle)
    }

    /// Returns the number of idle objects.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inner.idle_objects.load(Ordering::Relaxed)
    }

    /// Returns the pool's node on the ledger.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Returns the figures of all objects, idle and checked out, in bytes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

impl<L: Lifecycle> Inner<L> {
    fn create(&self) -> Result<Slot<L::Object>, PoolError<L::Error>> {
        let charge = self.budget.try_reserve(Slot::<L::Object>::cost(self.estimate))?;
        let object = self.lifecycle.create().map_err(PoolError::Create)?;
        let mut slot = Slot { object, charge, charged_by_object: 0 };
        slot.try_charge(self.lifecycle.bytes(&slot.object))?;
        Ok(slot)
    }

    /// Keeps a returned object, if it is fit and there is room.
    fn take_back(&self, mut slot: Slot<L::Object>) {
        if !self.lifecycle.recycle(&mut slot.object) {
            return;
        }
        let bytes = self.lifecycle.bytes(&slot.object);
        // An idle object that has grown without a charge gets only bytes that are free: no memory is reclaimed
        // for it. If it does not fit, it is dropped.
        let settled = match Slot::<L::Object>::cost(bytes).checked_sub(slot.charge.size()) {
            Some(more) => slot.charge.try_grow_spare(more).is_ok(),
            None => slot.try_charge(bytes).is_ok(),
        };
        slot.charged_by_object = self.lifecycle.charged_bytes(&slot.object);
        if bytes.saturating_add(slot.charged_by_object) <= self.max_object_bytes && settled {
            // A surplus object is dropped after the lock is released.
            let _surplus = self.push(slot);
        }
        // Checked after the push: so either this check sees a limit that is lowered meanwhile, or the object is
        // already idle when the pool is asked.
        if self.budget.is_over_limit() {
            self.drop_oldest(usize::MAX, |_objects, _freed| self.budget.is_over_limit());
        }
    }

    fn push(&self, slot: Slot<L::Object>) -> Option<Slot<L::Object>> {
        let mut idle = lock(&self.idle);
        if idle.len() >= self.max_idle {
            return Some(slot);
        }
        self.idle_bytes.fetch_add(slot.size(), Ordering::Relaxed);
        idle.push_back(slot);
        self.idle_objects.store(idle.len(), Ordering::Relaxed);
        None
    }

    fn pop_newest(&self) -> Option<Slot<L::Object>> {
        let mut idle = lock(&self.idle);
        let slot = idle.pop_back()?;
        self.publish(&idle, &slot);
        Some(slot)
    }

    /// Removes and returns the least recently used object, if its charge is at most `most`.
    fn pop_oldest(&self, most: usize) -> Option<Slot<L::Object>> {
        let mut idle = lock(&self.idle);
        if idle.front()?.size() > most {
            return None;
        }
        let slot = idle.pop_front()?;
        self.publish(&idle, &slot);
        Some(slot)
    }

    /// Updates the figures that are read without the lock, after `slot` was removed.
    fn publish(&self, idle: &Idle<L>, slot: &Slot<L::Object>) {
        self.idle_bytes.fetch_sub(slot.size(), Ordering::Relaxed);
        self.idle_objects.store(idle.len(), Ordering::Relaxed);
    }

    /// Drops the least recently used idle objects, one at a time and outside the lock, while `go_on(idle, freed)`
    /// is true, up to `most` bytes. Returns the released bytes.
    fn drop_oldest(&self, most: usize, go_on: impl Fn(usize, usize) -> bool) -> usize {
        let mut freed = 0;
        while go_on(self.idle_objects.load(Ordering::Relaxed), freed) {
            let Some(slot) = self.pop_oldest(most - freed) else { break };
            freed += slot.size();
        }
        let mut idle = lock(&self.idle);
        let room = 2 * idle.len();
        if idle.capacity() > 2 * room {
            idle.shrink_to(room);
        }
        freed
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
        let objects = self.idle_objects.load(Ordering::Relaxed) as u64;
        Reclaimable::new(
            self.idle_bytes.load(Ordering::Relaxed),
            objects.saturating_mul(self.rebuild_cost_micros),
        )
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.drop_oldest(ticket.most(), |_objects, freed| freed < ticket.wanted()))
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
            .field("idle", &self.idle())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

/// The error of a pool that could not make an object.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, pool::{Pool, PoolError}};
///
/// let budget = Budget::root("process").limit(100).build()?;
/// let pool = Pool::options("big").budget(&budget).build(|| vec![0u8; 4096])?;
/// assert!(matches!(pool.try_get(), Err(PoolError::Refused(_))));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError<E> {
    /// The ledger has no room for a new object.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The life cycle failed to make the object.
    #[error("the object could not be made")]
    Create(#[source] E),
}

impl From<PoolError<ConfigError>> for MemoryError {
    fn from(error: PoolError<ConfigError>) -> Self {
        match error {
            PoolError::Refused(refused) => refused.into(),
            PoolError::Create(error) => error.into(),
        }
    }
}

impl From<PoolError<Infallible>> for MemoryError {
    fn from(error: PoolError<Infallible>) -> Self {
        match error {
            PoolError::Refused(refused) => refused.into(),
        }
    }
}
