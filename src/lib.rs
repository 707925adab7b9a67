#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod utils;

pub mod advanced;
pub mod allocator;
pub mod core;
#[cfg(feature = "std")]
pub mod syscalls;

pub use crate::core::{
    ByteSize, MemoryError, PressureLevel, Priority, ReclaimClass, Usage, Watermarks,
};

#[cfg(feature = "alloc")]
pub use crate::advanced::arena;
#[cfg(feature = "std")]
pub use crate::advanced::{
    budget::{self, Budget, Reservation},
    cache, pool,
};
