//! Isolation by priority.

use crate::core::Priority;

/// Returns whether a request of priority `requester` may reclaim the bytes that a sibling of priority `holder` has
/// reserved beyond its guarantee.
pub(crate) fn may_reclaim(requester: Priority, holder: Priority) -> bool {
    requester > holder
}
