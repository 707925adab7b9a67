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
//! [`BumpAllocator`] is the allocator of a region that does not grow. [`Arena`](crate::advanced::arena::Arena)
//! is the one that grows, and [`SharedArena`](crate::advanced::arena::SharedArena) the one for many threads.
//!
//! | bytes | made by |
//! |---|---|
//! | a block of another allocator, [`Owned`] | `with_capacity`, `from_region` |
//! | a buffer that is somebody else's, [`Borrowed`] | `over` |
//! | pages of their own, [`ReadWrite`] | `from_region` |
//! | an array on the stack or in a struct, [`InlineBuffer`] | `over` |
//! | an array within the allocator, [`InlineBuffer`] | [`StackAllocator::from_region`](super::StackAllocator::from_region) |
//!
//! The last is for a stack alone: it counts bytes, and has no pointer into a value that is about to move.

mod fixed;
mod raw;
mod region;

pub(crate) use self::raw::empty;
#[cfg(feature = "alloc")]
pub(crate) use self::raw::{Overdrawn, RawBump};
#[cfg(feature = "std")]
pub use self::region::ReadWrite;
pub use self::{
    fixed::BumpAllocator,
    raw::{Direction, Down, Up},
    region::{Borrowed, InlineBuffer, Owned, Place, Region},
};
