//! Memory by [`Layout`](::core::alloc::Layout).

mod error;
#[cfg(feature = "alloc")]
mod system;
mod traits;

#[cfg(feature = "alloc")]
pub use self::system::SystemAllocator;
pub use self::{error::AllocError, traits::Allocator};
