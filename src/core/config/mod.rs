//! One validated description of a whole set-up.
//!
//! A configuration is read with serde (feature `serde`) from TOML, JSON or any other format, from
//! environment variables ([`MemoryConfig::from_env`]), or key by key ([`MemoryConfig::set`]); a later
//! source overrides an earlier one. [`MemoryConfig::validate`] checks it as a whole, and every component
//! checks its own part once more when it is built.
//!
//! A size is a number of bytes, or a text such as `64KiB`, `1.5GB` or `4096`. A size that does not fit
//! the address space is an error.
//!
//! | key | value | obeyed by |
//! |---|---|---|
//! | `budget.name` | the root's name; `process` by default | `BudgetTree` |
//! | `budget.limit` | size, or a share of the memory that the process may use, such as `75%`; unlimited by default | `BudgetTree` |
//! | `budget.priority` | `low`, `normal`, `high` or `critical` | `BudgetTree` |
//! | `budget.policy` | `strict`, `fair`, `fair-admission` or `priority` | `BudgetTree` |
//! | `budget.weight`, `budget.workers` | whole numbers; `workers` is at least 1, and not declared by default | `BudgetTree` |
//! | `budget.default_timeout_ms` | milliseconds, of the root alone; 0 for no time-out, 30000 by default | `BudgetTree` |
//! | `budget.overdraft` | size | `BudgetTree` |
//! | `budget.emergency_reserve` | size, of the root alone, and less than its limit | `BudgetTree` |
//! | `budget.children.<name>.limit`, `.guarantee`, `.priority`, `.children…` | the same for a node below, but its limit is a size; no dot in a name, and at most 64 nodes below one another | `BudgetTree` |
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
mod limit;
#[cfg(feature = "serde")]
mod sizes;
mod validate;

pub use self::limit::{Limit, LimitError, Share};
#[cfg(feature = "std")]
pub(crate) use self::validate::{MAX_DEPTH, too_deep};

use crate::core::types::{ByteSize, Priority, SharePolicy, Watermarks};
use alloc::{collections::BTreeMap, string::String};

/// The whole configuration; see the [table of keys](self).
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
/// An error names the key and the values that are allowed:
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
    /// The options of every arena.
    pub arena: ArenaConfig,
    /// The options of every pool.
    pub pool: PoolConfig,
    /// The options of every cache.
    pub cache: CacheConfig,
    /// The levels of pressure, the time between samples, and whether the root's limit follows the kernel.
    pub monitoring: MonitoringConfig,
}

/// A node of the budget tree and those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BudgetConfig {
    /// The root's name; `process` by default. A child's name is its key.
    pub name: Option<String>,
    /// The most bytes at and below the node; unlimited by default.
    ///
    /// The root's limit may be a share, such as `75%`. It is a share of the tightest bound on the
    /// memory of the process: a limit of its control group or of a group above, or the memory of the
    /// machine. The bytes are computed once, when the tree is built. The limit of a node below is
    /// always a size.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::limit"))]
    pub limit: Option<Limit>,
    /// Bytes that the node can always reserve, whatever its siblings hold; 0 by default. A root has none.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::guarantee"))]
    pub guarantee: Option<ByteSize>,
    /// The priority of the node; its parent's by default.
    pub priority: Option<Priority>,
    /// The node's share of its parent under the policies `fair` and `fair-admission`, in proportion to its
    /// siblings' weights; 1 by default.
    pub weight: Option<u32>,
    /// How the node divides its memory among its children; `strict` by default.
    pub policy: Option<SharePolicy>,
    /// How many threads or tasks may hold memory of the node, or of a node below, at once; at least 1. Not
    /// declared by default.
    ///
    /// The ledger proves deadlocks with it. Without it, and without contexts, the ledger knows no tasks: no
    /// request is refused as a deadlock, and a wait ends by a release, its deadline, a cancellation or a
    /// close.
    pub workers: Option<u32>,
    /// Bytes of the root's limit that only managers can use, while they give memory back; 0 by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::emergency_reserve"))]
    pub emergency_reserve: Option<ByteSize>,
    /// The most bytes that may be reserved beyond the limits, on explicit request; 0 by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::overdraft"))]
    pub overdraft: Option<ByteSize>,
    /// How many milliseconds a request of the tree waits that names no deadline; 30000 by default. With 0
    /// it waits for as long as it takes. Of the root alone.
    pub default_timeout_ms: Option<u32>,
    /// The nodes below, by name.
    pub children: BTreeMap<String, BudgetConfig>,
}

/// The options of arenas. A key that is not set has the default of the arena's options.
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

/// The options of pools. A key that is not set has the default of the pool's options.
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

/// The options of caches. A key that is not set has the default of the cache's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// The most bytes in all entries together.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
    /// The number of shards, each with a lock of its own.
    pub shards: Option<usize>,
}

/// The options of a monitor: the marks at which levels of pressure begin, in percent of the limit (see
/// [`Watermarks`]), how levels end, the time between samples, and whether the root's limit follows the
/// kernel.
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
    /// The mark of [`Elevated`](crate::core::PressureLevel::Elevated).
    pub elevated: u8,
    /// The mark of [`High`](crate::core::PressureLevel::High).
    pub high: u8,
    /// The mark of [`Critical`](crate::core::PressureLevel::Critical).
    pub critical: u8,
    /// Points below its mark at which a level ends.
    pub hysteresis: u8,
    /// The number of calmer samples in a row after which the level falls by one step; 3 by default.
    pub calm_samples: u32,
    /// The least milliseconds between the last sample at a level and its fall; 500 by default.
    pub hold_ms: u32,
    /// The milliseconds to the next sample when no memory is left; 10 by default.
    pub min_interval_ms: u32,
    /// The milliseconds to the next sample when there is enough memory; 1000 by default.
    pub max_interval_ms: u32,
    /// Whether the root's limit is lowered when the kernel has less memory left; not by default.
    pub follow_kernel: bool,
    /// Whether the root's limit bounds the whole process, with the resident memory that nobody reserved;
    /// not by default. See `Monitor::with_process_limit`.
    pub process_limit: bool,
    /// Bytes of the kernel's headroom that are kept free for memory that is not on the ledger and grows
    /// between two samples; 16 MiB by default.
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
