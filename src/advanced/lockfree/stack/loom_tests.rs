//! Every interleaving of the stacks' operations. The model checker is told of each use of a slot or a node by
//! [`Alone`](crate::utils::sync::Alone).
//!
//! `crossbeam-epoch` has atomics of its own, which the model checker does not see; it is checked by its authors. In
//! these models it frees no node. They check the stack's own words: who may use a node, and that its last user has
//! finished before it is handed over.

use super::{Stack, UnboundedStack};
use loom::thread;
use std::{sync::Arc, vec, vec::Vec};

fn stack(capacity: usize) -> Arc<Stack<u32>> {
    Arc::new(Stack::try_with_capacity(capacity).unwrap())
}

/// Pops until the stack is empty, and returns the values in order with those of `popped`.
fn sorted(mut popped: Vec<u32>, pop: impl Fn() -> Option<u32>) -> Vec<u32> {
    popped.extend(std::iter::from_fn(pop));
    popped.sort_unstable();
    popped
}

#[test]
fn one_slot_is_with_one_thread() {
    loom::model(|| {
        let stack = stack(1);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            let pushed: Vec<_> = (1..=2).filter(|value| theirs.push(*value).is_ok()).collect();
            pushed
        });
        let popped = (0..2).filter_map(|_| stack.pop()).collect();
        let pushed = other.join().unwrap();
        assert_eq!(sorted(popped, || stack.pop()), pushed);
    });
}

#[test]
fn each_value_is_popped_once() {
    loom::model(|| {
        let stack = stack(2);
        stack.push(1).unwrap();
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            theirs.push(2).unwrap();
            theirs.pop()
        });
        let mut popped: Vec<_> = stack.pop().into_iter().collect();
        popped.extend(other.join().unwrap());
        assert_eq!(sorted(popped, || stack.pop()), [1, 2]);
        assert_eq!(stack.validate(), 0);
    });
}

/// Two threads push, and each finds room.
#[test]
fn a_slot_for_each_is_enough() {
    loom::model(|| {
        let stack = stack(2);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || theirs.push(1).unwrap());
        stack.push(2).unwrap();
        other.join().unwrap();
        assert_eq!(sorted(Vec::new(), || stack.pop()), [1, 2]);
    });
}

/// A chain comes onto the stack and leaves it at one instant.
#[test]
fn batches_are_contiguous() {
    loom::model(|| {
        let stack = stack(4);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || theirs.push_many(&mut vec![1, 2]));
        assert_eq!(stack.push_many(&mut vec![3, 4]), 2);
        let mut popped = Vec::with_capacity(4);
        assert!(stack.pop_many(&mut popped, 4) >= 2, "those of this thread at least");
        assert_eq!(other.join().unwrap(), 2);
        stack.pop_many(&mut popped, 4);
        assert!(
            [[2, 1, 4, 3], [4, 3, 2, 1]].contains(&popped[..].try_into().unwrap()),
            "{popped:?}"
        );
    });
}

/// A slot of a chain leaves it and comes back meanwhile, with another one below.
#[test]
fn a_chain_that_changes_is_not_mistaken() {
    loom::model(|| {
        let stack = stack(3);
        stack.push_many(&mut vec![1, 2]);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            let popped = theirs.pop();
            let pushed = theirs.push(3).is_ok();
            (popped, pushed)
        });
        let mut popped = Vec::with_capacity(2);
        stack.pop_many(&mut popped, 2);
        let (theirs, pushed) = other.join().unwrap();
        popped.extend(theirs);
        let expected: &[u32] = if pushed { &[1, 2, 3] } else { &[1, 2] };
        assert_eq!(sorted(popped, || stack.pop()), expected);
        assert_eq!(stack.push_many(&mut vec![0; 4]), 3, "all slots are free again");
    });
}

/// One thread stops in the middle of a push or of a pop, at any time. The others end.
#[test]
fn a_stopped_thread_blocks_nobody() {
    loom::model(|| {
        let stack = stack(3);
        stack.push(1).unwrap();
        let theirs = Arc::clone(&stack);
        let stopped = thread::spawn(move || (theirs.claim().is_some(), theirs.remove().is_some()));
        stack.push(2).expect("the other thread has two slots at most");
        let popped: Vec<_> = stack.pop().into_iter().collect();
        let (has_claimed, has_removed) = stopped.join().unwrap();
        assert!(has_claimed && has_removed);
        assert_eq!(sorted(popped, || stack.pop()).len(), 1);
        assert_eq!(stack.validate(), 0);
        stack.push(3).expect("one slot is left");
        assert!(stack.push(4).is_err());
    });
}

/// What is written before a push is seen after the pop, also of a node below another thread's.
#[test]
fn a_pop_sees_the_writes_before_the_push() {
    loom::model(|| {
        let stack = Arc::new(UnboundedStack::new());
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            theirs.push(1);
            theirs.push(2);
            theirs.pop()
        });
        let mut popped: Vec<_> = stack.pop().into_iter().collect();
        popped.extend(stack.pop());
        popped.extend(other.join().unwrap());
        assert_eq!(sorted(popped, || stack.pop()), [1, 2]);
    });
}

#[test]
fn each_node_is_popped_once() {
    loom::model(|| {
        let stack = Arc::new(UnboundedStack::new());
        stack.push(1);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            theirs.push(2);
            theirs.pop().expect("as many values as pops")
        });
        stack.push(3);
        let popped = vec![stack.pop().expect("as many values as pops"), other.join().unwrap()];
        assert_eq!(sorted(popped, || stack.pop()), [1, 2, 3]);
    });
}

/// All values leave at one instant, while another thread pushes and pops.
#[test]
fn all_are_popped_at_once() {
    loom::model(|| {
        let stack = Arc::new(UnboundedStack::new());
        stack.push(1);
        let theirs = Arc::clone(&stack);
        let other = thread::spawn(move || {
            theirs.push(2);
            theirs.push(3);
            theirs.pop()
        });
        let all: Vec<_> = stack.pop_all().collect();
        assert!([&[1][..], &[2, 1], &[3, 2, 1]].contains(&&all[..]), "{all:?}");
        let mut popped = all;
        popped.extend(other.join().unwrap());
        assert_eq!(sorted(popped, || stack.pop()), [1, 2, 3]);
    });
}
