//! The orderings of operations whose outcome is "full" or "empty".
//!
//! They are sequentially consistent: then operations on several queues have one order that all threads agree on. The
//! values themselves need only acquire and release. The model checker takes every sequentially consistent operation
//! for a fence, which would hide a missing acquire or release. So it gets the weaker orderings.
#![forbid(unsafe_code)]

use crate::utils::sync::Ordering;

/// `SeqCst`, for a compare-and-swap.
pub(super) const TOTAL_SWAP: Ordering =
    if cfg!(loom) { Ordering::AcqRel } else { Ordering::SeqCst };

/// `SeqCst`, for a load.
pub(super) const TOTAL_LOAD: Ordering =
    if cfg!(loom) { Ordering::Acquire } else { Ordering::SeqCst };
