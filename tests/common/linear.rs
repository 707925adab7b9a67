//! A check that a recorded history of a queue or a stack is linearizable: that there is one order of its operations,
//! within their calls and returns, in which a sequential one would have given the same results.
//!
//! J. Wing and C. Gong, *Testing and Verifying Concurrent Objects*, 1993, with the memory of visited states of G. Lowe,
//! *Testing for Linearizability*, 2017.

use std::{
    collections::HashSet,
    hash::Hash,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Pushed these of so many values, from the front.
    Pushed { values: Vec<u64>, of: usize },
    /// Popped these values, and would have taken so many.
    Popped { values: Vec<u64>, most: usize },
}

/// An operation, with the instants of its call and its return. No two instants are equal.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) called: u64,
    pub(crate) returned: u64,
    pub(crate) did: Did,
}

/// A sequential structure: what a structure for many threads is compared with.
pub(crate) trait Sequential: Clone + Eq + Hash {
    /// Applies an operation. Returns whether the sequential structure may do so, while operations that overlap with this one
    /// move `held` values.
    fn apply(&mut self, did: &Did, held: usize) -> bool;
}

/// Records what three threads do at once, with a clock that all of them advance.
pub(crate) fn history(round: u64, work: impl Fn(u64) -> Did + Sync) -> Vec<Event> {
    let (clock, start) = (AtomicU64::new(0), Barrier::new(3));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3_u64)
            .map(|thread| {
                let (clock, start, work) = (&clock, &start, &work);
                scope.spawn(move || {
                    start.wait();
                    let step = |step| {
                        let called = clock.fetch_add(1, Ordering::SeqCst);
                        let did = work(round * 7 + thread * 5 + step * 3 + thread * step);
                        Event { called, returned: clock.fetch_add(1, Ordering::SeqCst), did }
                    };
                    (0..6).map(step).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Returns how many values the operations move that overlap with one.
fn held(history: &[Event], at: usize) -> usize {
    let own = &history[at];
    let overlaps = |other: &&Event| other.called < own.returned && own.called < other.returned;
    let others = history[..at].iter().chain(&history[at + 1..]).filter(overlaps);
    let values = others.map(|other| match &other.did {
        Did::Pushed { values, .. } | Did::Popped { values, .. } => values.len(),
    });
    values.sum()
}

/// Returns whether the history of at most 64 operations on a structure that was like `empty` is linearizable.
pub(crate) fn is_linearizable(history: &[Event], empty: impl Sequential) -> bool {
    assert!(history.len() <= 64, "a state is a set of 64 bits");
    let mut visited = HashSet::new();
    let mut open = vec![(0_u64, empty)];
    let all = (0..history.len()).fold(0, |all, at| all | 1 << at);
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        let left = || (0..history.len()).filter(move |at| done & (1 << at) == 0);
        // An operation may come next if none of the others has returned before its call.
        let first_return = left().map(|at| history[at].returned).min().expect("not all are done");
        for at in left().filter(|at| history[*at].called < first_return) {
            let mut state = state.clone();
            let done = done | 1 << at;
            if state.apply(&history[at].did, held(history, at))
                && visited.insert((done, state.clone()))
            {
                open.push((done, state));
            }
        }
    }
    false
}
