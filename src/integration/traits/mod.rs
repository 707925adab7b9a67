//! Small contracts that the host implements.

mod lifecycle;

pub use self::lifecycle::Lifecycle;
