//! The ledger, and the components that charge it: arenas, pools, caches, queues and spill stores.

#[cfg(feature = "alloc")]
pub mod arena;
#[cfg(feature = "std")]
pub mod budget;
#[cfg(feature = "std")]
pub mod cache;
#[cfg(feature = "std")]
pub mod lockfree;
#[cfg(feature = "std")]
pub mod pool;
