//! The counters that all allocators use.
//!
//! A [`TrackedAllocator`](super::TrackedAllocator) has one of three kinds of counters:
//!
//! | counters | for | a block costs | peak |
//! |---|---|---|---|
//! | [`LocalCounters`] | one thread | plain loads and stores | exact |
//! | [`SharedCounters`] | many threads | two atomic additions | exact |
//! | [`StripedCounters`] | many busy threads | plain loads and stores, on separate cache lines | within 2.5 MiB |
//!
//! A block is counted in the class of its size, once when it is allocated and once when it is
//! freed. The numbers of allocations, of frees and of live blocks are sums over the classes. Apart
//! from that, only the bytes of a block are counted:
//!
//! ```text
//!   class      0    1    2     3      4           k
//!   sizes     0,1   2   3,4   5–8   9–16  (2^(k-1), 2^k]
//!   made       7    0    4     9      2       a block that is resized is gone from its old class
//!   gone       7    0    3     9      2       and made in its new one
//!                        └ one live
//! ```
//!
//! Counts are `usize` and wrap around. Differences of counts, such as the number of live blocks,
//! stay right.

#[cfg(feature = "std")]
mod call_sites;
mod counters;
mod figures;
mod striped;
mod traits;

#[cfg(feature = "std")]
pub use self::call_sites::CallSites;
#[cfg(feature = "std")]
pub use self::figures::CallSite;
pub(super) use self::traits::GlobalCounters;
pub use self::{
    counters::{LocalCounters, SharedCounters},
    figures::AllocStats,
    striped::StripedCounters,
    traits::Counters,
};
