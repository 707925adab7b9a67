//! Marks the threads that reclaim memory now.

use core::{cell::Cell, marker::PhantomData};

#[cfg(not(shuttle))]
std::thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

// The model checker runs all its threads on one thread of the system, so it needs its own thread-local.
#[cfg(shuttle)]
shuttle::thread_local! {
    static DEPTH: Cell<u32> = Cell::new(0);
}

/// While a thread has such a value, its reservations do not reclaim memory.
pub(crate) struct Reclaiming(
    /// Not `Send`: the value belongs to one thread.
    PhantomData<*const ()>,
);

impl Reclaiming {
    pub(crate) fn enter() -> Self {
        // If the thread-local is destroyed, the thread is ending. Such a thread counts as reclaiming anyway.
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self(PhantomData)
    }

    /// Like [`enter`](Self::enter); `None` if this thread is reclaiming already.
    pub(crate) fn enter_first() -> Option<Self> {
        (!Self::is_under_way()).then(Self::enter)
    }

    pub(crate) fn is_under_way() -> bool {
        DEPTH.try_with(Cell::get).unwrap_or(1) > 0
    }
}

impl Drop for Reclaiming {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}
