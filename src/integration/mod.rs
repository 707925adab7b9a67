//! Interfaces between the library and the program that uses it: contexts, policies, events and monitoring.

#[cfg(feature = "std")]
pub mod monitoring;
pub mod traits;
