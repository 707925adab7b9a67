//! Which allocator a thread has switched to.

use super::{Entry, Shared};
use core::{cell::Cell, ptr};
use std::{sync::Arc, thread_local};

/// A switch that is in force, on the stack of the function that made it.
struct Scope {
    manager: *const Shared,
    entry: Arc<Entry>,
    outer: *const Scope,
}

thread_local! {
    /// The innermost switch of this thread, of whatever manager.
    ///
    /// # Invariants
    ///
    /// Null, or a scope whose `enter` has not returned; so is each `outer`.
    static INNERMOST: Cell<*const Scope> = const { Cell::new(ptr::null()) };
}

/// The entry that this thread has switched `manager` to.
#[inline]
pub(super) fn active(manager: &Arc<Shared>) -> Option<Arc<Entry>> {
    let mut next = INNERMOST.get();
    // SAFETY: null or alive (the invariants), as it is left by its own thread alone.
    while let Some(scope) = unsafe { next.as_ref() } {
        if ptr::eq(scope.manager, Arc::as_ptr(manager)) {
            return Some(Arc::clone(&scope.entry));
        }
        next = scope.outer;
    }
    None
}

/// Runs `work` with `manager` switched to `entry`.
pub(super) fn enter<R>(manager: &Arc<Shared>, entry: &Arc<Entry>, work: impl FnOnce() -> R) -> R {
    /// Leaves the scope, whether `work` returns or panics.
    struct Leave(*const Scope);
    impl Drop for Leave {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }
    let outer = INNERMOST.get();
    let scope = Scope { manager: Arc::as_ptr(manager), entry: Arc::clone(entry), outer };
    // Dropped before the scope is, being declared later.
    let _leave = Leave(outer);
    INNERMOST.set(&raw const scope);
    work()
}
