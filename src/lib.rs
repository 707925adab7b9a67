#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod utils;

pub mod advanced;
pub mod allocator;
pub mod core;
pub mod integration;
#[cfg(feature = "std")]
pub mod syscalls;

#[cfg(feature = "alloc")]
pub use crate::advanced::arena;
#[cfg(feature = "std")]
pub use crate::advanced::{
    budget::{self, Budget, Reservation},
    cache, pool,
};
pub use crate::core::{
    ByteSize, MemoryError, PressureLevel, Priority, ReclaimClass, Usage, Watermarks,
};
