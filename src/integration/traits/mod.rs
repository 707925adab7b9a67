//! Interfaces between the library and the program that uses it: contexts, policies, factories, life cycles and events.

#[cfg(feature = "std")]
pub mod context;
mod factory;
#[cfg(feature = "std")]
mod isolation;
mod lifecycle;
mod observer;
#[cfg(feature = "std")]
mod priority;

#[cfg(feature = "std")]
pub use self::{
    context::{Cancellation, Context, ContextBuilder, ContextGuard, InContext, checkpoint},
    isolation::{Family, Policy, Share},
    observer::EventQueue,
};
pub use self::{
    factory::{AsyncFactory, Factory},
    lifecycle::Lifecycle,
    observer::{Event, EventKind},
};
#[cfg(feature = "std")]
pub(crate) use self::{observer::TopHolders, priority::by_priority};
