//! Allocators: the [`Allocator`] trait, its implementations, and wrappers that count or refuse
//! blocks.

pub mod bump;
mod error;
#[cfg(feature = "std")]
pub(crate) mod magazines;
#[cfg(feature = "std")]
pub mod manager;
mod misuse;
#[cfg(feature = "std")]
pub mod monitored;
#[cfg(feature = "alloc")]
pub mod pool;
pub mod stack;
pub mod stats;
#[cfg(feature = "alloc")]
mod system;
pub mod tracked;
mod traits;

#[cfg(feature = "alloc")]
pub(crate) use self::traits::grow_then_zero;
pub use self::{
    bump::BumpAllocator,
    error::AllocError,
    stack::StackAllocator,
    tracked::TrackedAllocator,
    traits::{AllocBox, Allocator, TypedAllocator},
};
#[cfg(feature = "std")]
pub use self::{
    manager::{AllocatorHandle, AllocatorManager},
    monitored::MonitoredAllocator,
};
#[cfg(feature = "alloc")]
pub use self::{pool::BlockPool, system::SystemAllocator};
#[cfg(feature = "std")]
pub use self::{pool::SharedBlockPool, system::PageAllocator, tracked::ContextAllocator};
