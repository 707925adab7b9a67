use crate::utils::sync::{AtomicU64, Ordering};
use core::iter::Sum;

/// Counters of a cache since it was built, from [`Cache::stats`](super::Cache::stats).
///
/// # Examples
///
/// ```
/// use nebula_memory::cache::Cache;
///
/// let cache: Cache<u64, u64> = Cache::options("squares").max_bytes(1 << 20).build()?;
/// cache.insert(3, 9);
/// assert_eq!((cache.get(&3), cache.get(&4)), (Some(9), None));
///
/// let stats = cache.stats();
/// assert_eq!((stats.hits, stats.misses, stats.insertions), (1, 1, 1));
/// assert_eq!(stats.hit_ratio(), Some(0.5));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CacheStats {
    /// Look-ups that found a value at once.
    pub hits: u64,
    /// Look-ups that did not, including look-ups that then waited for another caller's loader.
    pub misses: u64,
    /// Values that were admitted, with or without replacing another.
    pub insertions: u64,
    /// Entries that were evicted to make room for another entry, or because the budget reclaimed memory.
    pub evictions: u64,
    /// Values that were not admitted: heavier than the whole cache, or refused by the budget.
    pub rejections: u64,
}

impl CacheStats {
    /// Returns hits plus misses. Each call of `get` or `get_or_insert_with` is one look-up.
    #[must_use]
    pub const fn lookups(&self) -> u64 {
        self.hits + self.misses
    }

    /// Returns the share of look-ups that were hits; `None` before the first look-up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.lookups() > 0).then(|| self.hits as f64 / self.lookups() as f64)
    }
}

impl Sum for CacheStats {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            hits: sum.hits + part.hits,
            misses: sum.misses + part.misses,
            insertions: sum.insertions + part.insertions,
            evictions: sum.evictions + part.evictions,
            rejections: sum.rejections + part.rejections,
        })
    }
}

/// The counters of one shard. All accesses are `Relaxed`: the counters are sums and order nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    insertions: AtomicU64,
    evictions: AtomicU64,
    rejections: AtomicU64,
}

impl Counters {
    #[inline]
    pub(super) fn count_lookup(&self, found: bool) {
        let counter = if found { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_insertion(&self) {
        self.insertions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_eviction(&self) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_rejection(&self) {
        self.rejections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            insertions: self.insertions.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            rejections: self.rejections.load(Ordering::Relaxed),
        }
    }
}
