//! What the modules share: arithmetic of addresses, short copies, and the shim between the lock-free code and its
//! model checker.

pub(crate) mod align;
#[cfg(feature = "alloc")]
pub(crate) mod copy;
#[cfg(feature = "alloc")]
pub(crate) mod id;
#[cfg(feature = "std")]
pub(crate) mod sync;
