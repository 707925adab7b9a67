//! A value that counts its drops.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Counts its drops. Some panic.
pub(crate) struct Dropped<'a> {
    pub(crate) drops: &'a AtomicUsize,
    pub(crate) panics: bool,
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        if self.panics {
            resume_unwind(Box::new("as planned"));
        }
    }
}
