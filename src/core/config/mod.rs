//! The configuration of a whole program, with validation.
//!
//! A configuration is read with serde (feature `serde`) from TOML, JSON or another format, from environment variables
//! ([`MemoryConfig::from_env`]), or key by key ([`MemoryConfig::set`]). A value that is set later replaces an earlier
//! one. [`MemoryConfig::validate`] checks the whole configuration. Every component checks its own part again when it is
//! built.
//!
//! A size is a number of bytes, or a text such as `64KiB`, `1.5GB` or `4096`. A size that does not fit the address
//! space is an error.
//!
//! | key | value | used by |
//! |---|---|---|
//! | `budget.name` | the root's name; `process` by default | `BudgetTree` |
//! | `budget.limit` | size, or a share of the memory that the process may use, such as `75%`; unlimited by default | `BudgetTree` |
//! | `budget.priority` | `low`, `normal`, `high` or `critical` | `BudgetTree` |
//! | `budget.policy` | `strict`, `fair`, `fair-admission` or `priority` | `BudgetTree` |
//! | `budget.weight`, `budget.workers` | whole numbers; `workers` is at least 1, and not declared by default | `BudgetTree` |
//! | `budget.default_timeout_ms` | milliseconds, only for the root; 0 for no timeout, 30000 by default | `BudgetTree` |
//! | `budget.overdraft` | size of the extra budget; 0 by default | `BudgetTree` |
//! | `budget.emergency_reserve` | size, only for the root, and less than its limit; 0 by default | `BudgetTree` |
//! | `budget.children.<name>.limit`, `.guarantee`, `.priority`, `.children…` | the same for a child, but its limit must be a size. A name has no dot. A tree has at most 64 levels | `BudgetTree` |
//! | `arena.initial_chunk`, `arena.max_chunk`, `arena.max_bytes` | sizes | `ArenaOptions::config` |
//! | `pool.max_objects`, `pool.max_idle`, `pool.min_idle` | numbers of objects | `PoolOptions::config` |
//! | `pool.idle_timeout_ms`, `pool.max_age_ms` | milliseconds | `PoolOptions::config` |
//! | `pool.max_object_bytes`, `pool.max_bytes` | sizes | `PoolOptions::config` |
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

pub(crate) use self::limit::Amount;
pub use self::limit::Limit;
#[cfg(feature = "std")]
pub(crate) use self::limit::Share;
pub(crate) use self::validate::MIN_CHUNK;
#[cfg(feature = "std")]
pub(crate) use self::validate::{NodeBounds, at_least, only_of_root};

use crate::core::types::{ByteSize, Priority, SharePolicy, Watermarks};
use alloc::{collections::BTreeMap, string::String};

/// The whole configuration of a program; see the [table of keys](self).
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
/// An error names the key and the allowed values:
///
/// ```
/// # use nebula_memory::core::config::MemoryConfig;
/// let error = MemoryConfig::default().set("cache.shards", "many").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "option `cache.shards`: got `many`, allowed is a whole number",
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
    /// The pressure levels, the time between samples, and whether the root's limit follows the kernel.
    pub monitoring: MonitoringConfig,
}

/// A node of the budget tree and the nodes below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BudgetConfig {
    /// The root's name; `process` by default. A child's name is its key.
    pub name: Option<String>,
    /// The most bytes at and below the node; unlimited by default.
    ///
    /// The root's limit may be a share, such as `75%`. It is a share of the tightest bound on the memory of the
    /// process: a limit of its control group or of a group above, or the memory of the machine. The number of bytes
    /// is computed once, when the tree is built. The limits of the other nodes must be sizes.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::limit"))]
    pub limit: Option<Limit>,
    /// Bytes that the node can always reserve, whatever its siblings have reserved; 0 by default. Not for the root.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::guarantee"))]
    pub guarantee: Option<ByteSize>,
    /// The priority of the node; by default that of its parent.
    pub priority: Option<Priority>,
    /// The node's share of its parent under the policies `fair` and `fair-admission`, in proportion to its
    /// siblings' weights; 1 by default.
    pub weight: Option<u32>,
    /// How the node divides its memory among its children; `strict` by default.
    pub policy: Option<SharePolicy>,
    /// The most threads or tasks that hold memory of the node, or of a node below, at the same time; at least 1. Not
    /// declared by default.
    ///
    /// The ledger needs this number to prove deadlocks. Without it, and without contexts, the ledger knows no tasks,
    /// and never refuses a request as a deadlock. A wait then ends by a release, at its deadline, by a cancellation,
    /// or when the node is closed.
    pub workers: Option<u32>,
    /// Bytes of the root's limit that only managers can use, while they reclaim memory; 0 by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::emergency_reserve"))]
    pub emergency_reserve: Option<ByteSize>,
    /// The extra budget of the node for emergencies, beyond its limit, in bytes; 0 by default. See
    /// `Budget::overdraft`.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::overdraft"))]
    pub overdraft: Option<ByteSize>,
    /// The milliseconds that a request without a deadline waits; 30000 by default. With 0 it waits without a
    /// timeout. Only for the root.
    pub default_timeout_ms: Option<u32>,
    /// The child nodes, by name.
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
    /// The size in bytes up to which chunks double.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_chunk"))]
    pub max_chunk: Option<ByteSize>,
    /// The most bytes in all chunks.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
}

/// The options of pools. A key that is not set has the default of the pool's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PoolConfig {
    /// The most idle objects.
    pub max_idle: Option<usize>,
    /// Objects of more bytes are dropped when they are returned.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_object_bytes"))]
    pub max_object_bytes: Option<ByteSize>,
    /// The most bytes in all objects.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
    /// The most objects, idle and in use.
    pub max_objects: Option<usize>,
    /// The number of idle objects that maintenance keeps ready.
    pub min_idle: Option<usize>,
    /// Objects that are idle for this many milliseconds are destroyed.
    pub idle_timeout_ms: Option<u64>,
    /// Objects that are this many milliseconds old are destroyed.
    pub max_age_ms: Option<u64>,
}

/// The options of caches. A key that is not set has the default of the cache's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// The most bytes in all entries.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "sizes::max_bytes"))]
    pub max_bytes: Option<ByteSize>,
    /// The number of shards. Each has its own lock.
    pub shards: Option<usize>,
}

/// The options of a monitor: the marks at which pressure levels begin, in percent of the limit (see [`Watermarks`]),
/// when levels end, the time between samples, and whether the root's limit follows the kernel.
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
    /// The number of percentage points below its mark at which a level ends.
    pub hysteresis: u8,
    /// The number of consecutive samples of a lower level after which the level falls by one step; 3 by default.
    pub calm_samples: u32,
    /// The least time in milliseconds between the last sample of a level and the fall from it; 500 by default.
    pub hold_ms: u32,
    /// The milliseconds to the next sample if no memory is left; 10 by default.
    pub min_interval_ms: u32,
    /// The milliseconds to the next sample if all sources are below the first mark; 1000 by default.
    pub max_interval_ms: u32,
    /// Whether the root's limit is lowered if the kernel has less memory left; `false` by default.
    pub follow_kernel: bool,
    /// Whether the root's limit bounds the whole process, including resident memory without a reservation; `false` by
    /// default. See `Monitor::with_process_limit`.
    pub process_limit: bool,
    /// Bytes of the kernel's headroom that are kept free. They cover memory without a reservation that grows between
    /// two samples; 16 MiB by default.
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
