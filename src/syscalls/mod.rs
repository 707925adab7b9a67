//! All calls to the kernel.
//!
//! [`info`] reads the memory usage and the limits of the process, its memory cgroup and the machine. [`direct`] maps
//! pages.

#[cfg(feature = "std")]
pub(crate) mod barrier;
pub mod direct;
#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
pub(crate) mod filesystem;
pub mod info;
