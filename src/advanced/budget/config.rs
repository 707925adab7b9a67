use super::{Budget, BudgetBuilder, ByPriority, FairShare};
use crate::core::{MemoryError, SharePolicy, config::BudgetConfig, types::saturating_bytes};
use std::{collections::BTreeMap, format, string::String};

/// A tree that was made from a configuration: keeps every node of it alive.
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
    /// Makes the nodes that the configuration describes.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) where it is not valid.
    pub fn from_config(config: &BudgetConfig) -> Result<Self, MemoryError> {
        config.validate()?;
        let root = make(Budget::root(config.name.as_deref().unwrap_or("process")), config)?;
        let mut tree = Self { root: root.clone(), below: BTreeMap::new() };
        tree.add_children(&root, "", config)?;
        Ok(tree)
    }

    /// The root.
    #[must_use]
    pub const fn root(&self) -> &Budget {
        &self.root
    }

    /// The node at a path of names with dots, such as `tenants.a`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Budget> {
        self.below.get(path)
    }

    /// The nodes below the root with their paths, in the order of these.
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

fn make(mut builder: BudgetBuilder, config: &BudgetConfig) -> Result<Budget, MemoryError> {
    if let Some(limit) = config.limit {
        builder = builder.limit(saturating_bytes(limit));
    }
    if let Some(priority) = config.priority {
        builder = builder.priority(priority);
    }
    builder = match config.policy {
        None | Some(SharePolicy::Strict) => builder,
        Some(SharePolicy::Fair) => builder.policy(FairShare),
        Some(SharePolicy::Priority) => builder.policy(ByPriority),
    };
    builder = builder
        .weight(config.weight.unwrap_or(1))
        .emergency_reserve(config.emergency_reserve.map_or(0, saturating_bytes))
        .overdraft(config.overdraft.map_or(0, saturating_bytes));
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    builder.guarantee(config.guarantee.map_or(0, saturating_bytes)).build()
}
