//! Stacks for many threads: one with a capacity, and one that grows by nodes.

mod bounded;
#[cfg(all(test, loom))]
mod loom_tests;
mod slot;
#[cfg(all(test, not(loom)))]
mod tests;
mod unbounded;

pub use self::{
    bounded::Stack,
    unbounded::{PopAll, UnboundedStack},
};
