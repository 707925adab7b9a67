use super::{
    Cache, DefaultHashBuilder,
    cell::Cell,
    inner::{Inner, Weigher},
};
use crate::{
    advanced::budget::Budget,
    core::{
        MemoryError,
        config::CacheConfig,
        error::ConfigError,
        types::{ByteSize, exact, saturating_bytes},
    },
    utils::sync::AtomicUsize,
};
use core::{any::type_name, fmt, mem::needs_drop, num::NonZeroUsize};
use crossbeam_utils::CachePadded;
use std::{
    boxed::Box,
    format,
    string::String,
    sync::{Arc, OnceLock},
    thread,
};

/// The most shards of a cache whose options do not set a number. More shards would cost more memory than the waiting
/// that they save is worth.
const DEFAULT_SHARDS_MAX: usize = 64;

/// Shards for each thread that can run at once. With four, two threads rarely meet in one shard.
const SHARDS_PER_THREAD: usize = 4;

/// A small cache gets fewer shards, so that each shard has room for at least this many of the lightest entries.
const ENTRIES_PER_SHARD_MIN: usize = 64;

/// The options of a cache, from [`Cache::options`].
///
/// | option | bytes | at run time |
/// |---|---|---|
/// | `max_bytes`, `budget` | – | a reservation (one compare-and-swap, or a lock and `O(d)` for `d` levels), each time an entry is admitted without evicting entries of the same weight |
/// | `weigher` | – | a call through a pointer for each insertion |
/// | `shards` | about 400 each | – |
/// | `rebuild_cost_micros` | – | – |
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, cache::Cache};
///
/// let tenant = Budget::root("tenant-a").limit(64 << 20).build()?;
/// let pages: Cache<u64, Vec<u8>> = Cache::options("pages")
///     .budget(&tenant)
///     .max_bytes(16 << 20)
///     .weigher(|_, page: &Vec<u8>| size_of::<(u64, Vec<u8>)>() + page.capacity())
///     .rebuild_cost_micros(200)
///     .build()?;
///
/// pages.insert(7, vec![0; 4096]);
/// assert!(tenant.usage().used >= 4096);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "options do nothing until `build`"]
pub struct CacheOptions<K, V, S = DefaultHashBuilder> {
    name: String,
    config: CacheConfig,
    budget: Option<Budget>,
    weigher: Option<Weigher<K, V>>,
    rebuild_cost_micros: u64,
    hasher: S,
}

impl<K, V> CacheOptions<K, V> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            config: CacheConfig::default(),
            budget: None,
            weigher: None,
            rebuild_cost_micros: 1,
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<K, V, S> CacheOptions<K, V, S> {
    /// Sets the most bytes that the entries may weigh in total, including the cache's own
    /// [overhead](Cache::ENTRY_OVERHEAD). The [`weigher`](Self::weigher) returns the weight of an entry.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the budget. The cache makes a child of this budget, and charges entries to the child. The budget may
    /// reclaim entries.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets the function that returns an entry's weight in bytes: the size of the key and the value, and of their
    /// heap memory. It is called once for each inserted value, without a lock.
    ///
    /// Without a weigher an entry weighs `size_of::<(K, V)>()`. A cache whose keys or values have a destructor must have
    /// one: such a type may own heap memory, and the cache would hold more bytes than it counts.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> usize + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Sets the number of shards, a power of two up to 1024. Each shard has a lock. The default is four for each
    /// thread that can run at once, at most 64, and fewer for a small cache.
    pub fn shards(mut self, shards: usize) -> Self {
        self.config.shards = Some(shards);
        self
    }

    /// Sets the time to compute an entry again, in microseconds; 1 by default. When the budget can reclaim memory
    /// from two caches, it asks the one that loses less work for each byte first.
    pub fn rebuild_cost_micros(mut self, micros: u64) -> Self {
        self.rebuild_cost_micros = micros;
        self
    }

    /// Takes `max_bytes` and `shards` from a configuration, where it sets them.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{cache::Cache, core::config::MemoryConfig};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("cache.max_bytes", "1MiB")?;
    /// let cache: Cache<u64, u64> = Cache::options("squares").config(&config.cache).build()?;
    /// assert_eq!(cache.budget().limit(), Some(1 << 20));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn config(mut self, config: &CacheConfig) -> Self {
        self.config.max_bytes = config.max_bytes.or(self.config.max_bytes);
        self.config.shards = config.shards.or(self.config.shards);
        self
    }

    /// Sets the hasher of the keys. The default is fast, and seeded separately for each cache.
    pub fn hasher<H>(self, hasher: H) -> CacheOptions<K, V, H> {
        let Self { name, config, budget, weigher, rebuild_cost_micros, .. } = self;
        CacheOptions { name, config, budget, weigher, rebuild_cost_micros, hasher }
    }
}

impl<K, V, S> CacheOptions<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Makes the cache and registers it with its budget. The budget holds only a weak reference, so dropping the
    /// cache unregisters it.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] if the name is empty, if there is neither `max_bytes` nor a budget, if no entry would fit into
    ///   `max_bytes`, or if the number of shards is not a power of two from 1 to 1024. Also if there is no `weigher`, and
    ///   keys or values have a destructor, as all types that own heap memory have.
    /// - [`Refused`](crate::budget::Refused) if the budget is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let error = Cache::<u64, String>::options("users").max_bytes(1 << 20).build().unwrap_err();
    /// assert!(error.to_string().starts_with("option `cache.weigher` of `users`"));
    /// ```
    pub fn build(self) -> Result<Cache<K, V, S>, MemoryError> {
        let Self { name, config, budget, weigher, rebuild_cost_micros, hasher } = self;
        if name.is_empty() {
            return Err(ConfigError::new("cache.name", "", "a name that is not empty").into());
        }
        if weigher.is_none() {
            let kinds =
                [(needs_drop::<K>(), type_name::<K>()), (needs_drop::<V>(), type_name::<V>())];
            if let Some((_, kind)) = kinds.into_iter().find(|(needs_drop, _)| *needs_drop) {
                let allowed = format!(
                    "a function: `{kind}` may own heap memory, which `size_of` does not count"
                );
                return Err(ConfigError::new("cache.weigher", "nothing", allowed).of(name).into());
            }
        }
        let max_bytes = config.max_bytes.map(saturating_bytes);
        let lightest = Cache::<K, V, S>::ENTRY_OVERHEAD;
        if max_bytes.is_none() && budget.is_none() {
            let allowed = format!("at least {}, or a budget", exact(lightest));
            return Err(ConfigError::new("cache.max_bytes", "nothing", allowed).of(name).into());
        }
        config.validate(lightest).map_err(|error| error.of(&name))?;
        let default_entry = lightest.saturating_add(size_of::<(K, V)>());
        let shards = config.shards.unwrap_or_else(|| default_shards(max_bytes, default_entry));

        let budget = Budget::below(budget.as_ref(), "cache", &name, max_bytes)?;
        let cell = || CachePadded::new(Cell::new(budget.reservation()));
        let inner = Arc::new(Inner {
            cells: core::iter::repeat_with(cell).take(shards).collect(),
            hasher,
            weigher,
            rebuild_cost_micros,
            turn: AtomicUsize::new(0),
            budget,
        });
        inner.budget.register(&inner);
        Ok(Cache { inner })
    }
}

impl<K, V, S> fmt::Debug for CacheOptions<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("budget", &self.budget)
            .field("rebuild_cost_micros", &self.rebuild_cost_micros)
            .finish_non_exhaustive()
    }
}

fn default_shards(max_bytes: Option<usize>, default_entry: usize) -> usize {
    // Read once: it takes 50 µs, which a service with a cache for each tenant would pay for each.
    static THREADS: OnceLock<usize> = OnceLock::new();
    let threads =
        THREADS.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));
    let wanted = (threads * SHARDS_PER_THREAD).min(DEFAULT_SHARDS_MAX).next_power_of_two();
    let entries = max_bytes.map_or(usize::MAX, |bytes| bytes / default_entry);
    let filled = (entries / ENTRIES_PER_SHARD_MIN).max(1);
    // Rounds down to a power of two, so that every shard can be filled.
    wanted.min(1 << filled.ilog2())
}
