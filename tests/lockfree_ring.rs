//! The ring for one producer and one consumer.
#![cfg(feature = "std")]

#[path = "common/dropped.rs"]
mod dropped;

use dropped::Dropped;
use nebula_memory::{
    Budget,
    core::AllocationError,
    lockfree::{Consumer, Full, Producer, ring, try_ring, try_ring_in},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

const VALUES: u64 = if cfg!(miri) { 60 } else { 200_000 };

const fn assert_send<T: Send>() {}
/// Values that are `Send` and not `Sync` are enough.
const _: () = assert_send::<Producer<Cell<u8>>>();
const _: () = assert_send::<Consumer<Cell<u8>>>();

/// Passes the numbers from 0 on by `push`, which returns how many of those from `next` on it pushed, to `pop`.
fn numbers_arrive_in_order(
    capacity: usize,
    push: impl Fn(&mut Producer<u64>, u64) -> u64 + Send,
    pop: impl Fn(&mut Consumer<u64>, &mut Vec<u64>),
) {
    let (mut producer, mut consumer) = ring(capacity);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut next = 0;
            while next < VALUES {
                match push(&mut producer, next) {
                    0 => thread::yield_now(),
                    count => next += count,
                }
            }
        });
        let (mut expected, mut popped) = (0, Vec::new());
        loop {
            let is_closed = consumer.is_closed();
            pop(&mut consumer, &mut popped);
            if popped.is_empty() {
                if is_closed {
                    break;
                }
                thread::yield_now();
            }
            for value in popped.drain(..) {
                assert_eq!(value, expected);
                expected += 1;
            }
        }
        assert!(expected >= VALUES, "{expected} arrived");
    });
}

fn push_one(producer: &mut Producer<u64>, next: u64) -> u64 {
    u64::from(producer.push(next).is_ok())
}

fn push_slice(producer: &mut Producer<u64>, next: u64) -> u64 {
    producer.push_slice(&[next, next + 1, next + 2, next + 3, next + 4]) as u64
}

fn push_in_place(producer: &mut Producer<u64>, next: u64) -> u64 {
    let (first, second) = producer.spare();
    let mut count = 0;
    for (slot, value) in first.iter_mut().chain(second).take(9).zip(next..) {
        slot.write(value);
        count += 1;
    }
    // SAFETY: so many slots were written, from the first on.
    unsafe { producer.commit(count) };
    count as u64
}

fn pop_one(consumer: &mut Consumer<u64>, popped: &mut Vec<u64>) {
    popped.extend(consumer.pop());
}

fn pop_slice(consumer: &mut Consumer<u64>, popped: &mut Vec<u64>) {
    let mut values = [0; 3];
    let count = consumer.pop_slice(&mut values);
    popped.extend(&values[..count]);
}

fn pop_in_place(consumer: &mut Consumer<u64>, popped: &mut Vec<u64>) {
    let (first, second) = consumer.peek();
    popped.extend(first.iter().chain(second));
    consumer.consume(popped.len());
}

#[test]
fn values_arrive_once_and_in_order() {
    for capacity in [1, 2, 64] {
        numbers_arrive_in_order(capacity, push_one, pop_one);
    }
}

#[test]
fn slices_arrive_once_and_in_order() {
    for capacity in [1, 4, 64] {
        numbers_arrive_in_order(capacity, push_slice, pop_slice);
    }
    numbers_arrive_in_order(8, push_slice, pop_one);
    numbers_arrive_in_order(8, push_one, pop_slice);
}

#[test]
fn values_in_place_arrive_once_and_in_order() {
    for capacity in [1, 4, 64] {
        numbers_arrive_in_order(capacity, push_in_place, pop_in_place);
    }
    numbers_arrive_in_order(8, push_in_place, pop_one);
    numbers_arrive_in_order(8, push_slice, pop_in_place);
}

#[test]
fn each_capacity_is_rounded_up_and_never_exceeded() {
    for (capacity, rounded) in [(0, 1), (1, 1), (2, 2), (3, 4), (5, 8)] {
        let (mut producer, mut consumer) = ring(capacity);
        assert_eq!((producer.capacity(), consumer.capacity()), (rounded, rounded));
        for start in 0..20 {
            for at in 0..rounded {
                assert!(!producer.is_full());
                assert_eq!((producer.len(), consumer.len()), (at, at));
                producer.push(start + at).unwrap();
            }
            assert!(producer.is_full() && !consumer.is_empty());
            assert_eq!(producer.push(99), Err(Full(99)));
            assert_eq!(producer.push_slice(&[99]), 0);
            let (first, second) = producer.spare();
            assert_eq!(first.len() + second.len(), 0);
            let (first, second) = consumer.peek();
            assert!(first.iter().chain(second).copied().eq(start..start + rounded));
            for at in 0..rounded {
                assert_eq!(consumer.pop(), Some(start + at));
            }
            assert!(consumer.is_empty() && producer.is_empty());
            assert_eq!(consumer.pop(), None);
            // The next round begins at another slot.
            producer.push(0).unwrap();
            consumer.consume(1);
        }
    }
}

#[test]
fn more_values_than_there_are_cannot_be_consumed() {
    let (mut producer, mut consumer) = ring(4);
    producer.push_slice(b"ab");
    assert!(catch_unwind(AssertUnwindSafe(|| consumer.consume(3))).is_err());
    assert_eq!(consumer.peek(), (&b"ab"[..], &b""[..]));
    // SAFETY: it panics, as there is no room for so many.
    assert!(catch_unwind(AssertUnwindSafe(|| unsafe { producer.commit(3) })).is_err());
    assert_eq!(consumer.len(), 2);
}

/// A ring with four values that go beyond the last slot. The drop of one of them panics.
fn four<'a>(
    drops: &'a AtomicUsize,
    panicking: usize,
) -> (Producer<Dropped<'a>>, Consumer<Dropped<'a>>) {
    let (mut producer, mut consumer) = ring(4);
    for _ in 0..2 {
        assert!(producer.push(Dropped { drops, panics: false }).is_ok());
    }
    consumer.consume(2);
    assert_eq!(drops.swap(0, Ordering::Relaxed), 2);
    for at in 0..4 {
        assert!(producer.push(Dropped { drops, panics: at == panicking }).is_ok());
    }
    (producer, consumer)
}

#[test]
fn the_last_end_drops_each_remaining_value_once_also_if_one_panics() {
    for panicking in 0..5 {
        let drops = AtomicUsize::new(0);
        let (producer, consumer) = four(&drops, panicking);
        let last = if panicking % 2 == 0 {
            drop(producer);
            catch_unwind(AssertUnwindSafe(|| drop(consumer)))
        } else {
            drop(consumer);
            assert!(producer.is_closed());
            catch_unwind(AssertUnwindSafe(|| drop(producer)))
        };
        assert_eq!(last.is_err(), panicking < 4);
        assert_eq!(drops.load(Ordering::Relaxed), 4);
    }
}

#[test]
fn consumed_values_are_dropped_once_also_if_one_panics() {
    for panicking in 0..4 {
        let drops = AtomicUsize::new(0);
        let (mut producer, mut consumer) = four(&drops, panicking);
        let outcome = catch_unwind(AssertUnwindSafe(|| consumer.consume(3)));
        assert_eq!(outcome.is_err(), panicking < 3);
        assert_eq!(drops.load(Ordering::Relaxed), 3);
        assert_eq!(consumer.len(), 1);
        assert!(producer.push(Dropped { drops: &drops, panics: false }).is_ok(), "there is room");
        let rest = catch_unwind(AssertUnwindSafe(|| drop((producer, consumer))));
        assert_eq!(rest.is_err(), panicking == 3);
        assert_eq!(drops.load(Ordering::Relaxed), 5);
    }
}

#[test]
fn values_of_a_closed_ring_can_be_popped() {
    let (mut producer, mut consumer) = ring(4);
    assert!(!producer.is_closed() && !consumer.is_closed());
    producer.push_slice(b"ab");
    drop(producer);
    assert!(consumer.is_closed());
    assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(b'a'), Some(b'b'), None));
}

#[test]
fn values_without_a_size_are_counted() {
    let (mut producer, mut consumer) = try_ring(usize::MAX / 2).unwrap();
    assert_eq!(producer.push_slice(&[(); 5]), 5);
    producer.push(()).unwrap();
    assert_eq!(consumer.pop_slice(&mut [(); 4]), 4);
    consumer.consume(1);
    assert_eq!((consumer.pop(), consumer.pop()), (Some(()), None));
}

#[test]
fn a_budget_is_charged_until_both_ends_are_dropped() {
    let budget = Budget::root("process").limit(10_000).build().unwrap();
    let value = Arc::new(());
    let (mut producer, consumer) = try_ring_in(100, &budget).unwrap();
    assert!((128 * size_of::<usize>()..2000).contains(&budget.usage().used));
    producer.push(Arc::clone(&value)).unwrap();
    drop(consumer);
    assert!(budget.usage().used > 0);
    drop(producer);
    assert_eq!((budget.usage().used, Arc::strong_count(&value)), (0, 1));
    let error = try_ring_in::<u64>(2000, &budget).unwrap_err();
    assert!(matches!(error, AllocationError::Refused(_)));
}

#[test]
fn a_size_beyond_the_address_space_is_an_error() {
    for capacity in [usize::MAX, usize::MAX / 2 + 2, 1 << (usize::BITS - 2)] {
        let error = try_ring::<u64>(capacity).unwrap_err();
        assert!(matches!(error, AllocationError::CapacityOverflow { .. }), "{error}");
    }
    // Within the address space, and more than any machine has.
    #[cfg(all(target_pointer_width = "64", not(miri)))]
    assert!(matches!(try_ring::<u64>(1 << 56).unwrap_err(), AllocationError::Exhausted { .. }));
}

#[test]
#[should_panic(expected = "exceed")]
fn the_form_without_a_result_panics() {
    let _ = ring::<u64>(usize::MAX);
}

#[test]
fn the_ends_are_printed_without_their_values() {
    let (mut producer, consumer) = ring(2);
    producer.push(Cell::new(7)).unwrap();
    let expected = "{ len: 1, capacity: 2, is_closed: false, .. }";
    assert_eq!(format!("{producer:?}"), format!("Producer {expected}"));
    assert_eq!(format!("{consumer:?}"), format!("Consumer {expected}"));
}
