//! Helpers that the modules share: arithmetic of addresses, short copies, marks for memory
//! checkers, background threads, and the shim between the lock-free code and its model checkers.

pub(crate) mod align;
pub(crate) mod copy;
pub(crate) mod id;
pub(crate) mod partial_slice;
pub(crate) mod poison;
#[cfg(feature = "std")]
pub(crate) mod pruned_list;
#[cfg(all(test, shuttle))]
pub(crate) mod schedules;
#[cfg(feature = "std")]
pub(crate) mod service;
#[cfg(feature = "std")]
pub(crate) mod slots;
pub(crate) mod sync;
#[cfg(feature = "std")]
pub(crate) mod thread_number;
#[cfg(feature = "std")]
pub(crate) mod unwind;
#[cfg(feature = "std")]
pub(crate) mod wakers;
