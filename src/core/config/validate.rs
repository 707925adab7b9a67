//! Validates a configuration, and computes the values of a valid one.

use super::{
    Amount, ArenaConfig, BudgetConfig, CacheConfig, Limit, MemoryConfig, MonitoringConfig,
    PoolConfig,
};
use crate::core::{
    error::ConfigError,
    types::{ByteSize, Watermarks, exact, exact_size, human},
};
use alloc::{
    format,
    string::{String, ToString as _},
};
use core::fmt::Display;

/// The most shards of a cache. No machine has more cores.
pub(crate) const MAX_SHARDS: usize = 1024;

/// The bytes of the smallest chunk of an arena.
pub(crate) const MIN_CHUNK: usize = 48;

/// The greatest depth of a budget tree, including the root. It is enough for every chain of owners, and small enough
/// for recursion.
const MAX_DEPTH: usize = 64;

impl MemoryConfig {
    /// Checks the whole configuration, including rules between its parts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first key whose value is out of its range, and the range.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::config::MemoryConfig;
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("budget.limit", "1MiB")?;
    /// config.set("budget.children.a.guarantee", "600KiB")?;
    /// config.set("budget.children.b.guarantee", "600KiB")?;
    /// assert_eq!(config.validate().unwrap_err().key, "budget.children.b.guarantee");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { budget, arena, pool, cache, monitoring } = self;
        budget.validate()?;
        arena.validate()?;
        pool.validate()?;
        // The weight of the lightest entry depends on the types of the cache.
        cache.validate(1)?;
        monitoring.validate().map(drop)
    }
}

impl BudgetConfig {
    /// Checks a whole tree.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.name.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new("budget.name", "", "a name that is not empty"));
        }
        self.validate_node("budget", 1).map(drop)
    }

    /// Returns the bytes that the parent is charged when the node is made: the node's guarantee, or the sum of its
    /// children's guarantees if that is more.
    fn validate_node(&self, key: &str, depth: usize) -> Result<usize, ConfigError> {
        let bytes = |option, value| size(format_args!("{key}.{option}"), value);
        let limit = match self.limit {
            None => usize::MAX,
            Some(Limit(Amount::Bytes(limit))) => bytes("limit", Some(limit))?.unwrap_or(usize::MAX),
            // The number of bytes is unknown until the tree is built. Building it validates the limit again.
            Some(Limit(Amount::Share(_))) if depth == 1 => usize::MAX,
            Some(Limit(Amount::Share(share))) => {
                let allowed = "a size: only the limit of the root may be a share";
                return Err(ConfigError::new(format!("{key}.limit"), share.to_string(), allowed));
            }
        };
        let guarantee = bytes("guarantee", self.guarantee)?.unwrap_or(0);
        let aside = bytes("emergency_reserve", self.emergency_reserve)?.unwrap_or(0);
        bytes("overdraft", self.overdraft)?;
        NodeBounds { depth, limit, guarantee, emergency_reserve: aside }.check(key)?;
        if self.workers == Some(0) {
            return Err(ConfigError::new(format!("{key}.workers"), "0", "at least 1"));
        }
        if let Some(timeout) = self.default_timeout_ms.filter(|_| depth > 1) {
            return Err(only_of_root(&format!("{key}.default_timeout_ms"), &timeout.to_string()));
        }
        let mut charged: usize = aside;
        for (name, child) in &self.children {
            let parent = key;
            let key = format!("{key}.children.{name}");
            if name.is_empty() {
                return Err(ConfigError::new(key, "", "a name that is not empty"));
            }
            if name.contains('.') {
                // The name `a.b` would look like the path of `b` below `a`.
                return Err(ConfigError::new(key, name, "a name without a dot"));
            }
            if let Some(name) = &child.name {
                let key = format!("{key}.name");
                return Err(ConfigError::new(key, name, "nothing: a child's name is its key"));
            }
            let more = child.validate_node(&key, depth + 1)?;
            if more > limit - charged {
                let left = exact(limit - charged);
                let allowed = format!(
                    "at most {left}, with the guarantees below it: what is left of {parent}.limit, {}",
                    exact(limit)
                );
                let key = format!("{key}.guarantee");
                return Err(ConfigError::new(key, exact(more).to_string(), allowed));
            }
            charged += more;
        }
        Ok(guarantee.max(charged))
    }
}

/// The depth and the sizes of a node of the budget tree, which its rules compare.
#[derive(Clone, Copy)]
pub(crate) struct NodeBounds {
    /// 1 for a root.
    pub(crate) depth: usize,
    /// `usize::MAX` without a limit.
    pub(crate) limit: usize,
    pub(crate) guarantee: usize,
    pub(crate) emergency_reserve: usize,
}

impl NodeBounds {
    /// Checks the rules of a node, whose path in a configuration is `key`.
    pub(crate) fn check(self, key: &str) -> Result<(), ConfigError> {
        let Self { depth, limit, guarantee, emergency_reserve } = self;
        check_depth(key, depth)?;
        at_least(format_args!("{key}.limit"), limit, 1)?;
        let (option, bytes, allowed) = if depth == 1 && guarantee > 0 {
            let allowed = "0 B: a root has no siblings, so only a node below it has a guarantee";
            ("guarantee", guarantee, allowed.to_string())
        } else if guarantee > limit {
            let allowed = format!("0 B to {key}.limit, {}", exact(limit));
            ("guarantee", guarantee, allowed)
        } else if depth > 1 && emergency_reserve > 0 {
            let allowed = "0 B for a node below a root";
            ("emergency_reserve", emergency_reserve, allowed.to_string())
        } else if emergency_reserve >= limit {
            let allowed = format!("0 B to less than {key}.limit, {}", exact(limit));
            ("emergency_reserve", emergency_reserve, allowed)
        } else {
            return Ok(());
        };
        Err(ConfigError::new(format!("{key}.{option}"), exact(bytes).to_string(), allowed))
    }
}

impl ArenaConfig {
    /// Validates the sizes. An arena that sets none costs no call.
    #[inline]
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self { initial_chunk: None, max_chunk: None, max_bytes: None } => Ok(()),
            _ => self.validate_sizes(),
        }
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let initial = size_from("arena.initial_chunk", self.initial_chunk, MIN_CHUNK)?;
        let most = size_from("arena.max_chunk", self.max_chunk, MIN_CHUNK)?;
        size_from("arena.max_bytes", self.max_bytes, MIN_CHUNK)?;
        match (initial, most) {
            (Some(initial), Some(most)) if initial > most => Err(ConfigError::new(
                "arena.initial_chunk",
                exact(initial).to_string(),
                format!("{} to arena.max_chunk, {}", exact(MIN_CHUNK), exact(most)),
            )),
            _ => Ok(()),
        }
    }
}

impl PoolConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        size("pool.max_object_bytes", self.max_object_bytes)?;
        size_from("pool.max_bytes", self.max_bytes, 1)?;
        let not_zero = [
            ("pool.max_objects", self.max_objects == Some(0)),
            ("pool.idle_timeout_ms", self.idle_timeout_ms == Some(0)),
            ("pool.max_age_ms", self.max_age_ms == Some(0)),
        ];
        if let Some((key, _)) = not_zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(ConfigError::new(key, "0", "at least 1"));
        }
        let min_idle = self.min_idle.unwrap_or(0);
        for (name, most) in [("max_objects", self.max_objects), ("max_idle", self.max_idle)] {
            if let Some(most) = most.filter(|most| *most < min_idle) {
                let allowed = format!("at most pool.{name}, which is {most}");
                return Err(ConfigError::new("pool.min_idle", min_idle.to_string(), allowed));
            }
        }
        Ok(())
    }
}

impl CacheConfig {
    /// Checks the options of a cache whose lightest entry weighs `lightest` bytes.
    pub(crate) fn validate(&self, lightest: usize) -> Result<(), ConfigError> {
        let most = isize::MAX.unsigned_abs();
        if let Some(bytes) = self.max_bytes
            && !(lightest as u64..=most as u64).contains(&bytes.as_u64())
        {
            let allowed = format!("{} to {}", exact(lightest), human(most));
            let bytes = exact_size(bytes).to_string();
            return Err(ConfigError::new("cache.max_bytes", bytes, allowed));
        }
        match self.shards {
            Some(shards) if !(shards.is_power_of_two() && shards <= MAX_SHARDS) => {
                let allowed = format!("a power of two from 1 to {MAX_SHARDS}");
                Err(ConfigError::new("cache.shards", shards.to_string(), allowed))
            }
            _ => Ok(()),
        }
    }
}

impl MonitoringConfig {
    /// Returns the watermarks.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `hysteresis < elevated < high < critical <= 100`.
    pub fn watermarks(&self) -> Result<Watermarks, ConfigError> {
        let Self { elevated, high, critical, hysteresis, .. } = *self;
        Watermarks::checked([elevated, high, critical, hysteresis])
    }

    /// Checks the whole section. Returns the watermarks and the reserve.
    pub(crate) fn validate(&self) -> Result<(Watermarks, Option<usize>), ConfigError> {
        let marks = self.watermarks()?;
        let (least, most) = (self.min_interval_ms, self.max_interval_ms);
        for (key, value) in [
            ("monitoring.calm_samples", self.calm_samples),
            ("monitoring.min_interval_ms", least),
            ("monitoring.max_interval_ms", most),
        ] {
            if value == 0 {
                return Err(ConfigError::new(key, "0", "at least 1"));
            }
        }
        if least > most {
            let allowed = format!("1 to monitoring.max_interval_ms, {most}");
            return Err(ConfigError::new("monitoring.min_interval_ms", least.to_string(), allowed));
        }
        Ok((marks, size("monitoring.reserve", self.reserve)?))
    }
}

/// Checks the depth of the node at `key`.
pub(super) fn check_depth(key: &str, depth: usize) -> Result<(), ConfigError> {
    if depth > MAX_DEPTH {
        let allowed = format!("at most {MAX_DEPTH} levels of budgets");
        return Err(ConfigError::new(key, format!("level {depth}"), allowed));
    }
    Ok(())
}

/// Returns the error for an option of a whole tree that is set for a node below the root.
pub(crate) fn only_of_root(key: &str, value: &str) -> ConfigError {
    ConfigError::new(key, value, "nothing: only a root has this option, for its whole tree")
}

/// Checks that a size is at least `least` bytes.
pub(crate) fn at_least(key: impl Display, bytes: usize, least: usize) -> Result<(), ConfigError> {
    if bytes < least {
        let allowed = format!("at least {}", exact(least));
        return Err(ConfigError::new(key.to_string(), exact(bytes).to_string(), allowed));
    }
    Ok(())
}

/// Returns `value` in bytes, if it fits the address space.
fn size(key: impl Display, value: Option<ByteSize>) -> Result<Option<usize>, ConfigError> {
    let bytes = |value: ByteSize| {
        usize::try_from(value.as_u64()).map_err(|_| {
            let allowed = format!("0 B to {}", human(usize::MAX));
            ConfigError::new(key.to_string(), exact_size(value).to_string(), allowed)
        })
    };
    value.map(bytes).transpose()
}

/// Returns `value` in bytes, if it fits the address space and is at least `least`.
fn size_from(
    key: &str,
    value: Option<ByteSize>,
    least: usize,
) -> Result<Option<usize>, ConfigError> {
    let bytes = size(key, value)?;
    at_least(key, bytes.unwrap_or(least), least).map(|()| bytes)
}
