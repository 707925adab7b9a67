//! Validates a configuration, and computes the values of a valid one.

use super::{
    Amount, ArenaConfig, BudgetConfig, CacheConfig, Limit, MemoryConfig, MonitoringConfig,
    PoolConfig,
};
use crate::core::{
    error::ConfigError,
    types::{ByteSize, Watermarks, exact, exact_size},
};
use alloc::{
    format,
    string::{String, ToString},
};

/// The most shards of a cache. No machine has more cores.
pub(crate) const MAX_SHARDS: usize = 1024;

/// The bytes of the smallest chunk of an arena.
pub(crate) const MIN_CHUNK: u64 = 48;

/// The greatest depth of a budget tree, including the root. It is enough for every chain of owners, and small enough
/// for recursion.
pub(crate) const MAX_DEPTH: usize = 64;

/// The allowed guarantee of a root.
pub(crate) const NO_GUARANTEE_OF_ROOT: &str =
    "0 B: a root has no siblings, so only a node below it has a guarantee";

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
        cache.validate()?;
        monitoring.validate().map(drop)
    }
}

impl BudgetConfig {
    /// Checks a whole tree.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.name.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new("budget.name", "", "a name that is not empty"));
        }
        if let Some(guarantee) = self.guarantee.filter(|size| size.as_u64() > 0) {
            let guarantee = exact_size(guarantee).to_string();
            return Err(ConfigError::new("budget.guarantee", guarantee, NO_GUARANTEE_OF_ROOT));
        }
        self.validate_node("budget", 1).map(drop)
    }

    /// Returns the bytes that the parent is charged when the node is made: the node's guarantee, or the sum of its
    /// children's guarantees if that is more.
    fn validate_node(&self, key: &str, depth: usize) -> Result<usize, ConfigError> {
        if depth > MAX_DEPTH {
            return Err(too_deep(key));
        }
        let limit = match self.limit {
            None => usize::MAX,
            Some(Limit(Amount::Bytes(bytes))) => {
                positive(&format!("{key}.limit"), Some(bytes))?.unwrap_or(usize::MAX)
            }
            // The number of bytes is unknown until the tree is built. Building it validates the limit again.
            Some(Limit(Amount::Share(_))) if depth == 1 => usize::MAX,
            Some(Limit(Amount::Share(share))) => {
                let allowed = "a size: only the limit of the root may be a share";
                return Err(ConfigError::new(format!("{key}.limit"), share.to_string(), allowed));
            }
        };
        let guarantee = size(&format!("{key}.guarantee"), self.guarantee)?.unwrap_or(0);
        if guarantee > limit {
            let allowed = format!("0 B to {key}.limit, {}", exact(limit));
            let guarantee = exact(guarantee).to_string();
            return Err(ConfigError::new(format!("{key}.guarantee"), guarantee, allowed));
        }
        size(&format!("{key}.overdraft"), self.overdraft)?;
        if self.workers == Some(0) {
            return Err(ConfigError::new(format!("{key}.workers"), "0", "at least 1"));
        }
        if let Some(timeout) = self.default_timeout_ms.filter(|_| depth > 1) {
            let key = format!("{key}.default_timeout_ms");
            let allowed = "nothing: the time-out is set at the root";
            return Err(ConfigError::new(key, timeout.to_string(), allowed));
        }
        let aside = size(&format!("{key}.emergency_reserve"), self.emergency_reserve)?;
        let aside = aside.unwrap_or(0);
        if aside > 0 && (depth > 1 || aside >= limit) {
            let allowed = match depth {
                1 => format!("0 B to less than {key}.limit, {}", exact(limit)),
                _ => "0 B for a node below a root".to_string(),
            };
            let key = format!("{key}.emergency_reserve");
            return Err(ConfigError::new(key, exact(aside).to_string(), allowed));
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
        let initial = at_least("arena.initial_chunk", self.initial_chunk, MIN_CHUNK)?;
        let most = at_least("arena.max_chunk", self.max_chunk, MIN_CHUNK)?;
        at_least("arena.max_bytes", self.max_bytes, MIN_CHUNK)?;
        match (initial, most) {
            (Some(initial), Some(most)) if initial > most => Err(ConfigError::new(
                "arena.initial_chunk",
                exact(initial).to_string(),
                format!("{} to arena.max_chunk, {}", ByteSize::b(MIN_CHUNK), exact(most)),
            )),
            _ => Ok(()),
        }
    }
}

impl PoolConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        size("pool.max_object_bytes", self.max_object_bytes)?;
        positive("pool.max_bytes", self.max_bytes)?;
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
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        positive("cache.max_bytes", self.max_bytes)?;
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

/// Returns the error for a `key` of a node that is too deep in the tree.
pub(crate) fn too_deep(key: &str) -> ConfigError {
    let allowed = format!("at most {MAX_DEPTH} levels of budgets");
    ConfigError::new(key, format!("level {}", MAX_DEPTH + 1), allowed)
}

/// Returns `value` in bytes, if it fits the address space.
pub(crate) fn size(key: &str, value: Option<ByteSize>) -> Result<Option<usize>, ConfigError> {
    value
        .map(|value| usize::try_from(value.as_u64()).map_err(|_| out_of_range(key, value, 0)))
        .transpose()
}

/// Returns `value` in bytes, if it fits the address space and is not zero.
pub(crate) fn positive(key: &str, value: Option<ByteSize>) -> Result<Option<usize>, ConfigError> {
    at_least(key, value, 1)
}

/// Returns `value` in bytes, if it fits the address space and is not below `least`.
fn at_least(key: &str, value: Option<ByteSize>, least: u64) -> Result<Option<usize>, ConfigError> {
    match value {
        Some(value) if value.as_u64() < least => Err(out_of_range(key, value, least)),
        _ => size(key, value),
    }
}

fn out_of_range(key: &str, value: ByteSize, least: u64) -> ConfigError {
    let most = ByteSize::b(usize::MAX as u64);
    let allowed = format!("{} to {most}", ByteSize::b(least));
    ConfigError::new(key, exact_size(value).to_string(), allowed)
}
