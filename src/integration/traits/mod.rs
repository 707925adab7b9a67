//! Small interfaces between the library and its host: contexts, policies, life cycles and observers.

#[cfg(feature = "std")]
pub mod context;
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
    lifecycle::Lifecycle,
    observer::{Event, EventKind},
};
#[cfg(feature = "std")]
pub(crate) use self::{observer::TopHolders, priority::may_reclaim};
