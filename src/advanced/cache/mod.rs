//! A concurrent cache whose entries have weights. Its bytes are charged to a budget, which can reclaim them.
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
//! # Guarantees
//!
//! - The entries of a cache never weigh more than `max_bytes` in total, also under concurrency. Each entry is charged
//!   to the cache's budget node before other threads can see it, and the node never exceeds its limit. If the
//!   caller passes no budget, the node is a root.
//! - An entry that is not heavier than the whole cache is admitted. The cache evicts entries from the entry's own
//!   shard first, then from the other shards, until the entry fits. Entries that are inserted at the same time and do
//!   not fit together may all be rejected.
//! - Once the cache is dropped, its budget counts none of its bytes.
//! - The counters of hits and misses are exact.
//!
//! # Charges
//!
//! An entry is charged its weight and [`Cache::ENTRY_OVERHEAD`]. The overhead covers the entry's slot and its part of
//! the table at the worst moment, just after both have grown. So a cache that fills never takes more memory than it
//! is charged for. As entries leave, slots and table shrink step by step. Until then they take at most about three
//! times the slots and the table that the remaining entries need, and 18 slots for each shard.
//!
//! The bytes are released when an entry leaves the cache. A clone that a caller still holds, such as an `Arc`, is no
//! longer charged.
//!
//! # Eviction
//!
//! First in, first out, with reinsertion (the CLOCK of Corbató, 1968). Each shard has a queue of entries. A pointer,
//! the *clock hand*, is at the oldest entry. A *hit* is a lookup that finds the entry. If that entry was hit since the
//! hand last reached it, it moves to the tail of the queue, once for each hit, up to three times. The first entry
//! without a hit is evicted.
//!
//! A hit moves nothing, so readers share the lock. It adds one to a counter of the shard. It also writes one byte of
//! the entry, at most three times between two visits of the hand. An eviction skips at most 64 entries that were hit.
//!
//! # When the budget refuses
//!
//! A cache with entries takes only free bytes of the budget; it does not reclaim memory from other components. If too
//! few bytes are free, the cache evicts its own entries until the new one fits. It evicts nothing if the entry would
//! not fit even into an empty cache. Only an empty cache asks the budget, once, to reclaim memory from others. If that
//! fails, the value is rejected: it is counted and returned to the caller. A rejection is never an error.
//!
//! Conversely, the budget reclaims entries of the cache, one by one, for any reservation that does not fit. An entry
//! is not reclaimed if it is heavier than the bytes that its tenant borrows beyond its guarantee.
//!
//! A limit may be lowered below the bytes of the cache at a moment when they cannot be reclaimed. The next insertion
//! then evicts entries until the rest fits. A closed cache evicts all entries.
//!
//! # The caller's code
//!
//! Loaders, weighers, `Hash` and `Drop` of keys and values run without a lock of the cache, so they may use the
//! cache. `Eq` of keys and `Clone` of values run under the lock of one shard, because they read the shard's own
//! storage. **They must not use the same cache**, or they may deadlock. Keep `Clone` cheap: put large values into an
//! `Arc`.
//!
//! If any of them panics, the cache stays valid and every byte stays accounted for. The panic unwinds into the call
//! that ran the code. No lock is poisoned.
//!
//! # When not to use it
//!
//! - In a single thread, which needs no lock.
//! - For a few values that must never be evicted: use a map.
//! - For entries that expire by age, which is not supported yet: remove them yourself.

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
use hashbrown::DefaultHashBuilder;

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

/// A concurrent cache, for results that can be computed again. Cloning the handle clones an `Arc`.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, cache::Cache};
/// use std::num::ParseIntError;
///
/// let tenant = Budget::root("tenant-a").limit(1 << 20).build()?;
/// let parsed: Cache<String, u64> = Cache::options("parsed")
///     .budget(&tenant)
///     .weigher(|text: &String, _| size_of::<(String, u64)>() + text.capacity())
///     .build()?;
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
    /// Returns options for a cache called `name` in reports.
    pub fn options(name: &str) -> CacheOptions<K, V> {
        CacheOptions::new(name)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns a clone of the value under `key`. Counts as a look-up and, if the key is found, as a hit.
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
    /// let cache: Cache<String, u32> = Cache::options("lengths")
    ///     .max_bytes(1 << 20)
    ///     .weigher(|text: &String, _| size_of::<(String, u32)>() + text.capacity())
    ///     .build()?;
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

    /// Returns a clone of the value under `key`. If there is none, calls `load` and inserts its value.
    ///
    /// If several callers miss the same key at once, one of them runs its loader, and the others wait for it. If the
    /// loader fails or panics, only its own caller gets the error or the panic, and one of the others runs its own
    /// loader. Every caller gets the value, even if the cache rejects it.
    ///
    /// If the key is inserted or removed, or the cache is cleared, while the loader runs, the loaded value may be
    /// stale. It is returned to its caller and not inserted.
    ///
    /// A loader may use the cache. A loader runs at once, without waiting, if waiting would deadlock: if it asks for
    /// its own key, or if threads would wait for one another's loaders in a circle. A loader that requests its key on
    /// another thread and joins that thread is not detected.
    ///
    /// The key is borrowed: a hit allocates nothing, and a miss makes the owned key once. If `K` has a cheap clone,
    /// such as `Arc<str>`, look up by `&K`.
    ///
    /// # Errors
    ///
    /// The error of `load`, whose type the caller chooses.
    ///
    /// # Complexity
    ///
    /// Constant, plus the time of the loader and of the evictions that admit the entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::cache::Cache;
    ///
    /// let cache: Cache<String, u32> = Cache::options("lengths")
    ///     .max_bytes(1 << 20)
    ///     .weigher(|text: &String, _| size_of::<(String, u32)>() + text.capacity())
    ///     .build()?;
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

    /// Inserts `value` under `key`, and replaces the value there, if there is one.
    ///
    /// The new value is charged before the old one is released. If the two do not fit together, the old value may be
    /// evicted to make room; the result is then [`New`](Inserted::New).
    ///
    /// If the new value is rejected, the old one is removed all the same. So a look-up never returns a value older
    /// than the last one inserted.
    ///
    /// # Complexity
    ///
    /// Constant, plus the evictions that admit the entry. Each eviction is constant.
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

    /// Removes the value under `key` and returns it. Its bytes are released.
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

    /// Returns whether there is a value under `key`. Counts neither as a look-up nor as a hit.
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
    /// The bytes charged for each entry in addition to its weight: its slot and its part of the table, without the
    /// key and the value themselves.
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

    /// Returns the number of entries. It may be slightly out of date while other threads change the cache.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.entries()
    }

    /// Returns whether the cache has no entry. Like [`len`](Self::len), it may be slightly out of date.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries, shard by shard. Entries that other threads insert meanwhile may stay.
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

    /// Returns the number of hits, misses, insertions, evictions and rejections since the cache was built.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.inner.stats()
    }

    /// Returns the charged bytes, their peak and their limit, the number of rejected values, and the bytes that the
    /// budget has reclaimed.
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

    /// Returns the cache's own budget node. It has the cache's name, and is a child of the budget that the cache was
    /// built with. Call [`reclaim`](Budget::reclaim) on it to shrink the cache. Bytes that are reserved from it are
    /// not available to the cache.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Checks that every shard is consistent, for tests. No other thread may use the cache meanwhile.
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

/// The result of [`Cache::insert`].
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
    /// The value was admitted. There was no value under its key.
    New,
    /// The value was admitted and replaced this one.
    Replaced(V),
    /// The value was not admitted and is returned: the budget refused it, or it is heavier than the whole cache
    /// together with the free bytes of the budget.
    Rejected(V),
}

impl<V> Inserted<V> {
    /// Returns whether the value was admitted.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        !matches!(self, Self::Rejected(_))
    }
}
