//! Small numbers for running threads: each number belongs to one running thread at a time.
#![cfg_attr(shuttle, expect(dead_code, reason = "its models have no numbers"))]

use crate::utils::sync::{Mutex, lock};
use alloc::vec::Vec;

/// Gives out numbers, each to one holder at a time.
pub(crate) struct Numbers {
    state: Mutex<State>,
}

struct State {
    /// The numbers below `next` that were given back.
    free: Vec<usize>,
    next: usize,
}

/// A number that no other lease has until this one is dropped.
///
/// The next holder of the number sees everything that this holder did before, as the number goes
/// back under the lock.
pub(crate) struct Lease<'a> {
    number: usize,
    numbers: &'a Numbers,
}

impl Numbers {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new() -> Self {
        Self { state: Mutex::new(State { free: Vec::new(), next: 0 }) }
    }

    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { free: Vec::new(), next: 0 }) }
    }

    pub(crate) fn lease(&self) -> Lease<'_> {
        let mut state = lock(&self.state);
        let number = state.free.pop().unwrap_or_else(|| {
            state.next += 1;
            state.next - 1
        });
        Lease { number, numbers: self }
    }
}

impl Lease<'_> {
    pub(crate) const fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        lock(&self.numbers.state).free.push(self.number);
    }
}

/// Stands for no number, and is larger than every number.
const NONE: usize = usize::MAX;

/// Returns the number of this thread, which no other running thread has. A thread that is about to
/// end may have no number. Then the result is larger than every number.
#[cfg(not(any(loom, shuttle)))]
#[inline(always)]
pub(crate) fn thread_number() -> usize {
    let number = of_thread::NUMBER.get();
    if number == NONE { of_thread::first() } else { number }
}

/// Models pass their own numbers, or have none: they run many threads on one of the system's.
#[cfg(any(loom, shuttle))]
pub(crate) fn thread_number() -> usize {
    NONE
}

#[cfg(not(any(loom, shuttle)))]
mod of_thread {
    use super::{Lease, NONE, Numbers};
    use core::cell::Cell;
    use std::thread_local;

    static NUMBERS: Numbers = Numbers::new();

    /// Gives the thread's number back when the thread ends.
    struct Ending {
        /// Dropped after `NUMBER` is set back, so that this thread does not use the number when
        /// another thread has it.
        _lease: Lease<'static>,
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            NUMBER.set(NONE);
        }
    }

    thread_local! {
        /// Separate from the lease, as it needs no destructor. So the destructors of other
        /// thread-local values can use it, and it costs one load.
        pub(crate) static NUMBER: Cell<usize> = const { Cell::new(NONE) };
        static ENDING: Ending = {
            let lease = NUMBERS.lease();
            NUMBER.set(lease.number());
            Ending { _lease: lease }
        };
    }

    /// Returns the number of a thread that has no number yet, or [`NONE`] if the thread's number
    /// went back already.
    #[cold]
    pub(crate) fn first() -> usize {
        ENDING.try_with(|_| NUMBER.get()).unwrap_or(NONE)
    }
}
