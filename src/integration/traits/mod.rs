//! Small contracts that the host implements.

mod lifecycle;
mod observer;

#[cfg(feature = "std")]
pub use self::observer::{Delivery, EventQueue};
pub use self::{
    lifecycle::Lifecycle,
    observer::{Event, EventKind, Observer},
};
