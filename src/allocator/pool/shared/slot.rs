//! Small numbers for running threads.

use crate::utils::sync::{Mutex, lock};
use alloc::vec::Vec;

/// Numbers that are nobody's.
pub(super) struct Slots {
    state: Mutex<State>,
}

struct State {
    /// Numbers below `next` that came back.
    free: Vec<usize>,
    next: usize,
}

/// A number that nobody else has until this is dropped.
///
/// What its owner did before that, the next owner sees: a number changes hands under the lock.
pub(super) struct Lease<'a> {
    number: usize,
    slots: &'a Slots,
}

impl Slots {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { free: Vec::new(), next: 0 }) }
    }

    #[cfg(all(test, loom))]
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { free: Vec::new(), next: 0 }) }
    }

    pub(super) fn lease(&self) -> Lease<'_> {
        let mut state = lock(&self.state);
        let number = state.free.pop().unwrap_or_else(|| {
            state.next += 1;
            state.next - 1
        });
        Lease { number, slots: self }
    }
}

impl Lease<'_> {
    pub(super) const fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        lock(&self.slots.state).free.push(self.number);
    }
}

/// No number: larger than any.
const NONE: usize = usize::MAX;

/// The number of this thread, which no other running one has; one that is larger than any where the
/// thread has none, as it is about to end.
#[cfg(not(loom))]
#[inline(always)]
pub(super) fn thread_slot() -> usize {
    let slot = of_thread::SLOT.get();
    if slot == NONE { of_thread::first() } else { slot }
}

/// Models pass numbers of their own.
#[cfg(loom)]
pub(super) fn thread_slot() -> usize {
    NONE
}

#[cfg(not(loom))]
mod of_thread {
    use super::{Lease, NONE, Slots};
    use core::cell::Cell;
    use std::thread_local;

    static SLOTS: Slots = Slots::new();

    /// Gives the thread's number back when the thread ends.
    struct Ending {
        /// Dropped after `SLOT` is set back, so that nobody uses the number when it is another's.
        _lease: Lease<'static>,
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            SLOT.set(NONE);
        }
    }

    thread_local! {
        /// Apart from the lease, as it needs no destructor, so that it is there for those of other
        /// thread-local values, and costs one load.
        pub(super) static SLOT: Cell<usize> = const { Cell::new(NONE) };
        static ENDING: Ending = {
            let lease = SLOTS.lease();
            SLOT.set(lease.number());
            Ending { _lease: lease }
        };
    }

    /// The number of a thread that has none yet, or no longer.
    #[cold]
    pub(super) fn first() -> usize {
        ENDING.try_with(|_| SLOT.get()).unwrap_or(NONE)
    }
}
