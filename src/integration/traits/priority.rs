//! Isolation by priority.

use super::isolation::{Family, Share};

/// Protects all bytes of a child from siblings of the same or a lower priority, and its guarantee from the others.
pub(super) fn by_priority(child: usize, family: &Family) -> usize {
    let Share { used, guarantee, priority, .. } = family.children[child];
    match family.requester {
        Some(requester) if family.children[requester].priority <= priority => used,
        _ => guarantee,
    }
}
