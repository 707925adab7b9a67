//! Memory by moving a pointer.

mod raw;

pub use self::raw::{Direction, Down, Up};
pub(crate) use self::raw::{RawBump, empty};
