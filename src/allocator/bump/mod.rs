//! Memory by moving a pointer through a region.
//!
//! ```text
//!                Up                                   Down
//!   ┌──────────┬───────────────┐        ┌───────────────┬──────────┐
//!   │ blocks ► │     free      │        │     free      │ ◄ blocks │
//!   └──────────┴───────────────┘        └───────────────┴──────────┘
//!              ▲ pos           ▲ bound  ▲ bound         ▲ pos
//! ```
//!
//! [`BumpAllocator`] is the allocator of a region that does not grow: a buffer, a block of another
//! allocator, pages; [`SharedBumpAllocator`] that of one for many threads. [`Arena`](crate::advanced::arena::Arena) is the one that grows.

mod fixed;
mod raw;
mod region;
mod shared;

pub(crate) use self::raw::empty;
#[cfg(feature = "alloc")]
pub(crate) use self::raw::{Overdrawn, RawBump};
#[cfg(feature = "std")]
pub use self::region::ReadWrite;
pub use self::{
    fixed::BumpAllocator,
    raw::{Direction, Down, Up},
    region::{Borrowed, InlineBuffer, Owned, Region},
    shared::SharedBumpAllocator,
};
