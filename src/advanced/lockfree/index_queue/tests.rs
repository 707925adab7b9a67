use super::{Attempt, IndexQueue};
use crate::utils::sync::Ordering;

impl IndexQueue {
    /// Checks all invariants of a queue that no thread is using.
    fn validate(&self) {
        let (head, tail) =
            (self.head.load(Ordering::Relaxed), self.tail.position.load(Ordering::Relaxed));
        let cells = self.cells.len() as u64;
        assert!(cells.is_power_of_two() && self.capacity <= self.cells.len());
        let passed = self.tail.passed.load(Ordering::Relaxed);
        assert!(passed <= head && head <= tail, "{passed} {head} {tail}");
        assert!(tail - head <= self.capacity as u64);
        for back in 1..=cells {
            let position = tail - back;
            let cell = self.cell(position).load(Ordering::Relaxed);
            assert_eq!(self.lap(cell), self.lap(position), "the last push to this cell");
            assert!(usize::try_from(cell & self.mask()).unwrap() < self.capacity);
        }
    }
}

#[test]
fn every_capacity_is_exact_and_in_order() {
    for capacity in 1..if cfg!(miri) { 6 } else { 20 } {
        let queue = IndexQueue::try_with_capacity(capacity).unwrap();
        for round in 0..5 {
            let start = round % capacity;
            for at in 0..capacity {
                queue.push((start + at) % capacity).unwrap();
                queue.validate();
            }
            assert_eq!(queue.push(0).unwrap_err().0, 0);
            assert_eq!(queue.len(), capacity);
            for at in 0..capacity {
                assert_eq!(queue.pop(), Some((start + at) % capacity));
                queue.validate();
            }
            assert_eq!(queue.pop(), None);
            assert!(queue.is_empty());
        }
    }
}

/// Runs a push up to the instant at which it takes effect. Returns its position.
fn place(queue: &IndexQueue, index: usize) -> u64 {
    loop {
        match queue.place(index) {
            Attempt::Placed(position) => return position,
            Attempt::Retry => {} // The weak compare-and-swap may fail without a reason.
            Attempt::Full => panic!("there is room"),
        }
    }
}

/// A thread stops for ever after its push took effect, before `tail` counts it. All others go on.
#[test]
fn a_thread_that_stops_in_a_push_blocks_nobody() {
    let queue = IndexQueue::try_with_capacity(3).unwrap();
    let position = place(&queue, 2);
    assert!(!queue.is_empty());
    assert_eq!(queue.pop(), Some(2), "it can be popped already");
    assert_eq!((queue.pop(), queue.len(), queue.is_empty()), (None, 0, true));
    for lap in 0..100 {
        queue.push(lap % 3).unwrap();
        queue.push((lap + 1) % 3).unwrap();
        assert_eq!((queue.pop(), queue.pop()), (Some(lap % 3), Some((lap + 1) % 3)));
        queue.validate();
    }
    // It goes on after many laps: it changes nothing.
    queue.advance_tail(position);
    queue.validate();
    assert!(queue.is_empty());
}

/// Every thread but one stops for ever in the middle of a push, as often as there is room.
#[test]
fn many_stopped_threads_block_nobody() {
    let queue = IndexQueue::try_with_capacity(4).unwrap();
    for stopped in 0..100 {
        place(&queue, stopped % 4);
        queue.push((stopped + 1) % 4).unwrap();
        assert_eq!(queue.pop(), Some(stopped % 4));
        assert_eq!(queue.pop(), Some((stopped + 1) % 4));
    }
    assert_eq!(queue.pop(), None);
}

/// Positions wrap around after 2⁶⁴ pushes.
#[test]
fn positions_wrap_around() {
    let queue = IndexQueue::try_with_capacity(3).unwrap();
    let start = 0_u64.wrapping_sub(8);
    for cell in &queue.cells {
        cell.store(start.wrapping_sub(4), Ordering::Relaxed);
    }
    for position in [&queue.tail.position, &queue.tail.passed, &*queue.head] {
        position.store(start, Ordering::Relaxed);
    }
    for push in 0..20 {
        queue.push(push % 3).unwrap();
        queue.push((push + 1) % 3).unwrap();
        queue.push((push + 2) % 3).unwrap();
        assert!(queue.push(0).is_err());
        assert_eq!(queue.len(), 3);
        assert_eq!([(); 3].map(|()| queue.pop().unwrap()), [0, 1, 2].map(|at| (push + at) % 3));
        assert_eq!(queue.pop(), None);
    }
}

#[test]
#[should_panic(expected = "index 3 of 3")]
fn an_index_beyond_the_capacity_is_a_mistake() {
    let _ = IndexQueue::try_with_capacity(3).unwrap().push(3);
}
