//! The orderings of operations whose outcome is "full" or "empty".
//!
//! They are sequentially consistent, so that all threads agree on one order of the operations on several queues. The
//! values themselves need only acquire and release. The model checker treats every sequentially consistent operation as
//! a fence, which would hide a missing acquire or release. So it gets the weaker orderings.
#![forbid(unsafe_code)]

use crate::utils::sync::Ordering;

/// `SeqCst`, for a compare-and-swap.
pub(super) const TOTAL_SWAP: Ordering =
    if cfg!(loom) { Ordering::AcqRel } else { Ordering::SeqCst };

/// `SeqCst`, for a load.
pub(super) const TOTAL_LOAD: Ordering =
    if cfg!(loom) { Ordering::Acquire } else { Ordering::SeqCst };
