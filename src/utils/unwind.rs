//! Foreign code that may panic.

use core::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code; `None` where it panics.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    let payload = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    // The drop of a payload may panic too. What that panics with is leaked, so that this ends.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
    None
}
