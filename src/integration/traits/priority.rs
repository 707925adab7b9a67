//! The policy by priority: bytes beyond a guarantee are reclaimed only for a sibling of a higher priority.

use crate::core::Priority;

/// Returns the bytes of a child of priority `holder` that may not be reclaimed: only its `guarantee`, or `all` for a
/// requester that is a sibling of the same or a lower priority.
pub(crate) fn by_priority(
    requester: Option<Priority>,
    holder: Priority,
    guarantee: usize,
    all: usize,
) -> usize {
    match requester {
        Some(requester) if requester <= holder => all,
        _ => guarantee,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{
        core::{Priority, SharePolicy},
        integration::traits::{Family, Policy as _, Share},
    };

    #[test]
    fn only_a_higher_priority_reclaims_bytes_beyond_a_guarantee() {
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];
        for (above, requester) in priorities.into_iter().enumerate() {
            for (below, holder) in priorities.into_iter().enumerate() {
                let child = |priority| Share {
                    used: 70,
                    guarantee: 20,
                    weight: 1,
                    priority,
                    is_active: true,
                };
                let children = vec![child(requester), child(holder)];
                let mut family = Family { limit: 100, children, requester: Some(0), requested: 50 };
                let expected = if above > below { 20 } else { 70 };
                assert_eq!(SharePolicy::Priority.entitled(1, &family), expected);
                family.requester = None;
                let of_parent = SharePolicy::Priority.entitled(1, &family);
                assert_eq!(of_parent, 20, "a request at the node itself is of no sibling");
            }
        }
    }
}
