//! The only place that talks to the kernel.
//!
//! [`info`] asks what the process, its memory cgroup and the machine have and use; [`direct`] maps pages.

pub mod direct;
#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
pub(crate) mod filesystem;
pub mod info;
