//! Where a host application plugs in.

pub mod traits;
