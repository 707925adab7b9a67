//! Numbers that are used once in the life of the process, and whether threads can be told apart.

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

/// Whether a thread-local that is never dropped is a place in memory, which needs no memory to be found, so
/// that an allocator may ask for one.
#[cfg(feature = "std")]
pub(crate) const HAS_PLAIN_THREAD_LOCALS: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple",
    all(windows, target_env = "msvc"),
));
