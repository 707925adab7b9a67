//! Memory by [`Layout`](::core::alloc::Layout).

pub mod bump;
mod error;
pub mod stack;
#[cfg(feature = "alloc")]
mod system;
mod traits;

#[cfg(feature = "alloc")]
pub use self::system::SystemAllocator;
pub use self::{
    bump::BumpAllocator,
    error::AllocError,
    stack::StackAllocator,
    traits::{AllocBox, Allocator, TypedAllocator},
};
