//! Arithmetic, hints and the shim between the lock-free code and its model checker.

pub(crate) mod align;
#[cfg(feature = "std")]
pub(crate) mod sync;

/// Marks the calling branch as unlikely: the optimiser moves it out of the hot path.
#[cold]
#[inline(always)]
pub(crate) const fn cold_path() {}
