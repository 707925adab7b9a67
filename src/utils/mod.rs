//! The shim between the lock-free code and its model checker.

#[cfg(feature = "std")]
pub(crate) mod sync;
