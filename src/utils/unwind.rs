//! Runs foreign code that may panic.

use core::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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

/// Calls `each` with every item. If it panics, goes on with the others, and panics at the end as the first did.
pub(crate) fn for_each<T>(items: impl IntoIterator<Item = T>, mut each: impl FnMut(T)) {
    let mut first = None;
    for item in items {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| each(item))) {
            match first {
                None => first = Some(panic),
                Some(_) => drop(contained(|| drop(panic))),
            }
        }
    }
    if let Some(panic) = first {
        resume_unwind(panic);
    }
}
