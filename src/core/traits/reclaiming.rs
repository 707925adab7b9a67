//! The threads that reclaim memory at this moment.

use core::{cell::Cell, marker::PhantomData};

#[cfg(not(shuttle))]
std::thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

// The model checker runs all its threads on one of the system's.
#[cfg(shuttle)]
shuttle::thread_local! {
    static DEPTH: Cell<u32> = Cell::new(0);
}

/// While one of these lives, the reservations of its thread reclaim nothing.
pub(crate) struct Reclaiming(
    /// It belongs to one thread.
    PhantomData<*const ()>,
);

impl Reclaiming {
    pub(crate) fn enter() -> Self {
        // A thread whose locals are gone is ending: it counts as reclaiming anyway.
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self(PhantomData)
    }

    /// Like [`enter`](Self::enter), unless this thread reclaims memory already.
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
