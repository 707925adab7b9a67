//! Memory by [`Layout`](::core::alloc::Layout).

pub mod bump;
mod error;
#[cfg(feature = "alloc")]
mod system;
mod traits;

#[cfg(feature = "alloc")]
pub use self::system::SystemAllocator;
pub use self::{error::AllocError, traits::Allocator};
