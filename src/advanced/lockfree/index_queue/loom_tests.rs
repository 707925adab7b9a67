//! Every interleaving of pushes and pops.

use super::{Attempt, IndexQueue};
use loom::thread;
use std::{sync::Arc, vec::Vec};

fn queue(capacity: usize) -> Arc<IndexQueue> {
    Arc::new(IndexQueue::try_with_capacity(capacity).unwrap())
}

/// Pops until the queue is empty.
fn drain(queue: &IndexQueue) -> Vec<usize> {
    std::iter::from_fn(|| queue.pop()).collect()
}

#[test]
fn each_index_is_popped_once() {
    loom::model(|| {
        let queue = queue(3);
        queue.push(0).unwrap();
        let work = |index: usize| {
            let queue = Arc::clone(&queue);
            move || {
                queue.push(index).unwrap();
                queue.pop().expect("there are as many indices as pops")
            }
        };
        let (other, own) = (thread::spawn(work(1)), work(2));
        let mut popped = std::vec![own(), other.join().unwrap()];
        popped.extend(drain(&queue));
        popped.sort_unstable();
        assert_eq!(popped, [0, 1, 2]);
    });
}

/// With capacity one, a cell is used again at once.
#[test]
fn a_cell_that_is_used_again_is_not_mistaken() {
    loom::model(|| {
        let queue = queue(1);
        let theirs = Arc::clone(&queue);
        let other = thread::spawn(move || {
            let mut pushed = 0;
            for _ in 0..2 {
                pushed += usize::from(theirs.push(0).is_ok());
            }
            pushed
        });
        let mut popped = 0;
        for _ in 0..2 {
            popped += usize::from(queue.pop().is_some());
        }
        let pushed = other.join().unwrap();
        assert!(queue.len() <= 1);
        assert_eq!(popped + drain(&queue).len(), pushed);
    });
}

/// One thread stops in the middle of a push, at any time. The others end.
#[test]
fn a_stopped_thread_blocks_nobody() {
    loom::model(|| {
        let queue = queue(3);
        let theirs = Arc::clone(&queue);
        let stopped = thread::spawn(move || matches!(theirs.place(0), Attempt::Placed(_)));
        queue.push(1).unwrap();
        let first = queue.pop().expect("pushed above");
        queue.push(2).unwrap();
        let second = queue.pop();
        let is_placed = stopped.join().unwrap();
        let mut popped = drain(&queue);
        popped.extend([first].into_iter().chain(second));
        popped.sort_unstable();
        let expected: &[usize] = if is_placed { &[0, 1, 2] } else { &[1, 2] };
        assert_eq!(popped, expected);
    });
}
