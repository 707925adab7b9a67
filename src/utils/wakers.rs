//! Wakers of callers that sleep until an event occurs.
//!
//! A caller adds itself, then checks for the event once more, and only then sleeps. A thread that causes the event does
//! so first, and then checks whether a caller is here. So at least one of the two sees the other.
#![forbid(unsafe_code)]

use super::{
    sync::{AtomicU32, Mutex, MutexGuard, Ordering, lock},
    unwind::contained,
};
use core::task::Waker;
use std::collections::BTreeMap;

/// The flag of callers that sleep.
pub(crate) const AWAITED: u32 = 1 << 7;

/// The wakers of callers that sleep, in the order in which they came.
///
/// Each function takes the flags in which [`AWAITED`] is set as long as somebody sleeps here.
#[derive(Default)]
pub(crate) struct Wakers(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
    /// Callers that were woken, and have neither come again nor left.
    woken: usize,
}

impl Wakers {
    /// Adds a caller, or exchanges the waker of the one with this `number` if it has not been woken. Returns its
    /// number.
    pub(crate) fn add(&self, flags: &AtomicU32, number: Option<u64>, waker: &Waker) -> u64 {
        // Wakers are foreign code: they are cloned and dropped without the lock.
        let waker = waker.clone();
        let mut state = lock(&self.0);
        let is_new = number.is_none();
        let number = number.unwrap_or_else(|| {
            state.next += 1;
            state.next
        });
        let before = state.waiting.insert(number, waker);
        if !is_new && before.is_none() {
            state.woken -= 1;
        }
        flags.fetch_or(AWAITED, Ordering::SeqCst);
        drop(state);
        contained(|| drop(before));
        number
    }

    /// Removes a caller. Returns whether it was still there: if not, it was woken.
    pub(crate) fn remove(&self, flags: &AtomicU32, number: u64) -> bool {
        let mut state = lock(&self.0);
        let waker = state.waiting.remove(&number);
        if waker.is_none() {
            state.woken -= 1;
        }
        settle(state, flags);
        let was_there = waker.is_some();
        contained(|| drop(waker));
        was_there
    }

    /// Wakes the caller that came first.
    pub(crate) fn wake_one(&self, flags: &AtomicU32) {
        let mut state = lock(&self.0);
        let first = state.waiting.pop_first();
        state.woken += usize::from(first.is_some());
        settle(state, flags);
        if let Some((_, waker)) = first {
            contained(|| waker.wake());
        }
    }

    pub(crate) fn wake_all(&self, flags: &AtomicU32) {
        let mut state = lock(&self.0);
        let waiting = core::mem::take(&mut state.waiting);
        state.woken += waiting.len();
        settle(state, flags);
        for waker in waiting.into_values() {
            contained(|| waker.wake());
        }
    }

    /// The callers that sleep here or have been woken and have not left.
    pub(crate) fn len(&self) -> usize {
        let state = lock(&self.0);
        state.waiting.len() + state.woken
    }
}

/// Clears the flag if nobody sleeps here.
fn settle(state: MutexGuard<'_, State>, flags: &AtomicU32) {
    if state.waiting.is_empty() {
        flags.fetch_and(!AWAITED, Ordering::SeqCst);
    }
    drop(state);
}
