//! Runs foreign code that may panic.

use core::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code. Returns `None` if the code panics.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    let payload = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    // The drop of the payload may panic too. The payload of that panic is leaked, so that this
    // ends.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
    None
}
