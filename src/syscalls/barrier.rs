//! A memory barrier that one thread executes for all threads of the process.

/// Returns whether [`on_all_threads`] works. Tells the kernel that this process will call it.
///
/// It works on Linux 4.14 and later, unless a filter of system calls forbids it.
#[cfg(all(target_os = "linux", not(any(miri, loom, shuttle))))]
pub(crate) fn prepare() -> bool {
    use rustix::thread::{MembarrierCommand, membarrier};
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() && on_all_threads()
}

/// Executes a full memory barrier on each running thread of the process. A thread that does not run has executed one
/// when it stopped. Returns whether the kernel did so: it may refuse even after [`prepare`] returned `true`, if a filter of
/// system calls was installed since.
///
/// # Complexity
///
/// A call to the kernel, which interrupts each processor that runs a thread of the process: microseconds.
#[cfg(all(target_os = "linux", not(any(miri, loom, shuttle))))]
pub(crate) fn on_all_threads() -> bool {
    use rustix::thread::{MembarrierCommand, membarrier};
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

/// Returns `false`: there is no such call.
#[cfg(not(all(target_os = "linux", not(any(miri, loom, shuttle)))))]
pub(crate) const fn prepare() -> bool {
    false
}

/// Does nothing, and returns `false`.
#[cfg(not(all(target_os = "linux", not(any(miri, loom, shuttle)))))]
pub(crate) const fn on_all_threads() -> bool {
    false
}
