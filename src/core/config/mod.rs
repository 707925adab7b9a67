//! One validated description of a whole set-up.
//!
//! It is read with serde (feature `serde`) from TOML, JSON or any other format, from environment
//! variables ([`MemoryConfig::from_env`]), or key by key ([`MemoryConfig::set`]); one may be laid
//! over the other. [`MemoryConfig::validate`] checks it as a whole, and every component checks its
//! own part once more when it is built.
//!
//! | key | value | obeyed by |
//! |---|---|---|
//! | `budget.name` | the root's name; `process` by default | `BudgetTree` |
//! | `budget.limit` | size; unlimited by default | `BudgetTree` |
//! | `budget.priority` | `low`, `normal`, `high` or `critical` | `BudgetTree` |
//! | `budget.policy` | `strict`, `fair` or `priority` | `BudgetTree` |
//! | `budget.weight`, `budget.workers` | whole numbers, of which `workers` is at least 1 | `BudgetTree` |
//! | `budget.overdraft` | size | `BudgetTree` |
//! | `budget.emergency_reserve` | size, of the root alone, and less than its limit | `BudgetTree` |
//! | `budget.children.<name>.limit`, `.guarantee`, `.priority`, `.children…` | the same for a node below; no dot in a name, and at most 64 nodes below one another | `BudgetTree` |
//! | `arena.initial_chunk`, `arena.max_chunk`, `arena.max_bytes` | sizes | `ArenaOptions::config` |
//! | `pool.max_idle` | a number of objects | `PoolOptions::config` |
//! | `pool.keep_up_to`, `pool.max_bytes` | sizes | `PoolOptions::config` |
//! | `cache.max_bytes` | size | `CacheOptions::config` |
//! | `cache.shards` | a power of two up to 1024 | `CacheOptions::config` |
//! | `monitoring.elevated`, `.high`, `.critical`, `.hysteresis` | percent | `Monitor::from_config` |
//! | `monitoring.calm_samples` | a whole number, at least 1 | `Monitor::from_config` |
//! | `monitoring.hold_ms` | milliseconds | `Monitor::from_config` |
//! | `monitoring.min_interval_ms`, `.max_interval_ms` | milliseconds, at least 1, in order | `Monitor::from_config` |
//! | `monitoring.follow_kernel` | `true` or `false` | `Monitor::from_config` |
//! | `monitoring.process_limit` | `true` or `false` | `Monitor::from_config` |
//! | `monitoring.reserve` | size | `Monitor::from_config` |

mod keys;
#[cfg(feature = "serde")]
mod sizes;
mod validate;

#[cfg(feature = "std")]
pub(crate) use self::validate::{MAX_DEPTH, too_deep};

use crate::core::types::{ByteSize, Priority, SharePolicy, Watermarks};
use alloc::{collections::BTreeMap, string::String};

/// Everything that can be set from outside; see the [table of keys](self).
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, core::config::MemoryConfig, budget::BudgetTree};
///
/// let mut config = MemoryConfig::default();
/// config.set("budget.limit", "64MiB")?;
/// config.set("budget.children.tenant-a.guarantee", "1MiB")?;
/// config.validate()?;
///
/// let tree = BudgetTree::from_config(&config.budget)?;
/// assert_eq!(tree.root().limit(), Some(64 << 20));
/// assert_eq!(tree.get("tenant-a").unwrap().guarantee(), 1 << 20);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// An error names the key and what would have been accepted:
///
/// ```
/// # use nebula_memory::core::config::MemoryConfig;
/// let error = MemoryConfig::default().set("cache.shards", "many").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "configuration key `cache.shards`: got `many`, allowed is a whole number",
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The root of the budget tree.
    pub budget: BudgetConfig,
    /// What every arena is made with.
    pub arena: ArenaConfig,
    /// What every pool is made with.
    pub pool: PoolConfig,
    /// What every cache is made with.
    pub cache: CacheConfig,
    /// Where the levels of pressure begin, how often to look, and what follows.
    pub monitoring: MonitoringConfig,
}

/// A node of the budget tree and those below it.
///
/// # Examples
///
/// See [`MemoryConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BudgetConfig {
    /// The root's name; `process` by default. A child's name is its key.
    pub name: Option<String>,
    /// The most bytes at and below the node; unlimited by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::limit"))]
    pub limit: Option<ByteSize>,
    /// Bytes that are the node's whatever its siblings hold; 0 by default, and always for the root.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::guarantee"))]
    pub guarantee: Option<ByteSize>,
    /// How much the node matters; its parent's by default.
    pub priority: Option<Priority>,
    /// What the node is due of its parent where that one's policy is `fair`; 1 by default.
    pub weight: Option<u32>,
    /// How the node divides what it has among its children; `strict` by default.
    pub policy: Option<SharePolicy>,
    /// How many threads or tasks may hold memory of the node at once; 1 by default.
    pub workers: Option<u32>,
    /// Bytes of the root's limit that are set aside for those who give memory back; 0 by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::emergency_reserve"))]
    pub emergency_reserve: Option<ByteSize>,
    /// The most bytes that may be held beyond the limits by those who ask for it; 0 by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::overdraft"))]
    pub overdraft: Option<ByteSize>,
    /// The nodes below, by name.
    pub children: BTreeMap<String, BudgetConfig>,
}

/// What arenas are made with; what is not set is as the arena's options document.
///
/// # Examples
///
/// See [`MemoryConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ArenaConfig {
    /// Bytes of the first chunk.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::initial_chunk"))]
    pub initial_chunk: Option<ByteSize>,
    /// Bytes up to which chunks double.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_chunk"))]
    pub max_chunk: Option<ByteSize>,
    /// The most bytes in all chunks together.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
}

/// What pools are made with; what is not set is as the pool's options document.
///
/// # Examples
///
/// See [`MemoryConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PoolConfig {
    /// The most objects kept idle.
    pub max_idle: Option<usize>,
    /// An object of more bytes is dropped when it comes back.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::keep_up_to"))]
    pub keep_up_to: Option<ByteSize>,
    /// The most bytes in all objects together.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
}

/// What caches are made with; what is not set is as the cache's options document.
///
/// # Examples
///
/// See [`MemoryConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// The most bytes in all entries together.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
    /// Parts that are locked apart from each other.
    pub shards: Option<usize>,
}

/// Where the levels of pressure begin, in percent of the limit, see [`Watermarks`]; how they end; how
/// often to look; and whether the root's limit follows what the kernel leaves.
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, core::config::MemoryConfig};
///
/// let mut config = MemoryConfig::default();
/// config.set("monitoring.elevated", "50")?;
/// assert_eq!(config.monitoring.watermarks()?.percent(PressureLevel::Elevated), 50);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MonitoringConfig {
    /// Where [`Elevated`](crate::core::PressureLevel::Elevated) begins.
    pub elevated: u8,
    /// Where [`High`](crate::core::PressureLevel::High) begins.
    pub high: u8,
    /// Where [`Critical`](crate::core::PressureLevel::Critical) begins.
    pub critical: u8,
    /// Points below its mark at which a level ends.
    pub hysteresis: u8,
    /// The samples, one after the other, that must be calmer before the level falls by one step; 3 by
    /// default.
    pub calm_samples: u32,
    /// The milliseconds that they must go on for, too; 500 by default.
    pub hold_ms: u32,
    /// The milliseconds to the next sample where nothing is left; 10 by default.
    pub min_interval_ms: u32,
    /// The milliseconds to the next sample where there is enough; 1000 by default.
    pub max_interval_ms: u32,
    /// Whether the root's limit is lowered to what the kernel leaves; not by default.
    pub follow_kernel: bool,
    /// Whether the root's limit is the process's, resident memory that nobody reserved included; not by
    /// default. See `Monitor::with_process_limit`.
    pub process_limit: bool,
    /// Of what the kernel leaves, bytes that the root is not to have: for what is not on the ledger
    /// and grows between two samples; 16 MiB by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::reserve"))]
    pub reserve: Option<ByteSize>,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        let marks = Watermarks::default();
        let percent = |level| marks.percent(level);
        use crate::core::types::PressureLevel::{Critical, Elevated, High};
        Self {
            elevated: percent(Elevated),
            high: percent(High),
            critical: percent(Critical),
            hysteresis: marks.hysteresis(),
            calm_samples: 3,
            hold_ms: 500,
            min_interval_ms: 10,
            max_interval_ms: 1000,
            follow_kernel: false,
            process_limit: false,
            reserve: None,
        }
    }
}
