//! Objects that are expensive to make, kept for the next who needs one.
//!
//! ```text
//!            try_get                                 drop of the guard
//!  caller ◄────────── newest idle object   ┌───────────────────────────────┐
//!                     or a new one         │ recycle, measure, settle bytes │
//!                                          └──────────────┬────────────────┘
//!   idle:  [oldest … … … newest] ◄──────────── kept ──────┴──► dropped (unfit, too large, full)
//!             └── reclaim, trim
//! ```
//!
//! A pool has a node of its own on the ledger, below the budget that it is given, and every object
//! carries a reservation from it, whether idle or checked out: of the bytes that the object holds and
//! of the [slot](Pool::OBJECT_OVERHEAD) that it lies in. The list of slots grows by doubling, so it may take
//! twice what is charged for them, and shrinks as idle objects are given back.
//!
//! If a limit was lowered below the bytes that the pool holds, idle objects are dropped as objects come back,
//! until the rest fits. A closed pool keeps none.
//!
//! Under pressure idle objects are given back, the ones unused for longest first, unless the next is
//! larger than what its tenant borrows beyond its guarantee; what is checked out never is.
//!
//! The life cycle's functions and the objects' drops run outside the pool's lock, so they may use
//! the pool and the ledger freely. If one panics, the object is dropped and its bytes are given
//! back; the pool goes on.
//!
//! # When not to use it
//!
//! For small plain values the allocator is as fast; a pool pays for what costs microseconds to make
//! or what would be allocated and freed in large pieces all the time.
#![forbid(unsafe_code)]

mod guard;
mod options;

pub use self::{guard::Pooled, options::PoolOptions};

use crate::{
    advanced::budget::{Budget, Reservation},
    core::{
        MemoryError, MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket,
        Reclaimable, Usage, error::Refused,
    },
    integration::traits::Lifecycle,
    utils::sync::{AtomicUsize, Mutex, Ordering, lock},
};
use core::{convert::Infallible, fmt};
use std::{collections::VecDeque, sync::Arc};

/// A shared pool of objects. Cloning the handle is a reference count.
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
    keep_up_to: usize,
    /// Bytes charged before an object is made.
    estimate: usize,
    recreate_cost: u64,
    /// Oldest first. No foreign code runs while this is locked.
    idle: Mutex<Idle<L>>,
    /// What `idle` holds, in objects and bytes; changed under its lock, read without.
    idle_objects: AtomicUsize,
    idle_bytes: AtomicUsize,
}

type Idle<L> = VecDeque<Slot<<L as Lifecycle>::Object>>;

/// An object with what it is charged. Dropped in this order: first the memory goes, then its bytes
/// are given back.
struct Slot<T> {
    object: T,
    charge: Reservation,
}

impl<T> Slot<T> {
    /// Bytes charged for an object that holds `bytes` beside itself. A sum that overflows is more
    /// than any budget has.
    const fn cost(bytes: usize) -> usize {
        bytes.saturating_add(size_of::<Self>())
    }

    /// Charges the object for `bytes` beside itself.
    fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.charge.try_resize(Self::cost(bytes))
    }
}

impl<L: Lifecycle> Pool<L> {
    /// Bytes that an object is charged beside those that it holds: the object itself and its
    /// reservation, in the list of those that are idle.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// type Buffers = Pool<fn() -> Vec<u8>>;
    ///
    /// let pool: Buffers = Pool::options("buffers").build((|| vec![0; 100]) as fn() -> _)?;
    /// let buffer = pool.try_get()?;
    /// assert_eq!(pool.usage().used, 100 + Buffers::OBJECT_OVERHEAD);
    /// # drop(buffer);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const OBJECT_OVERHEAD: usize = size_of::<Slot<L::Object>>();

    /// An idle object, the one used last, or a new one.
    ///
    /// # Errors
    ///
    /// [`PoolError::Refused`] where the ledger has no room for a new object, after cheaper memory
    /// was given back; [`PoolError::Create`] with the life cycle's own error.
    ///
    /// # Complexity
    ///
    /// One short critical section; for a new object also a reservation and the life cycle's
    /// `create`.
    ///
    /// # Examples
    ///
    /// See [`Pool`].
    pub fn try_get(&self) -> Result<Pooled<L>, PoolError<L::Error>> {
        let slot = match self.inner.pop_newest() {
            Some(slot) => slot,
            None => self.inner.create()?,
        };
        Ok(Pooled::new(slot, Arc::clone(&self.inner)))
    }

    /// Drops idle objects, the oldest first, until at most `max_idle` are left. Returns the bytes
    /// that were given back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("strings").build(|| String::with_capacity(64))?;
    /// drop((pool.try_get()?, pool.try_get()?));
    /// assert_eq!(pool.trim(1), 64 + size_of::<String>() + 16);
    /// assert_eq!(pool.idle(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim(&self, max_idle: usize) -> usize {
        self.inner.drop_oldest(usize::MAX, |objects, _freed| objects > max_idle)
    }

    /// Objects that wait to be used again.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inner.idle_objects.load(Ordering::Relaxed)
    }

    /// The pool's node on the ledger.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// What all objects hold, idle and checked out.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

impl<L: Lifecycle> Inner<L> {
    fn create(&self) -> Result<Slot<L::Object>, PoolError<L::Error>> {
        let charge = self.budget.try_reserve(Slot::<L::Object>::cost(self.estimate))?;
        let object = self.lifecycle.create().map_err(PoolError::Create)?;
        let mut slot = Slot { object, charge };
        slot.try_charge(self.lifecycle.bytes(&slot.object))?;
        Ok(slot)
    }

    /// Keeps an object that was given back, if it is fit and there is room.
    fn take_back(&self, mut slot: Slot<L::Object>) {
        if !self.lifecycle.recycle(&mut slot.object) {
            return;
        }
        let bytes = self.lifecycle.bytes(&slot.object);
        // What an idle object grew by unannounced is not worth taking from others: what does not
        // fit is dropped.
        let settled = match Slot::<L::Object>::cost(bytes).checked_sub(slot.charge.size()) {
            Some(more) => slot.charge.try_grow_spare(more).is_ok(),
            None => slot.try_charge(bytes).is_ok(),
        };
        if bytes <= self.keep_up_to && settled {
            // The surplus is dropped after the lock is released.
            let _surplus = self.push(slot);
        }
        // Asked after the push: a limit that is lowered meanwhile finds the object idle, or is seen here.
        if self.budget.is_over_limit() {
            self.drop_oldest(usize::MAX, |_objects, _freed| self.budget.is_over_limit());
        }
    }

    fn push(&self, slot: Slot<L::Object>) -> Option<Slot<L::Object>> {
        let mut idle = lock(&self.idle);
        if idle.len() >= self.max_idle {
            return Some(slot);
        }
        self.idle_bytes.fetch_add(slot.charge.size(), Ordering::Relaxed);
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

    /// Takes out the oldest, if it is charged `most` at most.
    fn pop_oldest(&self, most: usize) -> Option<Slot<L::Object>> {
        let mut idle = lock(&self.idle);
        if idle.front()?.charge.size() > most {
            return None;
        }
        let slot = idle.pop_front()?;
        self.publish(&idle, &slot);
        Some(slot)
    }

    /// Tells the readers without the lock that `slot` was taken out.
    fn publish(&self, idle: &Idle<L>, slot: &Slot<L::Object>) {
        self.idle_bytes.fetch_sub(slot.charge.size(), Ordering::Relaxed);
        self.idle_objects.store(idle.len(), Ordering::Relaxed);
    }

    /// Drops the oldest idle objects one by one, outside the lock, while `go_on(idle, freed)`, and
    /// `most` bytes of them at most.
    fn drop_oldest(&self, most: usize, go_on: impl Fn(usize, usize) -> bool) -> usize {
        let mut freed = 0;
        while go_on(self.idle_objects.load(Ordering::Relaxed), freed) {
            let Some(slot) = self.pop_oldest(most - freed) else { break };
            freed += slot.charge.size();
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
        ReclaimClass::Pool
    }

    fn reclaimable(&self) -> Reclaimable {
        let objects = self.idle_objects.load(Ordering::Relaxed) as u64;
        Reclaimable::new(
            self.idle_bytes.load(Ordering::Relaxed),
            objects.saturating_mul(self.recreate_cost),
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

/// Why a pool has no object to give.
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
    /// The life cycle could not make one.
    #[error("the object could not be made")]
    Create(#[source] E),
}

impl From<PoolError<Infallible>> for MemoryError {
    fn from(error: PoolError<Infallible>) -> Self {
        match error {
            PoolError::Refused(refused) => refused.into(),
        }
    }
}
