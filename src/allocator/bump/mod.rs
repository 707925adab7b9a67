//! Bump allocation: to allocate a block is to move a pointer through a region.
//!
//! ```text
//!                Up                                   Down
//!   ┌──────────┬───────────────┐        ┌───────────────┬──────────┐
//!   │ blocks ► │     free      │        │     free      │ ◄ blocks │
//!   └──────────┴───────────────┘        └───────────────┴──────────┘
//!              ▲ pos           ▲ bound  ▲ bound         ▲ pos
//! ```
//!
//! [`BumpAllocator`] allocates from a region that does not grow. An
//! [`Arena`](crate::advanced::arena::Arena) grows. A
//! [`SharedArena`](crate::advanced::arena::SharedArena) is the arena for many threads.
//!
//! | bytes | made by |
//! |---|---|
//! | a block of another allocator, [`Owned`] | `with_capacity`, `from_region` |
//! | a buffer that the caller owns, [`Borrowed`] | `over` |
//! | pages of the kernel, [`Owned`] over a [`PageAllocator`](super::PageAllocator) | `from_region` |
//! | an array on the stack or in a struct, [`InlineBuffer`] | `over` |
//! | an array inside the allocator, [`InlineBuffer`] | [`StackAllocator::from_region`](super::StackAllocator::from_region) |
//!
//! Only a stack may own its array. It stores offsets instead of pointers, so it may be moved.

mod fixed;
mod raw;
mod region;

pub(crate) use self::raw::empty;
#[cfg(feature = "alloc")]
pub(crate) use self::raw::{Overdrawn, RawBump};
pub(crate) use self::region::Place;
pub use self::{
    fixed::BumpAllocator,
    raw::{Direction, Down, Up},
    region::{Borrowed, InlineBuffer, Owned},
};
