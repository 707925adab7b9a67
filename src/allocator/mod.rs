//! Memory by [`Layout`](::core::alloc::Layout).

pub mod bump;
mod error;
mod misuse;
#[cfg(feature = "alloc")]
pub mod pool;
pub mod stack;
#[cfg(feature = "alloc")]
mod system;
mod traits;

pub use self::{
    bump::{BumpAllocator, SharedBumpAllocator},
    error::AllocError,
    stack::StackAllocator,
    traits::{AllocBox, Allocator, TypedAllocator},
};
#[cfg(feature = "alloc")]
pub use self::{
    pool::{BlockPool, PoolBox},
    system::SystemAllocator,
};
#[cfg(feature = "std")]
pub use self::{
    pool::{SharedBlockPool, SharedPoolBox},
    system::PageAllocator,
};
