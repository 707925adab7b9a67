use super::{
    Budget,
    ledger::UNLIMITED,
    node::{Node, Terms},
    reclaim,
};
use crate::core::{
    MemoryError, Priority,
    config::{MAX_DEPTH, too_deep},
    error::ConfigError,
};
use std::{boxed::Box, string::ToString, sync::Arc};

/// Describes a node before it is made; from [`Budget::root`] or [`Budget::child`].
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, Priority};
///
/// let process = Budget::root("process").limit(1 << 30).build()?;
/// let batch = process.child("batch").limit(1 << 28).priority(Priority::Low).build()?;
/// assert_eq!(batch.limit(), Some(1 << 28));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct BudgetBuilder {
    name: Box<str>,
    parent: Option<Arc<Node>>,
    limit: usize,
    guarantee: usize,
    priority: Priority,
}

impl BudgetBuilder {
    pub(super) fn new(name: &str, parent: Option<Arc<Node>>) -> Self {
        let priority = parent.as_ref().map_or_else(Priority::default, |parent| parent.priority());
        Self { name: name.into(), parent, limit: UNLIMITED, guarantee: 0, priority }
    }

    /// The most bytes that may be held at and below the node. Without it only the nodes above are
    /// a bound.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Bytes that are the node's whatever its siblings hold. They are charged to the parent when
    /// the node is made, and given back when it is gone. A root has nobody to be guaranteed
    /// against, so its guarantee must be 0, the default.
    pub const fn guarantee(mut self, bytes: usize) -> Self {
        self.guarantee = bytes;
        self
    }

    /// How much the node matters when memory is taken back; its parent's by default.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Makes the node.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] for an empty name, a limit of 0, a guarantee above the limit, a guarantee
    ///   of a root, or a node with 64 above it.
    /// - [`Refused`](crate::core::Refused) where the guarantee does not fit the parent; nothing has
    ///   changed then.
    pub fn build(self) -> Result<Budget, MemoryError> {
        let Self { name, parent, limit, guarantee, priority } = self;
        let invalid = |key: &str, value: usize, allowed: &str| {
            Err(ConfigError::new(key, value.to_string(), allowed).into())
        };
        if name.is_empty() {
            return Err(ConfigError::new("budget.name", "", "a name that is not empty").into());
        }
        if limit == 0 {
            return invalid("budget.limit", limit, "at least 1 byte");
        }
        if guarantee > limit {
            return invalid(
                "budget.guarantee",
                guarantee,
                &std::format!("0 to the limit, {limit}"),
            );
        }
        if let Some(parent) = &parent {
            if parent.depth() >= MAX_DEPTH {
                return Err(too_deep("budget").into());
            }
            if let Err(bar) = parent.try_charge(guarantee) {
                reclaim::until_admitted(parent, guarantee, bar)?;
            }
        } else if guarantee > 0 {
            return invalid("budget.guarantee", guarantee, "0 for a root");
        }
        let terms = Terms { name: name.into(), limit, guarantee, priority };
        let node = match &parent {
            Some(parent) => Node::child(parent, terms),
            None => Node::root(terms),
        };
        Ok(Budget { node })
    }
}
