//! A concurrent, weighted cache that is charged to a budget and gives memory back when asked.
//!
//! ```text
//! Cache ── Arc ──► hasher, weigher, budget node (limit = max_bytes)
//!                  │
//!                  ├─ shard 0   RwLock ┬ table   hash ──► index, 4 bytes
//!                  ├─ shard 1          ├ slab    slots that stay where they are, linked into
//!                  ┊                   │         a queue, the oldest first
//!                  └─ shard n          ├ held    Reservation of exactly the entries' bytes
//!                                      └ flights loaders under way
//! ```
//!
//! # What holds at every instant
//!
//! - The entries of a cache together weigh at most `max_bytes`, whatever threads do: each is
//!   charged to the cache's budget node before it can be seen, and the node admits nothing beyond
//!   its limit. Without a budget of the caller's the node is a root of its own.
//! - An entry that is not heavier than the whole cache is admitted: entries are evicted from the
//!   shard it belongs to, and then from the others in turn, until it fits. Several that are put in
//!   at once and do not fit together may see one another rejected.
//! - When the cache is gone, its budget counts none of its bytes.
//! - Hits and misses are the look-ups made, exactly.
//!
//! # What an entry is charged
//!
//! What the weigher says, and [`Cache::ENTRY_OVERHEAD`] for the slot and the table, reckoned for
//! the moment just after they have grown, so that a filling cache never takes more than it is
//! charged. As entries leave, slots and table are given back step by step; until then they take at
//! most about three times the structure of what is left, and 18 slots a shard.
//!
//! The bytes are released when an entry leaves the cache. A clone that a caller still holds, of an
//! `Arc` for instance, is not the cache's any more and is not charged.
//!
//! # What goes first
//!
//! First in, first out, with reinsertion (the CLOCK of Corbató, 1968): an entry that was hit since
//! the hand last passed goes to the young end once for each hit, up to three; the first without a
//! hit is evicted. A hit writes one byte of the entry, at most three times between two passes of
//! the hand, and one counter of the shard; it moves nothing, so readers share the lock. An eviction
//! looks at 64 entries at most.
//!
//! # When the budget refuses
//!
//! A cache takes only what is spare: it does not push others out while it has entries of its own.
//! It evicts its own until the new one fits, but none where not even all of them would make room.
//! Only an empty cache asks the budget to take memory back from others, once. If that fails, the
//! value is rejected: counted, and handed back, but never an error. The other way round, the cache
//! gives way to any reservation of the budget that does not fit, entry by entry, but for an entry
//! that is heavier than what its tenant borrows beyond its guarantee.
//!
//! If a limit was lowered below the bytes of the cache, and they could not be reclaimed at that moment, the
//! next value that is put in evicts entries until the rest fits. A closed cache evicts all.
//!
//! # The caller's code
//!
//! Loaders, weighers, `Hash` and `Drop` of keys and values run under no lock of the cache: they may
//! use it. `Eq` of keys and `Clone` of values run under the lock of one shard, for a look-up in the
//! shard's own storage: **they must not use the same cache**, or they may wait for themselves. Keep
//! `Clone` cheap, with `Arc` around what is large.
//!
//! A panic in any of them leaves the cache whole and every byte accounted for, and unwinds into the
//! call that ran it. Nothing is poisoned.
//!
//! # When not to use it
//!
//! For one thread, where no lock is needed. For a handful of values that must never be evicted: a
//! map does that. Entries do not expire yet by age: remove them.

mod cell;
mod flight;
mod inner;
mod options;
mod shard;
mod slab;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;

pub use self::{options::CacheOptions, stats::CacheStats};
pub use hashbrown::DefaultHashBuilder;

use self::inner::Inner;
use crate::{
    advanced::budget::Budget,
    core::{MemoryUsage, Usage},
};
use core::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash},
};
use std::{borrow::ToOwned, sync::Arc};

/// A handle to a cache. Cloning is a reference count.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, cache::Cache};
/// use std::num::ParseIntError;
///
/// let tenant = Budget::root("tenant-a").limit(1 << 20).build()?;
/// let parsed: Cache<String, u64> = Cache::options("parsed").budget(&tenant).build()?;
///
/// let value: Result<u64, ParseIntError> = parsed.get_or_insert_with("42", || "42".parse());
/// assert_eq!(value, Ok(42));
/// assert_eq!(parsed.get("42"), Some(42));
///
/// // Another component needs the memory: the cache gives way.
/// let urgent = tenant.try_reserve(1 << 20)?;
/// assert!(parsed.is_empty());
/// # drop(urgent);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Cache<K, V, S = DefaultHashBuilder> {
    inner: Arc<Inner<K, V, S>>,
}

impl<K, V> Cache<K, V> {
    /// Starts the description of a cache that reports call `name`.
    ///
    /// # Examples
    ///
    /// See [`CacheOptions`].
    pub fn options(name: &str) -> CacheOptions<K, V> {
        CacheOptions::new(name)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// A clone of the value under `key`. Counts as a look-up and, if found, as a use.
    ///
    /// # Complexity
    ///
    /// Constant. The key is borrowed, and nothing is allocated.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<String, u32> = Cache::options("lengths").max_bytes(1 << 20).build()?;
    /// cache.insert("four".to_string(), 4);
    /// assert_eq!(cache.get("four"), Some(4));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.get(self.inner.hash(key), key)
    }

    /// A clone of the value under `key`, which `load` makes where there is none.
    ///
    /// Of several callers that miss the same key at once, one runs its loader and the others wait
    /// for it. If it fails or panics, that is its caller's affair, and one of the others runs its
    /// own. Every caller gets the value, also where it is not admitted.
    ///
    /// If the key is inserted or removed, or the cache cleared, while the loader runs, the loaded
    /// value goes to its caller but not into the cache, which may know better by now.
    ///
    /// A loader may use the cache. One that asks for its own key, or closes a circle of threads
    /// that wait for one another's loaders, runs without waiting, so that nobody waits for ever. A
    /// loader that hands such a request to a thread of its own and joins it is not seen.
    ///
    /// The key is borrowed: a hit allocates nothing, and a miss makes the owned key once. Where `K`
    /// has a cheap clone, such as `Arc<str>`, look up by `&K`.
    ///
    /// # Errors
    ///
    /// What `load` returns; the type is the caller's own.
    ///
    /// # Complexity
    ///
    /// Constant, but for the loader, plus the evictions that admit the entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<String, u32> = Cache::options("lengths").max_bytes(1 << 20).build()?;
    /// let refused: Result<u32, &str> = cache.get_or_insert_with("four", || Err("not now"));
    /// assert_eq!(refused, Err("not now"));
    /// let loaded: Result<u32, &str> = cache.get_or_insert_with("four", || Ok(4));
    /// assert_eq!(loaded, Ok(4));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn get_or_insert_with<Q, E>(
        &self,
        key: &Q,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.inner.hash(key);
        match self.inner.get(hash, key) {
            Some(value) => Ok(value),
            None => self.inner.load(hash, key, load),
        }
    }

    /// Puts `value` under `key`, in place of what was there.
    ///
    /// The new value is charged before the old one is let go. Where the two do not fit together the
    /// old one may be evicted to make room, and the new one is then [`New`](Inserted::New).
    ///
    /// A value that is rejected still removes what was there: a look-up never finds a value older
    /// than the last one put in.
    ///
    /// # Complexity
    ///
    /// Constant, plus the evictions that admit the entry; each is constant.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::{Cache, Inserted};
    ///
    /// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
    /// assert_eq!(cache.insert(3, 8), Inserted::New);
    /// assert_eq!(cache.insert(3, 9), Inserted::Replaced(8));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn insert(&self, key: K, value: V) -> Inserted<V> {
        self.inner.insert(self.inner.hash(&key), key, value)
    }

    /// Takes the value under `key` out; its bytes are released.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
    /// cache.insert(3, 9);
    /// assert_eq!((cache.remove(&3), cache.remove(&3)), (Some(9), None));
    /// assert_eq!(cache.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.remove(self.inner.hash(key), key).map(|removed| removed.value)
    }

    /// Whether there is a value under `key`. Neither a look-up nor a use.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.contains(self.inner.hash(key), key)
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// Bytes charged for each entry beside what the weigher says: what slot and table take beyond
    /// the key and the value themselves.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
    /// cache.insert(3, 9);
    /// assert_eq!(cache.usage().used, 16 + Cache::<u64, u64>::ENTRY_OVERHEAD);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const ENTRY_OVERHEAD: usize = Inner::<K, V, S>::ENTRY_OVERHEAD;

    /// Entries in the cache; a moment old where other threads change it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.entries()
    }

    /// Whether the cache has no entry, likewise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything out, shard by shard; what other threads put in meanwhile may stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
    /// cache.insert(3, 9);
    /// cache.clear();
    /// assert_eq!((cache.len(), cache.usage().used), (0, 0));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn clear(&self) {
        self.inner.clear();
    }

    /// What the cache has done since it was made.
    ///
    /// # Examples
    ///
    /// See [`CacheStats`].
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.inner.stats()
    }

    /// Bytes charged, their peak and their bound, values rejected, and bytes given back at the
    /// budget's request.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
    /// cache.insert(3, 9);
    /// let used = cache.usage().used;
    /// assert_eq!(cache.budget().reclaim(1), used, "an entry is given back whole");
    /// assert_eq!(cache.usage().reclaimed, used as u64);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }

    /// The cache's own node, of the cache's name, below the budget it was given. Ask it to
    /// [reclaim](Budget::reclaim) where the cache should shrink; what is reserved from it is room
    /// that the cache does not have.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Checks every shard against itself, for tests; no other thread may use the cache meanwhile.
    ///
    /// # Panics
    ///
    /// When an invariant does not hold.
    #[doc(hidden)]
    pub fn validate(&self) {
        self.inner.validate();
    }
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.inner.budget.name())
            .field("shards", &self.inner.cells.len())
            .field("len", &self.len())
            .field("usage", &self.usage())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<K, V, S> MemoryUsage for Cache<K, V, S> {
    fn used_bytes(&self) -> usize {
        self.inner.used_bytes()
    }

    fn peak_bytes(&self) -> usize {
        self.inner.peak_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.inner.capacity_bytes()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

/// What became of a value that was put in.
///
/// # Examples
///
/// ```
/// use nebula_memory::cache::{Cache, Inserted};
///
/// let cache: Cache<u8, String> = Cache::options("texts")
///     .max_bytes(1000)
///     .weigher(|_, text: &String| size_of::<(u8, String)>() + text.capacity())
///     .build()?;
/// assert_eq!(cache.insert(1, "short".into()), Inserted::New);
///
/// let long = "long".repeat(1000);
/// assert_eq!(cache.insert(1, long.clone()), Inserted::Rejected(long));
/// assert!(cache.is_empty(), "the older value is gone too");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted<V> {
    /// It was admitted; there was none under its key.
    New,
    /// It was admitted in place of this one.
    Replaced(V),
    /// It was not admitted, and is handed back: it is heavier than the whole cache and what is free
    /// beside it, or the budget refused it.
    Rejected(V),
}

impl<V> Inserted<V> {
    /// Whether the value was admitted.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        !matches!(self, Self::Rejected(_))
    }
}
