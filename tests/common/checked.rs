//! A value whose drop is checked.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// A value that is dropped once, and never while it is used.
pub(crate) struct Checked {
    pub(crate) number: usize,
    pub(crate) is_alive: AtomicBool,
    alive: Arc<AtomicUsize>,
}

impl Checked {
    pub(crate) fn new(number: usize, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { number, is_alive: AtomicBool::new(true), alive: Arc::clone(alive) }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        assert!(self.is_alive.swap(false, Ordering::Relaxed), "dropped once");
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}
