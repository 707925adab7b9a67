//! What a tenant may take from one that matters less.

use super::isolation::{Family, Policy, Share};

/// A child's bytes beyond its guarantee are anybody's who matters more, and nobody else's.
///
/// # Examples
///
/// See [`BudgetBuilder::policy`](crate::budget::BudgetBuilder::policy).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPriority;

impl Policy for ByPriority {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        let Share { used, guarantee, priority, .. } = family.children[child];
        match family.requester {
            Some(requester) if family.children[requester].priority <= priority => used,
            _ => guarantee,
        }
    }
}
