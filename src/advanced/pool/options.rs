use super::{
    FnPool, Pool, flag,
    inner::{Inner, Settings},
    local::{LocalPool, LocalSettings},
    population::{Member, Population},
    shelf::Shelf,
    stats::Counts,
};
use crate::{
    advanced::budget::{Budget, Permits},
    core::{
        ByteSize, ConfigError, Label, MemoryError, MemoryUsage, Resettable,
        config::PoolConfig,
        error::{NoObject, RefusedReason},
        types::saturating_bytes,
    },
    integration::traits::Lifecycle,
    utils::{
        sync::{AtomicU32, AtomicUsize, Mutex},
        wakers::Wakers,
    },
};
use core::time::Duration;
use std::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};

/// Options for a new [`Pool`]; from [`Pool::options`].
///
/// # Examples
///
/// ```
/// use nebula_memory::pool::Pool;
///
/// let pool = Pool::options("buffers")
///     .max_idle(4)
///     .max_object_bytes(1 << 20)
///     .build(Vec::<u8>::new)?;
///
/// for _ in 0..3 {
///     drop((pool.try_get()?, pool.try_get()?));
/// }
/// assert_eq!(pool.idle(), 2);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `build`"]
pub struct PoolOptions {
    name: Box<str>,
    budget: Option<Budget>,
    parent: Option<Parent>,
    config: PoolConfig,
    estimate: usize,
    rebuild_cost_micros: u64,
    create_timeout: Option<Duration>,
    failing_after: u32,
    is_fifo: bool,
    records_holders: bool,
}

/// The pool that a child takes from.
#[derive(Clone)]
struct Parent {
    name: Label,
    permits: Option<Permits>,
    population: Arc<Population>,
}

impl Parent {
    fn closed(&self) -> MemoryError {
        let name = self.name.as_str();
        NoObject::new(name, RefusedReason::Closed, usize::MAX, Duration::ZERO).into()
    }
}

impl core::fmt::Debug for Parent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Parent").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// Failures in a row after which a pool is failing.
const FAILING_AFTER: u32 = 5;

impl Pool<fn() -> Vec<u8>> {
    /// Returns options for a pool; `name` is the name of its node on the ledger.
    pub fn options(name: &str) -> PoolOptions {
        PoolOptions {
            name: name.into(),
            budget: None,
            parent: None,
            config: PoolConfig::default(),
            estimate: 0,
            rebuild_cost_micros: 1,
            create_timeout: None,
            failing_after: FAILING_AFTER,
            is_fifo: false,
            records_holders: false,
        }
    }
}

impl<L: Lifecycle> Pool<L> {
    /// Returns options for a pool below this one. Its objects count to this pool's maximum too, its bytes to this
    /// pool's budget, and it is closed with this pool.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let all = Pool::options("connections").max_objects(3).build(String::new)?;
    /// let reports = all.child("reports").max_objects(2).build(String::new)?;
    /// let held = (reports.try_get()?, reports.try_get()?);
    /// assert!(reports.try_get().is_err(), "its own maximum");
    /// let other = all.try_get()?;
    /// assert!(all.try_get().is_err(), "three of all");
    /// # drop((held, other));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn child(&self, name: &str) -> PoolOptions {
        let Inner { permits, population, budget, .. } = &*self.inner;
        let parent = Parent {
            name: Label::new(budget.name()),
            permits: permits.clone(),
            population: Arc::clone(population),
        };
        PoolOptions { budget: Some(budget.clone()), parent: Some(parent), ..Pool::options(name) }
    }
}

impl PoolOptions {
    /// Sets the parent of the pool's node. Without one the node is a root, and requests of other components do
    /// not reclaim the pool's memory. The node of a [child](Pool::child) is below that of its pool by default.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets the limit on the bytes of all objects together, idle and checked out; unlimited by default.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the largest number of objects, idle and checked out; unlimited by default. It is never exceeded. A pool
    /// with a maximum has [waiting](super#waiting), and a call takes about 5 ns more.
    pub const fn max_objects(mut self, objects: usize) -> Self {
        self.config.max_objects = Some(objects);
        self
    }

    /// Sets the largest number of idle objects; unlimited by default, because the ledger reclaims idle objects
    /// when others need the memory.
    pub const fn max_idle(mut self, objects: usize) -> Self {
        self.config.max_idle = Some(objects);
        self
    }

    /// Sets the number of idle objects that [maintenance](Pool::maintain) provides ahead of time, and that an idle
    /// time-out leaves; 0 by default. The ledger may reclaim them.
    pub const fn min_idle(mut self, objects: usize) -> Self {
        self.config.min_idle = Some(objects);
        self
    }

    /// Sets the largest size in bytes of an object that is kept; unlimited by default. A larger object is dropped
    /// when it is returned, so that one large request does not keep its memory for ever.
    pub const fn max_object_bytes(mut self, bytes: usize) -> Self {
        self.config.max_object_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets how long an object may be idle; without end by default. An object that was idle for longer is destroyed
    /// by [maintenance](Pool::maintain), or when it would be given out. It costs the reading of a clock in each call.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout_ms = Some(whole_milliseconds(timeout));
        self
    }

    /// Sets the age at which an object is not used any more; without end by default. Each object ends up to a tenth
    /// earlier, so that objects that were made together are not all made again together. Otherwise like
    /// [`idle_timeout`](Self::idle_timeout).
    pub fn max_age(mut self, age: Duration) -> Self {
        self.config.max_age_ms = Some(whole_milliseconds(age));
        self
    }

    /// Sets how long an [`AsyncFactory`](crate::integration::traits::AsyncFactory) may take to make an object; without
    /// end by default. Then its future is dropped. A factory that blocks its thread cannot be interrupted.
    pub const fn create_timeout(mut self, timeout: Duration) -> Self {
        self.create_timeout = Some(timeout);
        self
    }

    /// Sets the number of failures in a row after which the pool's [health](Pool::health) is
    /// [`Failing`](super::Health::Failing); 5 by default.
    pub const fn failing_after(mut self, failures: u32) -> Self {
        self.failing_after = failures;
        self
    }

    /// Gives out the object that has been idle for longest, so that all are used in turn. By default it is the one that
    /// was used last, whose memory is still in the processor's caches. Objects in turn are kept in one list for all
    /// threads, behind a lock.
    pub const fn in_turn(mut self) -> Self {
        self.is_fifo = true;
        self
    }

    /// Records who takes an object, where and when, for [`Pool::holders`] and for the errors of requests that wait in
    /// vain. It costs a lock and an allocation in each call.
    pub const fn record_holders(mut self) -> Self {
        self.records_holders = true;
        self
    }

    /// Sets the bytes that are charged before an object is made, at least. By default they are those of the object that
    /// was made last, and 0 for the first one. Afterwards the charge is set to the object's measured size. With an
    /// estimate that is large enough, no memory is allocated before it is charged.
    pub const fn estimate(mut self, bytes: usize) -> Self {
        self.estimate = bytes;
        self
    }

    /// Sets the time in microseconds to make an object again; 1 by default. Of two pools of equal priority the
    /// cheaper one is reclaimed first.
    pub const fn rebuild_cost_micros(mut self, micros: u64) -> Self {
        self.rebuild_cost_micros = micros;
        self
    }

    /// Sets every option that `config` has a value for.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{core::config::MemoryConfig, pool::Pool};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("pool.max_idle", "0")?;
    /// let pool = Pool::options("buffers").config(&config.pool).build(Vec::<u8>::new)?;
    /// drop(pool.try_get()?);
    /// assert_eq!(pool.idle(), 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn config(mut self, config: &PoolConfig) -> Self {
        let ours = &mut self.config;
        ours.max_idle = config.max_idle.or(ours.max_idle);
        ours.max_object_bytes = config.max_object_bytes.or(ours.max_object_bytes);
        ours.max_bytes = config.max_bytes.or(ours.max_bytes);
        ours.max_objects = config.max_objects.or(ours.max_objects);
        ours.min_idle = config.min_idle.or(ours.min_idle);
        ours.idle_timeout_ms = config.idle_timeout_ms.or(ours.idle_timeout_ms);
        ours.max_age_ms = config.max_age_ms.or(ours.max_age_ms);
        self
    }

    /// Makes an empty pool, and registers it with its budget.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for an empty name, for a limit of 0, for a `min_idle` above another
    /// limit, and for a budget or a pool with 63 others above it; [`NoObject`] if the parent is closed.
    pub fn build<L>(self, lifecycle: L) -> Result<Pool<L>, MemoryError>
    where
        L: Lifecycle + Send + Sync + 'static,
        L::Object: Send + 'static,
    {
        self.build_with(|_| lifecycle)
    }

    /// Like [`build`](Self::build), for objects that charge their memory themselves. `lifecycle` is called with
    /// the pool's node, which they charge.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// A pool of arenas. An arena that is returned is reset and keeps its chunks until the ledger needs the
    /// memory:
    ///
    /// ```
    /// use nebula_memory::{Arena, Budget, Pool, arena::ArenaOptions};
    ///
    /// let process = Budget::root("process").limit(64 << 10).build()?;
    /// let arenas: Pool<ArenaOptions> = Pool::options("arenas")
    ///     .budget(&process)
    ///     .build_with(|node| Arena::options().budget(node))?;
    ///
    /// let arena = arenas.try_get()?;
    /// arena.alloc([0_u8; 32 << 10]);
    /// drop(arena);
    /// assert_eq!(arenas.idle(), 1);
    /// assert!(process.usage().used > 32 << 10);
    ///
    /// let large = process.try_reserve(60 << 10)?;
    /// assert_eq!(arenas.idle(), 0, "the idle arena gave way");
    /// # drop(large);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_with<L>(self, lifecycle: impl FnOnce(&Budget) -> L) -> Result<Pool<L>, MemoryError>
    where
        L: Lifecycle + Send + Sync + 'static,
        L::Object: Send + 'static,
    {
        self.config.validate().map_err(|error| error.of(&*self.name))?;
        let config = self.config;
        let max_bytes = config.max_bytes.map(saturating_bytes);
        let budget = Budget::below(self.budget.as_ref(), "pool", &self.name, max_bytes)?;
        budget.passes_between_tasks();
        let parent = self.parent.as_ref();
        if let Some(parent) = parent
            && parent.population.is_closed()
        {
            return Err(parent.closed());
        }
        let permits = match (parent.and_then(|parent| parent.permits.as_ref()), config.max_objects)
        {
            (None, None) => None,
            (None, Some(most)) => Some(Permits::new(&budget, most)),
            (Some(above), most) => Some(above.part(&self.name, most)?),
        };
        let population = parent.map(|parent| Arc::clone(&parent.population));
        let flags = [
            (permits.is_some(), flag::BOUNDED),
            (config.max_idle.is_some(), flag::CAPPED),
            (config.idle_timeout_ms.is_some() || config.max_age_ms.is_some(), flag::TIMED),
            (self.records_holders, flag::RECORDED),
            (self.is_fifo, flag::IN_TURN),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum();
        let inner = Arc::new(Inner {
            lifecycle: lifecycle(&budget),
            made: budget.now(),
            last_bytes: AtomicUsize::new(0),
            rounds: AtomicU32::new(0),
            settings: Settings {
                max_idle: config.max_idle.unwrap_or(usize::MAX),
                min_idle: config.min_idle.unwrap_or(0),
                max_object_bytes: config.max_object_bytes.map_or(usize::MAX, saturating_bytes),
                estimate: self.estimate,
                rebuild_cost_micros: self.rebuild_cost_micros,
                idle_timeout: config.idle_timeout_ms.map(Duration::from_millis),
                max_age: config.max_age_ms.map(Duration::from_millis),
                create_timeout: self.create_timeout,
                failing_after: self.failing_after,
            },
            budget,
            flags: AtomicU32::new(flags),
            shelf: Shelf::new(self.is_fifo),
            permits,
            population: Population::new(config.max_objects, population),
            capped: AtomicUsize::new(0),
            returns: Wakers::default(),
            counts: Counts::new(),
            holders: Mutex::new(BTreeMap::new()),
            timer: Mutex::new(None),
        });
        inner.budget.register(&inner);
        let member: Weak<dyn Member> = Arc::downgrade(&inner) as Weak<dyn Member>;
        // The parent may be closed meanwhile.
        if !inner.population.join(&member)
            && let Some(parent) = &self.parent
        {
            return Err(parent.closed());
        }
        Ok(Pool { inner })
    }

    /// Makes a pool for one thread.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build), and [`ConfigError`] for an option that a local pool does not have: a minimum of
    /// idle objects, a time limit of any kind, objects in turn, recorded holders, and a parent.
    pub fn build_local<L: Lifecycle>(self, lifecycle: L) -> Result<LocalPool<L>, MemoryError> {
        self.config.validate().map_err(|error| error.of(&*self.name))?;
        let PoolConfig { min_idle, idle_timeout_ms, max_age_ms, .. } = self.config;
        let not_local = [
            ("pool.min_idle", min_idle.is_some()),
            ("pool.idle_timeout_ms", idle_timeout_ms.is_some()),
            ("pool.max_age_ms", max_age_ms.is_some()),
            ("pool.create_timeout", self.create_timeout.is_some()),
            ("pool.in_turn", self.is_fifo),
            ("pool.record_holders", self.records_holders),
            ("pool.parent", self.parent.is_some()),
        ];
        if let Some((key, _)) = not_local.into_iter().find(|(_, is_set)| *is_set) {
            let allowed = "unset: a pool of one thread does not have this option";
            return Err(ConfigError::new(key, "set", allowed).of(self.name).into());
        }
        let PoolConfig { max_idle, max_objects, max_object_bytes, max_bytes, .. } = self.config;
        let max_bytes = max_bytes.map(saturating_bytes);
        let budget = Budget::below(self.budget.as_ref(), "pool", &self.name, max_bytes)?;
        let settings = LocalSettings {
            max_idle: max_idle.unwrap_or(usize::MAX),
            max_objects: max_objects.unwrap_or(usize::MAX),
            max_object_bytes: max_object_bytes.map_or(usize::MAX, saturating_bytes),
            estimate: self.estimate,
        };
        Ok(LocalPool::new(lifecycle, budget, &settings))
    }

    /// Like [`build`](Self::build), with a boxed closure as the life cycle: the pool's type names only the type
    /// of the objects.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    pub fn build_fn<T>(
        self,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Result<FnPool<T>, MemoryError>
    where
        T: Resettable + MemoryUsage + Send + 'static,
    {
        self.build(Box::new(make))
    }
}

/// A duration in milliseconds: the next whole number, so that a short one is not 0.
fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
