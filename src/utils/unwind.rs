//! Foreign code that may panic.

use core::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code; `None` where it panics.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    let payload = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    // A payload may panic when it is dropped, and so may what it panics with: that one is leaked.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
    None
}
