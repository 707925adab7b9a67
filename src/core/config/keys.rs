//! Sets a configuration key by key, from environment variables and command lines.

use super::{BudgetConfig, MemoryConfig, MonitoringConfig, limit, validate::check_depth};
use crate::core::{error::ConfigError, types::ByteSize};
#[cfg(feature = "std")]
use alloc::string::String;
use alloc::string::ToString;
use core::str::FromStr;

const WHOLE: &str = "a whole number";
const MILLISECONDS: &str = "a whole number of milliseconds";
const POLICIES: &str = "one of strict, fair, fair-admission, priority";
const PERCENT: &str = "a percentage from 0 to 100";

impl MemoryConfig {
    /// Sets one key of the [table](super) from text.
    ///
    /// Checks that the key exists and that the text is valid for it: a size must fit the address space, and a share
    /// must be above 0 % and at most 100 %. All other ranges may depend on keys that are not set yet, so
    /// [`validate`](Self::validate) checks them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key and the allowed values. The configuration is then unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let unknown = || ConfigError::new(key, value, "one of the documented keys, this is none");
        let (section, rest) = key.split_once('.').ok_or_else(unknown)?;
        match (section, rest) {
            // A path has `budget`, then `children.<name>` for each level below the root, then the key of the node.
            ("budget", _) => {
                check_depth(key, key.split('.').count().div_ceil(2))?;
                self.budget.set(key, rest, value)?;
            }
            ("arena", "initial_chunk") => put_size(&mut self.arena.initial_chunk, key, value)?,
            ("arena", "max_chunk") => put_size(&mut self.arena.max_chunk, key, value)?,
            ("arena", "max_bytes") => put_size(&mut self.arena.max_bytes, key, value)?,
            ("pool", "max_idle") => put(&mut self.pool.max_idle, key, value, WHOLE)?,
            ("pool", "max_object_bytes") => put_size(&mut self.pool.max_object_bytes, key, value)?,
            ("pool", "max_bytes") => put_size(&mut self.pool.max_bytes, key, value)?,
            ("pool", "max_objects") => put(&mut self.pool.max_objects, key, value, WHOLE)?,
            ("pool", "min_idle") => put(&mut self.pool.min_idle, key, value, WHOLE)?,
            ("pool", "idle_timeout_ms") => put(&mut self.pool.idle_timeout_ms, key, value, WHOLE)?,
            ("pool", "max_age_ms") => put(&mut self.pool.max_age_ms, key, value, WHOLE)?,
            ("cache", "max_bytes") => put_size(&mut self.cache.max_bytes, key, value)?,
            ("cache", "shards") => put(&mut self.cache.shards, key, value, WHOLE)?,
            ("monitoring", rest) => {
                if !self.monitoring.set(key, rest, value)? {
                    return Err(unknown());
                }
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Returns the defaults, overridden by environment variables that begin with `prefix`; see
    /// [`apply_env`](Self::apply_env).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key of the variable and the allowed values.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::config::MemoryConfig;
    ///
    /// // NEBULA_MEMORY__BUDGET__LIMIT=64MiB would set `budget.limit`.
    /// let config = MemoryConfig::from_env("NEBULA_MEMORY")?;
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn from_env(prefix: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_env(prefix)?;
        config.validate()?;
        Ok(config)
    }

    /// Sets keys from the environment variables that begin with `prefix` and `__`. The rest of a variable's name is
    /// the key, in upper or lower case, with `__` in place of dots.
    ///
    /// # Errors
    ///
    /// The same as for [`set`](Self::set). Also if a value is not UTF-8. Variables that were read before the error
    /// stay applied.
    #[cfg(feature = "std")]
    pub fn apply_env(&mut self, prefix: &str) -> Result<(), ConfigError> {
        for (name, value) in std::env::vars_os() {
            let Some(key) = name.to_str().and_then(|name| key_of_variable(prefix, name)) else {
                continue;
            };
            let Some(value) = value.to_str() else {
                return Err(ConfigError::new(key, value.to_string_lossy(), "UTF-8 text"));
            };
            self.set(&key, value)?;
        }
        Ok(())
    }
}

impl BudgetConfig {
    /// Sets `rest`, the part of `key` below this node.
    fn set(&mut self, key: &str, rest: &str, value: &str) -> Result<(), ConfigError> {
        match rest.split_once('.') {
            None => match rest {
                "name" => self.name = Some(value.to_string()),
                "limit" => {
                    let limit = value.parse().map_err(|_| {
                        ConfigError::new(key, value, limit::allowed_limit().to_string())
                    })?;
                    self.limit = Some(limit);
                }
                "guarantee" => put_size(&mut self.guarantee, key, value)?,
                "priority" => {
                    put(&mut self.priority, key, value, "one of low, normal, high, critical")?;
                }
                "policy" => put(&mut self.policy, key, value, POLICIES)?,
                "weight" => put(&mut self.weight, key, value, WHOLE)?,
                "workers" => put(&mut self.workers, key, value, WHOLE)?,
                "emergency_reserve" => put_size(&mut self.emergency_reserve, key, value)?,
                "overdraft" => put_size(&mut self.overdraft, key, value)?,
                "default_timeout_ms" => {
                    put(&mut self.default_timeout_ms, key, value, MILLISECONDS)?;
                }
                _ => return Err(ConfigError::new(key, value, BUDGET_KEYS)),
            },
            Some(("children", path)) => {
                let (name, rest) = path
                    .split_once('.')
                    .ok_or_else(|| ConfigError::new(key, value, BUDGET_KEYS))?;
                let mut child = self.children.get(name).cloned().unwrap_or_default();
                child.set(key, rest, value)?;
                self.children.insert(name.to_string(), child);
            }
            Some(_) => return Err(ConfigError::new(key, value, BUDGET_KEYS)),
        }
        Ok(())
    }
}

impl MonitoringConfig {
    /// Sets `rest`, the part of `key` after the section. Returns `false` if there is no such key.
    fn set(&mut self, key: &str, rest: &str, value: &str) -> Result<bool, ConfigError> {
        match rest {
            "elevated" => self.elevated = parse(key, value, PERCENT)?,
            "high" => self.high = parse(key, value, PERCENT)?,
            "critical" => self.critical = parse(key, value, PERCENT)?,
            "hysteresis" => self.hysteresis = parse(key, value, PERCENT)?,
            "calm_samples" => self.calm_samples = parse(key, value, WHOLE)?,
            "hold_ms" => self.hold_ms = parse(key, value, MILLISECONDS)?,
            "min_interval_ms" => self.min_interval_ms = parse(key, value, MILLISECONDS)?,
            "max_interval_ms" => self.max_interval_ms = parse(key, value, MILLISECONDS)?,
            "follow_kernel" => self.follow_kernel = parse(key, value, "true or false")?,
            "process_limit" => self.process_limit = parse(key, value, "true or false")?,
            "reserve" => put_size(&mut self.reserve, key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

const BUDGET_KEYS: &str = "name, limit, guarantee, priority, policy, weight, workers, emergency_reserve, overdraft, \
     default_timeout_ms or children.<name>.<key> below a budget";

fn put<T: FromStr>(
    target: &mut Option<T>,
    key: &str,
    value: &str,
    allowed: &str,
) -> Result<(), ConfigError> {
    *target = Some(parse(key, value, allowed)?);
    Ok(())
}

fn put_size(target: &mut Option<ByteSize>, key: &str, value: &str) -> Result<(), ConfigError> {
    let size = limit::size(value)
        .ok_or_else(|| ConfigError::new(key, value, limit::allowed_size().to_string()))?;
    *target = Some(size);
    Ok(())
}

fn parse<T: FromStr>(key: &str, value: &str, allowed: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|_| ConfigError::new(key, value, allowed))
}

/// Converts a variable's name to a key: `PREFIX__BUDGET__LIMIT` → `budget.limit`.
#[cfg(feature = "std")]
fn key_of_variable(prefix: &str, name: &str) -> Option<String> {
    let rest = name.strip_prefix(prefix)?.strip_prefix("__")?;
    Some(rest.to_lowercase().replace("__", "."))
}

#[cfg(test)]
mod tests {
    use super::{MemoryConfig, key_of_variable};

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(key_of_variable("NM", "NM__BUDGET__LIMIT").as_deref(), Some("budget.limit"));
        assert_eq!(key_of_variable("NM", "NMX__BUDGET"), None);
        assert_eq!(key_of_variable("NM", "NM_BUDGET"), None);
    }

    #[test]
    fn a_bad_child_key_leaves_no_trace() {
        let mut config = MemoryConfig::default();
        for key in ["budget.children.a.size", "budget.children.a", "budget.limits", "budget", "x.y"]
        {
            assert_eq!(config.set(key, "1").unwrap_err().key, key);
        }
        assert_eq!(config, MemoryConfig::default());
    }
}
