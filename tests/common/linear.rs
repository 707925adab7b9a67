//! A check that a recorded history of a queue is linearizable: that there is one order of its operations, within
//! their calls and returns, in which a sequential queue would have given the same results.
//!
//! J. Wing and C. Gong, *Testing and Verifying Concurrent Objects*, 1993, with the memory of visited states of G. Lowe,
//! *Testing for Linearizability*, 2017.

use std::collections::{HashSet, VecDeque};

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

/// Applies an operation to a queue for `capacity` values. Returns whether a sequential queue may do so. A batch may be
/// shorter than wanted, but not empty, while there is something to do.
fn apply(queue: &mut VecDeque<u64>, capacity: usize, did: &Did) -> bool {
    match did {
        Did::Pushed { values, of } => {
            let is_possible = match values.len() {
                0 => *of == 0 || queue.len() == capacity,
                count => count <= *of && queue.len() + count <= capacity,
            };
            queue.extend(values);
            is_possible
        }
        Did::Popped { values, most } => {
            let is_possible = match values.len() {
                0 => *most == 0 || queue.is_empty(),
                count => count <= *most && queue.len() >= count,
            };
            is_possible && values.iter().all(|value| queue.pop_front() == Some(*value))
        }
    }
}

/// Returns whether the history of at most 64 operations on an empty queue is linearizable.
pub(crate) fn is_linearizable(history: &[Event], capacity: usize) -> bool {
    assert!(history.len() <= 64, "a state is a set of 64 bits");
    let mut visited = HashSet::new();
    let mut open = vec![(0_u64, VecDeque::new())];
    let all = (0..history.len()).fold(0, |all, at| all | 1 << at);
    while let Some((done, queue)) = open.pop() {
        if done == all {
            return true;
        }
        let left = || (0..history.len()).filter(move |at| done & (1 << at) == 0);
        // An operation may come next if none of the others has returned before its call.
        let first_return = left().map(|at| history[at].returned).min().expect("not all are done");
        for at in left().filter(|at| history[*at].called < first_return) {
            let mut queue = queue.clone();
            let done = done | 1 << at;
            if apply(&mut queue, capacity, &history[at].did)
                && visited.insert((done, queue.clone()))
            {
                open.push((done, queue));
            }
        }
    }
    false
}
