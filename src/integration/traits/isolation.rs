//! What a tenant may take from another: what of a child's bytes are its own, when one of its siblings needs
//! some. Nothing below its guarantee ever.

use crate::core::Priority;
use core::fmt;

/// How a node divides what it has among its children when they want more than that.
///
/// A policy decides what may be taken back, never what is admitted: whatever it says, no limit is
/// exceeded, what is free is anybody's, and nothing below a [guarantee](crate::budget::BudgetBuilder::guarantee)
/// is taken. It is asked when a request does not fit, without a lock of the ledger, and may be asked
/// by several threads at once. One that panics is taken for [`Strict`].
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::{Family, Policy, Share}};
///
/// /// What a child has had for longer is its own.
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
    /// The bytes of `family.children[child]` that are not taken back for the requester; less than its
    /// guarantee means as much as that.
    fn entitled(&self, child: usize, family: &Family) -> usize;
}

/// A node's children at the moment of a request that does not fit.
#[derive(Debug)]
#[non_exhaustive]
pub struct Family {
    /// The node's limit in bytes; [`usize::MAX`] where it has none.
    pub limit: usize,
    /// The children, in the order in which they were made.
    pub children: std::vec::Vec<Share>,
    /// Which of them the request comes from; `None` where it was made at the node itself.
    pub requester: Option<usize>,
    /// Bytes that are requested.
    pub requested: usize,
}

/// What a child has and is due.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Share {
    /// Bytes held at and below it.
    pub used: usize,
    /// Bytes that are its own whatever the policy says.
    pub guarantee: usize,
    /// How much of the node it is due, beside the weights of its siblings.
    pub weight: u32,
    /// How much it matters.
    pub priority: Priority,
    /// Whether it holds or waits for anything.
    pub is_active: bool,
}

/// Only a guarantee is a child's own: what it holds beyond that is borrowed, and taken back first from
/// who has borrowed most. The default.
///
/// # Examples
///
/// See [`BudgetBuilder::policy`](crate::budget::BudgetBuilder::policy).
#[derive(Clone, Copy, Debug, Default)]
pub struct Strict;

impl Policy for Strict {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        family.children[child].guarantee
    }
}

/// The node's limit is divided among the children that are active, by their
/// [weights](crate::budget::BudgetBuilder::weight). A child within its share may have back what others hold
/// beyond theirs; one that is beyond its own takes nothing from anybody. A share that is idle is lent,
/// and comes back by reclaim.
///
/// # Examples
///
/// See [`BudgetBuilder::policy`](crate::budget::BudgetBuilder::policy).
#[derive(Clone, Copy, Debug, Default)]
pub struct FairShare;

/// Like [`FairShare`], at admission too: a request that would take a child beyond its share is refused with
/// [`OverShare`](crate::core::RefusedReason::OverShare) while a request of a sibling waits.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::FairAdmission};
///
/// let process = Budget::root("process").limit(900).policy(FairAdmission).build()?;
/// let (a, b) = (process.child("a").build()?, process.child("b").weight(2).build()?);
/// let held = (a.try_reserve(100)?, b.try_reserve(100)?);
/// assert_eq!((a.share(), b.share()), (Some(300), Some(600)));
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FairAdmission;

impl Policy for FairAdmission {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        FairShare.entitled(child, family)
    }
}

impl FairShare {
    fn share(family: &Family, child: usize) -> usize {
        let weight = |child: &Share| u128::from(child.weight);
        let active = |(n, share): &(usize, &Share)| share.is_active || family.requester == Some(*n);
        let all = family.children.iter().enumerate().filter(active);
        let sum = all.map(|(_, share)| weight(share)).sum::<u128>().max(1);
        let share = family.limit as u128 * weight(&family.children[child]) / sum;
        usize::try_from(share).unwrap_or(usize::MAX)
    }
}

impl Policy for FairShare {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        let Some(requester) = family.requester else { return family.children[child].guarantee };
        let wanted = family.children[requester].used.saturating_add(family.requested);
        if wanted <= Self::share(family, requester) {
            Self::share(family, child)
        } else {
            family.children[child].used
        }
    }
}
