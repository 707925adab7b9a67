//! Numbers that are used once in the life of the process.

use core::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

/// A number that no other call returns.
///
/// Not the model checker's atomic: a plain counter of names, no part of any protocol, and it must be a
/// static. At one a nanosecond it lasts for 584 years.
pub(crate) fn unique_id() -> NonZeroU64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX)
}
