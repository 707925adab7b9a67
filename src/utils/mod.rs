//! What the modules share: arithmetic of addresses, and the shim between the lock-free code and its
//! model checker.

#[cfg(feature = "alloc")]
pub(crate) mod align;
#[cfg(feature = "std")]
pub(crate) mod sync;
