//! Memory by purpose: the ledger and what draws on it.

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
