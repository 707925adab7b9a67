use super::{FnPool, Inner, Pool};
use crate::{
    advanced::budget::Budget,
    core::{
        ByteSize, MemoryError, MemoryUsage, Resettable, config::PoolConfig, types::saturating_bytes,
    },
    integration::traits::Lifecycle,
    utils::sync::{AtomicUsize, Mutex},
};
use std::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};

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
    config: PoolConfig,
    estimate: usize,
    rebuild_cost_micros: u64,
}

impl Pool<fn() -> Vec<u8>> {
    /// Returns options for a pool; `name` is the name of its node on the ledger.
    pub fn options(name: &str) -> PoolOptions {
        PoolOptions {
            name: name.into(),
            budget: None,
            config: PoolConfig::default(),
            estimate: 0,
            rebuild_cost_micros: 1,
        }
    }
}

impl PoolOptions {
    /// Sets the parent of the pool's node. Without one the node is a root, and requests of other components do
    /// not reclaim the pool's memory.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets the limit on the bytes of all objects together, idle and checked out; unlimited by default.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the largest number of idle objects; unlimited by default, because the ledger reclaims idle objects
    /// when others need the memory.
    pub const fn max_idle(mut self, objects: usize) -> Self {
        self.config.max_idle = Some(objects);
        self
    }

    /// Sets the largest size in bytes of an object that is kept; unlimited by default. A larger object is dropped
    /// when it is returned, so that one large request does not keep its memory for ever.
    pub const fn max_object_bytes(mut self, bytes: usize) -> Self {
        self.config.max_object_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the bytes that are charged before an object is made; 0 by default. Afterwards the charge is set to
    /// the object's measured size. With an estimate that is large enough, no memory is allocated before it is
    /// charged.
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
        self
    }

    /// Makes an empty pool, and registers it with its budget.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for an empty name, for a `max_bytes` of 0, and for
    /// a budget with 63 nodes above it.
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
        self.config.validate()?;
        let PoolConfig { max_idle, max_object_bytes, max_bytes } = self.config;
        let max_bytes = max_bytes.map(saturating_bytes);
        let budget = Budget::below(self.budget.as_ref(), &self.name, max_bytes)?;
        let inner = Arc::new(Inner {
            lifecycle: lifecycle(&budget),
            budget,
            max_idle: max_idle.unwrap_or(usize::MAX),
            max_object_bytes: max_object_bytes.map_or(usize::MAX, saturating_bytes),
            estimate: self.estimate,
            rebuild_cost_micros: self.rebuild_cost_micros,
            idle: Mutex::new(VecDeque::new()),
            idle_objects: AtomicUsize::new(0),
            idle_bytes: AtomicUsize::new(0),
        });
        inner.budget.register(&inner);
        Ok(Pool { inner })
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
