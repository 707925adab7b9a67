use super::{
    Queue,
    slot::{filled, vacant},
};
use crate::utils::sync::Ordering;
use std::vec::Vec;

impl<T> Queue<T> {
    /// Checks all invariants of a queue that no thread is using.
    fn validate(&self) {
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        let slots = self.slots.len() as u64;
        assert!(slots.is_power_of_two());
        assert!(tail.wrapping_sub(head) <= slots);
        for at in 0..slots {
            let position = head.wrapping_add(at);
            let is_filled = at < tail.wrapping_sub(head);
            let expected = if is_filled { filled(position) } else { vacant(position) };
            assert_eq!(self.slot(position).sequence(), expected);
        }
    }
}

#[test]
fn each_capacity_is_rounded_up_and_never_exceeded() {
    for (capacity, rounded) in [(0, 1), (1, 1), (2, 2), (3, 4), (5, 8)] {
        let queue = Queue::try_with_capacity(capacity).unwrap();
        assert_eq!(queue.capacity(), rounded);
        for round in 0..5 {
            for at in 0..rounded {
                assert!(!queue.is_full());
                queue.push(round * 10 + at).unwrap();
                queue.validate();
            }
            assert!(queue.is_full());
            assert_eq!(queue.push(99).unwrap_err().0, 99);
            assert_eq!(queue.push_many(&mut [98, 99].to_vec()), 0);
            for at in 0..rounded {
                assert_eq!(queue.pop(), Some(round * 10 + at));
                queue.validate();
            }
            assert!(queue.is_empty() && queue.pop().is_none());
        }
    }
}

/// Positions and sequence numbers wrap around.
#[test]
fn positions_wrap_around() {
    for start in [0_u64.wrapping_sub(5), (1 << 63) - 5] {
        let queue = Queue::try_with_capacity(4).unwrap();
        for at in 0..4 {
            let position = start.wrapping_add(at);
            queue.slot(position).set_sequence(vacant(position));
        }
        queue.head.store(start, Ordering::Relaxed);
        queue.tail.store(start, Ordering::Relaxed);
        let mut popped = Vec::new();
        for round in 0..10 {
            queue.validate();
            assert_eq!(queue.push_many(&mut (round..round + 5).collect()), 4);
            assert_eq!((queue.len(), queue.is_full()), (4, true));
            assert!(queue.push(0).is_err());
            popped.clear();
            assert_eq!(queue.pop_many(&mut popped, 3), 3);
            assert_eq!(popped, [round, round + 1, round + 2]);
            assert_eq!((queue.pop(), queue.pop()), (Some(round + 3), None));
        }
    }
}
