use super::{Budget, BudgetBuilder};
use crate::{
    core::{
        MemoryError,
        config::{Amount, BudgetConfig, Limit, Share},
        error::ConfigError,
        types::{ByteSize, exact_size, saturating_bytes},
    },
    syscalls::info::Sources,
};
use core::time::Duration;
use std::{
    collections::BTreeMap,
    format,
    path::PathBuf,
    string::{String, ToString as _},
};

/// A tree of budgets that is built from a configuration. It keeps every node alive.
///
/// # Examples
///
/// ```
/// use nebula_memory::{budget::BudgetTree, core::config::MemoryConfig};
///
/// let mut config = MemoryConfig::default();
/// config.set("budget.limit", "1GiB")?;
/// config.set("budget.children.tenants.children.a.guarantee", "64MiB")?;
///
/// let tree = BudgetTree::from_config(&config.budget)?;
/// assert_eq!(tree.get("tenants.a").unwrap().guarantee(), 64 << 20);
/// assert_eq!(tree.root().usage().used, 64 << 20, "a guarantee is charged when it is granted");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BudgetTree {
    root: Budget,
    below: BTreeMap<String, Budget>,
}

impl BudgetTree {
    /// Builds the nodes that the configuration describes.
    ///
    /// If the limit of the root is a share, such as `75%`, it is a share of the tightest bound that the kernel reports
    /// at the moment; see [`memory_bound`](crate::syscalls::info::memory_bound). The limit does not follow later
    /// changes of that bound.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration is not valid, or if the limit is a share and no bound is known. The
    /// error then names the file that could not be read.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{budget::BudgetTree, core::config::MemoryConfig, syscalls::info};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("budget.limit", "75%")?;
    /// if let Ok(bound) = info::memory_bound() {
    ///     let tree = BudgetTree::from_config(&config.budget)?;
    ///     assert!(tree.root().limit().unwrap() as u64 <= bound / 4 * 3 + 3);
    /// }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn from_config(config: &BudgetConfig) -> Result<Self, MemoryError> {
        Self::build(config, &Sources::kernel())
    }

    /// Like [`from_config`](Self::from_config), but reads the kernel's files below `directory`: for example below
    /// `/host`, if the files of a host are mounted there.
    ///
    /// # Errors
    ///
    /// The same as for [`from_config`](Self::from_config).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{budget::BudgetTree, core::config::MemoryConfig};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("budget.limit", "75%")?;
    /// let error = BudgetTree::from_config_under(&config.budget, "/nowhere").unwrap_err();
    /// assert!(error.to_string().contains("`budget.limit`: got `75%`"));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn from_config_under(
        config: &BudgetConfig,
        directory: impl Into<PathBuf>,
    ) -> Result<Self, MemoryError> {
        Self::build(config, &Sources::under(directory))
    }

    fn build(config: &BudgetConfig, sources: &Sources) -> Result<Self, MemoryError> {
        config.validate()?;
        let mut config = config.clone();
        if let Some(Limit(Amount::Share(share))) = config.limit {
            config.limit = Some(resolve(share, sources)?.into());
            // Guarantees must fit the limit that is now known.
            config.validate()?;
        }
        let root = make(Budget::root(config.name.as_deref().unwrap_or("process")), &config)?;
        let mut tree = Self { root: root.clone(), below: BTreeMap::new() };
        tree.add_children(&root, "", &config)?;
        Ok(tree)
    }

    /// Returns the root.
    #[must_use]
    pub const fn root(&self) -> &Budget {
        &self.root
    }

    /// Returns the node at a path of names with dots, such as `tenants.a`; `None` if there is none.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Budget> {
        self.below.get(path)
    }

    /// Returns the nodes below the root with their paths, in the order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Budget)> {
        self.below.iter().map(|(path, budget)| (path.as_str(), budget))
    }

    fn add_children(
        &mut self,
        parent: &Budget,
        path: &str,
        config: &BudgetConfig,
    ) -> Result<(), MemoryError> {
        for (name, config) in &config.children {
            let budget = make(parent.child(name), config)?;
            let path = match path {
                "" => name.clone(),
                above => format!("{above}.{name}"),
            };
            self.add_children(&budget, &path, config)?;
            self.below.insert(path, budget);
        }
        Ok(())
    }
}

/// Returns the bytes of the root's limit, which is a share of the machine or of the control group.
fn resolve(share: Share, sources: &Sources) -> Result<ByteSize, ConfigError> {
    let invalid = |allowed| ConfigError::new("budget.limit", share.to_string(), allowed);
    let bound = sources.memory_bound().map_err(|error| {
        invalid(format!("a size, as the bound on the memory is not known: {error}"))
    })?;
    // The size of the address space is a bound, too.
    match share.of(bound.bytes.min(usize::MAX as u64)) {
        0 => Err(invalid(format!(
            "a size, as {} leaves {}",
            bound.file,
            exact_size(ByteSize::b(bound.bytes))
        ))),
        bytes => Ok(ByteSize::b(bytes)),
    }
}

fn make(mut builder: BudgetBuilder, config: &BudgetConfig) -> Result<Budget, MemoryError> {
    // The configuration is valid: every size fits, and only a root's limit may have been a share.
    if let Some(Limit(Amount::Bytes(limit))) = config.limit {
        builder = builder.limit(saturating_bytes(limit));
    }
    if let Some(priority) = config.priority {
        builder = builder.priority(priority);
    }
    builder = builder
        .policy(config.policy.unwrap_or_default())
        .weight(config.weight.unwrap_or(1))
        .emergency_reserve(config.emergency_reserve.map_or(0, saturating_bytes))
        .overdraft(config.overdraft.map_or(0, saturating_bytes));
    if let Some(milliseconds) = config.default_timeout_ms {
        let timeout = Duration::from_millis(milliseconds.into());
        builder = builder.default_timeout((!timeout.is_zero()).then_some(timeout));
    }
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    builder.guarantee(config.guarantee.map_or(0, saturating_bytes)).build()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::BudgetTree;
    use crate::core::config::MemoryConfig;
    use core::time::Duration;

    #[test]
    fn the_default_timeout_is_configured_or_switched_off() {
        let timeout = |value: Option<&str>| {
            let mut config = MemoryConfig::default();
            if let Some(value) = value {
                config.set("budget.default_timeout_ms", value).unwrap();
            }
            let tree = BudgetTree::from_config(&config.budget).unwrap();
            tree.root().node.tree().default_timeout
        };
        assert_eq!(timeout(None), Some(Duration::from_secs(30)));
        assert_eq!(timeout(Some("1500")), Some(Duration::from_millis(1500)));
        assert_eq!(timeout(Some("0")), None);
    }
}
