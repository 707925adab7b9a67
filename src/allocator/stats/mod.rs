//! The one set of counters of the allocators.
//!
//! [`TrackedAllocator`](super::TrackedAllocator) keeps one of three:
//!
//! | counters | for | a block costs | peak |
//! |---|---|---|---|
//! | [`LocalCounters`] | one thread | plain loads and stores | exact |
//! | [`SharedCounters`] | many threads | two atomic additions | exact |
//! | [`StripedCounters`] | many threads that allocate all the time | plain loads and stores, on lines of their own | within 2.5 MiB |
//!
//! A block is counted in the class of its size, once when it is made and once when it is gone. The
//! number of allocations, of frees and of live blocks are sums over the classes, so that nothing
//! else is counted per block but its bytes:
//!
//! ```text
//!   class      0    1    2     3      4           k
//!   sizes     0,1   2   3,4   5–8   9–16  (2^(k-1), 2^k]
//!   made       7    0    4     9      2       a block that is resized is gone from its old class
//!   gone       7    0    3     9      2       and made in its new one
//!                        └ one live
//! ```
//!
//! Counts are `usize` and wrap; differences of them, such as what is live, stay right.

#[cfg(feature = "std")]
mod call_sites;
mod counters;
mod figures;
mod record;
mod striped;

#[cfg(feature = "std")]
pub use self::call_sites::CallSites;
#[cfg(feature = "std")]
pub use self::figures::CallSite;
#[cfg(feature = "std")]
pub(super) use self::record::Sealed;
pub use self::{
    counters::{Counter, CounterSet, LocalCounters, SharedCounters},
    figures::{AllocStats, SizeClass},
    record::{Counters, Record},
    striped::StripedCounters,
};
