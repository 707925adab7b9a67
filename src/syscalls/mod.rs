//! The only place that talks to the kernel.
//!
//! [`info`] asks what the process, its memory cgroup and the machine have and use; [`direct`] maps pages.

pub mod direct;
pub mod info;
