//! The ledger, and the components whose memory it counts: arenas, pools, caches, lock-free
//! structures and spill stores.

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
