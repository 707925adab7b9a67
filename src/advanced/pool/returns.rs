//! Callers that are about to make an object, and would rather have one that is returned.
//!
//! A caller adds itself, then looks for an idle object once more, and only then sleeps. Who returns an object first
//! makes it idle, then looks whether somebody is here. So one of the two sees the other.
#![forbid(unsafe_code)]

use super::flag;
use crate::utils::{
    sync::{AtomicU32, Mutex, Ordering, lock},
    unwind::contained,
};
use core::task::Waker;
use std::{collections::BTreeMap, vec::Vec};

/// Their wakers, in the order in which they came.
#[derive(Default)]
pub(super) struct Returns(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Returns {
    /// Adds a caller, or exchanges the waker of the one with this `number` if it has not been woken. Returns its
    /// number.
    pub(super) fn add(&self, flags: &AtomicU32, number: Option<u64>, waker: &Waker) -> u64 {
        // Wakers are foreign code: they are cloned and dropped without the lock.
        let waker = waker.clone();
        let mut state = lock(&self.0);
        let number = number.unwrap_or_else(|| {
            state.next += 1;
            state.next
        });
        let before = state.waiting.insert(number, waker);
        if before.is_none() {
            flags.fetch_add(flag::AWAITED, Ordering::SeqCst);
        }
        drop(state);
        contained(|| drop(before));
        number
    }

    /// Removes a caller. Returns whether it was still there: if not, it was woken.
    pub(super) fn remove(&self, flags: &AtomicU32, number: u64) -> bool {
        let mut state = lock(&self.0);
        let waker = state.waiting.remove(&number);
        if waker.is_some() {
            flags.fetch_sub(flag::AWAITED, Ordering::SeqCst);
        }
        drop(state);
        let was_there = waker.is_some();
        contained(|| drop(waker));
        was_there
    }

    /// Wakes the caller that came first.
    pub(super) fn wake_one(&self, flags: &AtomicU32) {
        let mut state = lock(&self.0);
        let first = state.waiting.pop_first();
        if first.is_some() {
            flags.fetch_sub(flag::AWAITED, Ordering::SeqCst);
        }
        drop(state);
        if let Some((_, waker)) = first {
            contained(|| waker.wake());
        }
    }

    pub(super) fn wake_all(&self, flags: &AtomicU32) {
        let all: Vec<_> = {
            let mut state = lock(&self.0);
            let waiting = core::mem::take(&mut state.waiting);
            for _ in &waiting {
                flags.fetch_sub(flag::AWAITED, Ordering::SeqCst);
            }
            waiting.into_values().collect()
        };
        for waker in all {
            contained(|| waker.wake());
        }
    }
}
