//! Policies: the bytes of a child that its siblings may reclaim. These never include its guarantee.

use super::priority::by_priority;
use crate::core::{Priority, SharePolicy};
use core::fmt;

/// Decides which bytes of a node's children may be reclaimed for a sibling when a request does not fit. Use a
/// [`SharePolicy`] of the library, or implement your own.
///
/// Your own policy decides which bytes may be reclaimed, not which requests are admitted. Whatever it returns, no limit
/// is exceeded, every child may reserve free bytes, and no byte within a
/// [guarantee](crate::budget::BudgetBuilder::guarantee) is reclaimed. The policy is called when a request does not fit,
/// without a lock of the ledger. Several threads may call it at once. A policy that panics counts as
/// [`Strict`](SharePolicy::Strict).
///
/// # Complexity
///
/// The library's own policies take constant time. Your own policy gets the figures of all children each time that the
/// ledger considers a child to reclaim memory from.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::{Family, Policy, Share}};
///
/// /// A child that was made earlier keeps its bytes.
/// #[derive(Debug)]
/// struct FirstCome;
///
/// impl Policy for FirstCome {
///     fn entitled(&self, child: usize, family: &Family) -> usize {
///         match family.requester {
///             Some(requester) if requester < child => 0,
///             _ => family.children[child].used,
///         }
///     }
/// }
///
/// let process = Budget::root("process").limit(1 << 30).policy(FirstCome).build()?;
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub trait Policy: fmt::Debug + Send + Sync {
    /// Returns the bytes of `family.children[child]` that may not be reclaimed for the requester. An answer below
    /// the child's guarantee counts as the guarantee.
    fn entitled(&self, child: usize, family: &Family) -> usize;
}

/// A node and its children at the moment of a request that does not fit.
#[derive(Debug)]
#[non_exhaustive]
pub struct Family {
    /// The node's limit in bytes; [`usize::MAX`] if it has none.
    pub limit: usize,
    /// The children, in the order in which they were made.
    pub children: std::vec::Vec<Share>,
    /// The index of the requesting child; `None` if the request was made at the node itself.
    pub requester: Option<usize>,
    /// Requested bytes.
    pub requested: usize,
}

/// The figures of one child.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Share {
    /// Bytes reserved at and below the child.
    pub used: usize,
    /// The child's guarantee in bytes. They are never reclaimed for a sibling.
    pub guarantee: usize,
    /// The child's [weight](crate::budget::BudgetBuilder::weight) among its siblings.
    pub weight: u32,
    /// The child's priority.
    pub priority: Priority,
    /// Whether the child has reserved bytes or a waiting request.
    pub is_active: bool,
}

impl Policy for SharePolicy {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        match self {
            Self::Strict => family.children[child].guarantee,
            Self::Fair | Self::FairAdmission => by_weight(child, family),
            Self::Priority => {
                let Share { used, guarantee, priority, .. } = family.children[child];
                let requester = family.requester.map(|sibling| family.children[sibling].priority);
                by_priority(requester, priority, guarantee, used)
            }
        }
    }
}

/// Divides the limit among the active children. A requester beyond its own share may reclaim nothing.
fn by_weight(child: usize, family: &Family) -> usize {
    let Some(requester) = family.requester else { return family.children[child].guarantee };
    let wanted = family.children[requester].used.saturating_add(family.requested);
    if wanted <= share(family, requester) {
        share(family, child)
    } else {
        family.children[child].used
    }
}

fn share(family: &Family, child: usize) -> usize {
    let weight = |child: &Share| u128::from(child.weight);
    let active = |(n, share): &(usize, &Share)| share.is_active || family.requester == Some(*n);
    let all = family.children.iter().enumerate().filter(active);
    let sum = all.map(|(_, share)| weight(share)).sum::<u128>().max(1);
    let share = family.limit as u128 * weight(&family.children[child]) / sum;
    usize::try_from(share).unwrap_or(usize::MAX)
}
