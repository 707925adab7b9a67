//! Threads that enter a context, block and end.

use super::{counts, group};
use crate::integration::traits::context::{Context, block_current_thread};
use std::{
    sync::{Arc, Barrier},
    thread,
};

#[test]
fn a_group_without_tasks_does_not_wait() {
    let (tasks, _context) = group();
    assert!(!tasks.all_wait());
    assert!(!tasks.is_current());
}

#[test]
fn a_thread_counts_once_however_often_it_enters() {
    let (tasks, context) = group();
    let child = context.child("run").build();
    let other = Context::root("other").build();
    let outer = context.enter();
    let inner = child.enter();
    let elsewhere = other.enter();
    assert!(tasks.is_current());
    assert_eq!(counts(&tasks), (1, 0));
    // In another order than the opposite.
    drop(outer);
    assert_eq!(counts(&tasks), (1, 0));
    let again = context.enter();
    drop(inner);
    assert_eq!(counts(&tasks), (1, 0));
    drop(elsewhere);
    drop(again);
    assert_eq!(counts(&tasks), (0, 0));
    assert!(!tasks.is_current());
}

#[test]
fn a_child_with_a_group_of_its_own_is_in_that_one() {
    let (tasks, context) = group();
    let (own, _) = group();
    let child = context.child("run").with_tasks(Some(Arc::clone(&own))).build();
    let part = child.child("part").build();
    part.run(|| {
        assert_eq!((counts(&tasks), counts(&own)), ((0, 0), (1, 0)));
        assert!(own.is_current() && !tasks.is_current());
    });
}

#[test]
fn a_thread_waits_while_it_is_blocked_in_every_group_that_it_is_in() {
    let [(one, in_one), (other, in_other), (last, in_last)] = [(); 3].map(|()| group());
    let _entered = (in_one.enter(), in_one.enter(), in_other.enter());
    let blocked = block_current_thread();
    assert!(one.all_wait() && other.all_wait() && !last.all_wait());
    // A second guard changes nothing.
    drop(block_current_thread());
    assert_eq!([&one, &other].map(|tasks| counts(tasks)), [(1, 1); 2]);
    // Entered meanwhile: at work.
    in_last.run(|| assert!(!last.all_wait()));
    drop(blocked);
    assert_eq!([&one, &other].map(|tasks| counts(tasks)), [(1, 0); 2]);
}

#[test]
fn all_threads_of_a_group_wait_or_it_does_not() {
    let (tasks, context) = group();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let entered = context.enter();
            barrier.wait();
            barrier.wait();
            drop(entered);
            barrier.wait();
        });
        let _entered = context.enter();
        barrier.wait();
        let blocked = block_current_thread();
        assert_eq!(counts(&tasks), (2, 1));
        assert!(!tasks.all_wait());
        let changes = tasks.changes();
        barrier.wait();
        barrier.wait();
        assert!(tasks.all_wait());
        assert_ne!(tasks.changes(), changes, "the other one has left");
        drop(blocked);
    });
}

#[test]
fn a_thread_that_ends_has_left_its_groups() {
    let (tasks, context) = group();
    thread::spawn(move || core::mem::forget(context.enter())).join().unwrap();
    assert_eq!(counts(&tasks), (0, 0));
}
