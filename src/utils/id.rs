//! Numbers that are used once in the life of the process, and the platforms where threads can be
//! told apart.

#[cfg(feature = "std")]
use core::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

/// Returns a number that no other call returns.
///
/// This is not the model checker's atomic: it counts names, takes part in no protocol, and must be
/// a static. With one number per nanosecond it lasts for 584 years.
#[cfg(feature = "std")]
pub(crate) fn unique_id() -> NonZeroU64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX)
}

/// Whether finding a thread-local without a destructor needs no memory. Only then may an allocator
/// use one.
#[cfg(feature = "std")]
pub(crate) const HAS_PLAIN_THREAD_LOCALS: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple",
    all(windows, target_env = "msvc"),
));
