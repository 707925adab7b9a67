//! Functions of the host that the monitor calls.

use crate::utils::{
    sync::{AtomicU8, Ordering::Relaxed},
    unwind::contained,
};
use core::fmt;

/// A function of the host. It is foreign code: the monitor calls it without a lock. If a call
/// panics, the function is not called again.
pub(super) struct Hook<F> {
    function: F,
    /// 1 once a call has panicked.
    is_broken: AtomicU8,
}

impl<F> Hook<F> {
    pub(super) fn new(function: F) -> Self {
        Self { function, is_broken: AtomicU8::new(0) }
    }

    /// Passes the function to `call`, unless an earlier call has panicked.
    pub(super) fn run(&self, call: impl FnOnce(&F)) {
        if self.is_broken.load(Relaxed) == 0 && contained(|| call(&self.function)).is_none() {
            self.is_broken.store(1, Relaxed);
        }
    }
}

impl<F> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Hook;
    use core::cell::Cell;
    use std::panic::panic_any;

    /// The payload of a panic, whose drop panics too.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a drop that panics");
        }
    }

    #[test]
    fn a_hook_that_panics_is_not_called_again_whatever_its_payload_does() {
        let hook = Hook::new(Cell::new(0));
        for _ in 0..3 {
            hook.run(|calls| {
                calls.set(calls.get() + 1);
                panic_any(Bomb);
            });
        }
        assert_eq!(hook.function.get(), 1);
    }
}
