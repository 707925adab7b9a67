//! Where a host application plugs in.

#[cfg(feature = "std")]
pub mod monitoring;
pub mod traits;
