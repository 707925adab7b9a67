use super::{Stack, UnboundedStack};
use crate::advanced::budget::Budget;
use std::{vec, vec::Vec};

#[test]
fn each_capacity_is_exact() {
    for capacity in [1, 2, 3, 5, 8] {
        let stack = Stack::try_with_capacity(capacity).unwrap();
        for round in 0..if cfg!(miri) { 2 } else { 4 } {
            for at in 0..capacity {
                stack.push(round * 10 + at).unwrap();
                assert_eq!(stack.validate(), at + 1);
            }
            assert_eq!(stack.push(99).unwrap_err().0, 99);
            assert_eq!(stack.push_many(&mut vec![98, 99]), 0);
            for at in (0..capacity).rev() {
                assert_eq!(stack.pop(), Some(round * 10 + at));
                assert_eq!(stack.validate(), at);
            }
            assert!(stack.is_empty() && stack.pop().is_none());
        }
    }
    assert_eq!(Stack::<u8>::try_with_capacity(0).unwrap().capacity(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "too many slots")]
fn the_largest_capacity_can_be_made() {
    if cfg!(miri) {
        return;
    }
    let stack = Stack::try_with_capacity(Stack::<()>::MAX_CAPACITY).unwrap();
    let mut values = vec![(); stack.capacity() + 1];
    assert_eq!(stack.push_many(&mut values), stack.capacity());
    assert_eq!(stack.pop_many(&mut values, usize::MAX), stack.capacity());
}

/// A thread stops for ever in the middle of a push, before its value is on the stack. All others go on, with a slot less.
#[test]
fn a_thread_that_stops_in_a_push_blocks_nobody() {
    let stack = Stack::try_with_capacity(3).unwrap();
    stack.push(1).unwrap();
    let slot = stack.claim().unwrap();
    assert_eq!((stack.pop(), stack.pop()), (Some(1), None));
    for value in 0..100 {
        stack.push(value).unwrap();
        stack.push(value + 1).unwrap();
        assert_eq!(stack.push(7).unwrap_err().0, 7, "the third slot is that thread's");
        assert_eq!((stack.pop(), stack.pop()), (Some(value + 1), Some(value)));
        assert_eq!(stack.validate(), 0);
    }
    // It goes on after all.
    // SAFETY: claimed above.
    unsafe { stack.publish(slot, 9) };
    assert_eq!((stack.validate(), stack.pop()), (1, Some(9)));
    assert_eq!(stack.push_many(&mut vec![1, 2, 3]), 3);
}

/// A thread stops for ever in the middle of a pop, before its slot is free. All others go on, with a slot less.
#[test]
fn a_thread_that_stops_in_a_pop_blocks_nobody() {
    let stack = Stack::try_with_capacity(3).unwrap();
    stack.push_many(&mut vec![1, 2]);
    let slot = stack.remove().unwrap();
    assert_eq!(stack.pop(), Some(1));
    for value in 0..100 {
        assert_eq!(stack.push_many(&mut vec![value, value + 1, 7]), 2);
        let mut popped = Vec::new();
        assert_eq!(stack.pop_many(&mut popped, 3), 2);
        assert_eq!(popped, [value + 1, value]);
        assert_eq!(stack.validate(), 0);
    }
    // SAFETY: removed above.
    assert_eq!(unsafe { stack.vacate(slot) }, 2);
    assert_eq!(stack.push_many(&mut vec![1, 2, 3]), 3);
}

/// A thread stops in the middle of a pop of the unbounded stack: it is pinned, and has read the head. The other threads go
/// on. The nodes that they pop are not freed.
#[test]
fn a_pinned_thread_blocks_nobody() {
    let budget = Budget::root("process").build().unwrap();
    let stack = UnboundedStack::new_in(&budget);
    let pops = 300;
    let stopped = crossbeam_epoch::pin();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..pops {
                stack.push(value);
                assert_eq!(stack.pop(), Some(value));
                stack.collect();
            }
        });
    });
    let bytes = pops * UnboundedStack::<usize>::NODE_BYTES;
    assert_eq!(budget.usage().used, bytes, "garbage is charged");
    drop(stopped);
    drop(stack);
    // It goes back, after the stack is dropped too.
    while budget.usage().used > 0 {
        crossbeam_epoch::pin().flush();
        std::thread::yield_now();
    }
}
