//! Foreign code that may panic.

use core::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code; `None` where it panics.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A payload may panic when it is dropped; leaking it is the lesser evil.
    catch_unwind(AssertUnwindSafe(run)).map_err(mem::forget).ok()
}
