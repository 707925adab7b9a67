//! The stacks for many threads.
//!
//! The unbounded one is tested here with `crossbeam-epoch` as it is, also by Miri and ThreadSanitizer. The models of loom
//! cover its own word only: the model checker does not see the atomics of `crossbeam-epoch`.
#![cfg(feature = "std")]

#[path = "common/dropped.rs"]
mod dropped;
#[path = "common/linear.rs"]
mod linear;

use dropped::Dropped;
use linear::{Did, Event, Sequential, history, is_linearizable};
use nebula_memory::{
    Budget,
    core::AllocationError,
    lockfree::{Full, PopAll, Stack, UnboundedStack},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

const VALUES: u64 = if cfg!(miri) { 24 } else { 50_000 };
const HISTORIES: u64 = if cfg!(miri) { 2 } else { 600 };

const fn assert_send_and_sync<T: Send + Sync>() {}
/// Values that are `Send` and not `Sync` are enough.
const _: () = assert_send_and_sync::<Stack<Cell<u8>>>();
const _: () = assert_send_and_sync::<UnboundedStack<Cell<u8>>>();
const _: () = assert_send_and_sync::<PopAll<u8>>();

/// Has one implementation for types that are not `Send`, and two for types that are: then the compiler cannot choose.
trait IsNotSend<Which> {
    const OK: () = ();
}
impl<T: ?Sized> IsNotSend<()> for T {}
impl<T: ?Sized + Send> IsNotSend<u8> for T {}
/// The same for `Sync`.
trait IsNotSync<Which> {
    const OK: () = ();
}
impl<T: ?Sized> IsNotSync<()> for T {}
impl<T: ?Sized + Sync> IsNotSync<u8> for T {}
const _: () = <Stack<Rc<u8>> as IsNotSend<_>>::OK;
const _: () = <Stack<Rc<u8>> as IsNotSync<_>>::OK;
const _: () = <UnboundedStack<Rc<u8>> as IsNotSend<_>>::OK;
const _: () = <UnboundedStack<Rc<u8>> as IsNotSync<_>>::OK;
const _: () = <PopAll<Rc<u8>> as IsNotSend<_>>::OK;

/// Two producers push numbered values and two consumers pop them: each arrives once. A producer calls `push` with each
/// number, and then with `None`.
fn each_value_arrives_once(
    count: u64,
    push: impl Fn(&mut Vec<u64>) -> usize + Sync,
    pop: impl Fn(&mut Vec<u64>) + Sync,
) {
    let left = AtomicU64::new(2);
    let mut popped: Vec<u64> = thread::scope(|scope| {
        let (left, push, pop) = (&left, &push, &pop);
        for producer in 0..2 {
            scope.spawn(move || {
                let mut batch = Vec::new();
                let mut numbers = producer * count..(producer + 1) * count;
                while !(numbers.is_empty() && batch.is_empty()) {
                    batch.extend(numbers.by_ref().take(7 - batch.len()));
                    if push(&mut batch) == 0 {
                        thread::yield_now();
                    }
                }
                left.fetch_sub(1, Ordering::Release);
            });
        }
        let consumer = || {
            let mut values = Vec::new();
            loop {
                let is_last = left.load(Ordering::Acquire) == 0;
                let before = values.len();
                pop(&mut values);
                if values.len() == before {
                    if is_last {
                        return values;
                    }
                    thread::yield_now();
                }
            }
        };
        let consumers = [scope.spawn(consumer), scope.spawn(consumer)];
        consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
    });
    popped.sort_unstable();
    assert!(popped.into_iter().eq(0..2 * count), "each value once");
}

/// Pushes the last value of a batch. Returns how many were pushed.
fn push_last(batch: &mut Vec<u64>, push: impl Fn(u64) -> Result<(), Full<u64>>) -> usize {
    let Some(value) = batch.pop() else { return 0 };
    match push(value) {
        Ok(()) => 1,
        Err(Full(value)) => {
            batch.push(value);
            0
        }
    }
}

#[test]
fn values_arrive_once() {
    for capacity in [1, 2, 64] {
        // With little room the threads wait for each other at each value.
        let count = if capacity < 8 { VALUES / 50 } else { VALUES };
        let stack = Stack::try_with_capacity(capacity).unwrap();
        each_value_arrives_once(
            count,
            |batch| push_last(batch, |value| stack.push(value)),
            |values| values.extend(stack.pop()),
        );
        assert!(stack.is_empty());
        assert_eq!(stack.push_many(&mut vec![0; capacity + 1]), capacity, "no slot is lost");
    }
}

#[test]
fn batches_arrive_once() {
    for capacity in [1, 5, 64] {
        // With little room the threads wait for each other at each value.
        let count = if capacity < 8 { VALUES / 50 } else { VALUES };
        let stack = Stack::try_with_capacity(capacity).unwrap();
        each_value_arrives_once(
            count,
            |batch| stack.push_many(batch),
            |values| {
                stack.pop_many(values, 5);
            },
        );
        each_value_arrives_once(
            count,
            |batch| push_last(batch, |value| stack.push(value)),
            |values| {
                stack.pop_many(values, 5);
            },
        );
        each_value_arrives_once(
            count,
            |batch| stack.push_many(batch),
            |values| values.extend(stack.pop()),
        );
        assert!(stack.is_empty());
        assert_eq!(stack.push_many(&mut vec![0; capacity + 1]), capacity, "no slot is lost");
    }
}

/// Also with a budget for a few nodes: pushes are refused while garbage waits, and no value is lost.
#[test]
fn values_arrive_once_through_nodes() {
    let budget = Budget::root("process").build().unwrap();
    let few = 20 * UnboundedStack::<u64>::NODE_BYTES;
    let small = Budget::root("process").limit(few).build().unwrap();
    let stacks = [
        (VALUES, UnboundedStack::new()),
        (VALUES, UnboundedStack::new_in(&budget)),
        (VALUES / 20, UnboundedStack::new_in(&small)),
    ];
    for (count, stack) in stacks {
        each_value_arrives_once(
            count,
            |batch| push_last(batch, |value| stack.try_push(value)),
            |values| values.extend(stack.pop()),
        );
        each_value_arrives_once(
            count,
            |batch| push_last(batch, |value| stack.try_push(value)),
            |values| values.extend(stack.pop_all()),
        );
        assert!(stack.is_empty());
        assert!(small.usage().peak <= few);
    }
    come_back(&budget);
    come_back(&small);
}

/// Waits until all garbage is freed. Threads that ended, and other tests, may be in the way for a moment.
fn come_back(budget: &Budget) {
    let any = UnboundedStack::<u8>::new();
    while budget.usage().used > 0 {
        any.collect();
        thread::yield_now();
    }
}

/// A sequential stack.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sorted {
    capacity: usize,
    values: Vec<u64>,
}

impl Sorted {
    fn new(capacity: usize) -> Self {
        Self { capacity, values: Vec::new() }
    }
}

impl Sequential for Sorted {
    /// A pop is exact. A push has as many slots as have no value and are not those of another thread: it may be shorter than
    /// wanted by what other threads are moving.
    fn apply(&mut self, did: &Did, held: usize) -> bool {
        match did {
            Did::Pushed { values, of } => {
                let room = self.capacity - self.values.len();
                self.values.extend(values);
                let least = (*of).min(room.saturating_sub(held));
                (least..=(*of).min(room)).contains(&values.len())
            }
            Did::Popped { values, most } => {
                values.len() == self.values.len().min(*most)
                    && values.iter().all(|value| self.values.pop() == Some(*value))
            }
        }
    }
}

#[test]
fn histories_of_a_stack_are_linearizable() {
    for round in 0..HISTORIES {
        let capacity = [1, 2, 4][usize::try_from(round % 3).unwrap()];
        let stack = Stack::try_with_capacity(capacity).unwrap();
        let next = AtomicU64::new(0);
        let history = history(round, |choice| {
            let value = next.fetch_add(3, Ordering::Relaxed);
            match choice % 4 {
                0 => {
                    let is_pushed = stack.push(value).is_ok();
                    Did::Pushed { values: is_pushed.then_some(value).into_iter().collect(), of: 1 }
                }
                1 => Did::Popped { values: stack.pop().into_iter().collect(), most: 1 },
                2 => {
                    let mut values = vec![value, value + 1, value + 2];
                    let all = values.clone();
                    let count = stack.push_many(&mut values);
                    assert_eq!(values, all[count..], "the others stay");
                    Did::Pushed { values: all[..count].to_vec(), of: 3 }
                }
                _ => {
                    let mut values = Vec::with_capacity(2);
                    stack.pop_many(&mut values, 2);
                    Did::Popped { values, most: 2 }
                }
            }
        });
        assert!(is_linearizable(&history, Sorted::new(capacity)), "{history:#?}");
    }
}

#[test]
fn histories_of_an_unbounded_stack_are_linearizable() {
    for round in 0..HISTORIES {
        let stack = UnboundedStack::new();
        let next = AtomicU64::new(0);
        let history = history(round, |choice| match choice % 5 {
            0 | 1 => {
                let value = next.fetch_add(1, Ordering::Relaxed);
                stack.push(value);
                Did::Pushed { values: vec![value], of: 1 }
            }
            2 | 3 => Did::Popped { values: stack.pop().into_iter().collect(), most: 1 },
            _ => Did::Popped { values: stack.pop_all().collect(), most: usize::MAX },
        });
        assert!(is_linearizable(&history, Sorted::new(usize::MAX)), "{history:#?}");
    }
}

#[test]
fn the_check_tells_linearizable_histories_from_others() {
    let push = |called, returned, values: &[u64], of| {
        let did = Did::Pushed { values: values.to_vec(), of };
        Event { called, returned, did }
    };
    let pop = |called, returned, values: &[u64], most| {
        let did = Did::Popped { values: values.to_vec(), most };
        Event { called, returned, did }
    };
    let is_fine = |history: &[Event]| is_linearizable(history, Sorted::new(2));
    assert!(is_fine(&[push(0, 1, &[7, 8], 2), pop(2, 3, &[8, 7], 2)]));
    assert!(!is_fine(&[push(0, 1, &[7, 8], 2), pop(2, 3, &[7, 8], 2)]), "the latest first");
    assert!(!is_fine(&[push(0, 1, &[7, 8], 2), pop(2, 3, &[8], 2)]), "a pop takes all it can");
    assert!(!is_fine(&[push(0, 1, &[7], 1), pop(2, 3, &[], 1)]), "it was there");
    assert!(!is_fine(&[push(2, 3, &[7], 1), pop(0, 1, &[7], 1)]), "it was not there yet");
    assert!(is_fine(&[push(0, 3, &[7], 1), pop(1, 2, &[], 1)]), "the pop may come first");
    assert!(!is_fine(&[push(0, 1, &[7], 1), push(2, 3, &[], 1)]), "it was not full");
    // The slot of the value is with the thread that pops it, though the value has left.
    let popping = [push(0, 1, &[7, 8], 2), pop(2, 7, &[8], 1), push(3, 4, &[], 1)];
    assert!(is_fine(&popping));
    assert!(is_fine(&[&popping[..], &[pop(5, 6, &[7], 1)]].concat()));
    let popped = [push(0, 1, &[7, 8], 2), pop(2, 3, &[8], 1), push(4, 5, &[], 1)];
    assert!(!is_fine(&popped), "the slot was free again");
}

#[test]
fn remaining_values_are_dropped_once_also_if_one_panics() {
    for panicking in [None, Some(0), Some(2), Some(4)] {
        let drops = AtomicUsize::new(0);
        let value = |at| Dropped { drops: &drops, panics: panicking == Some(at) };
        let stack = Stack::try_with_capacity(8).unwrap();
        let unbounded = UnboundedStack::new();
        let all = UnboundedStack::new();
        for at in 0..5 {
            assert!(stack.push(value(at)).is_ok());
            unbounded.push(value(at));
            all.push(value(at));
        }
        let dropped = |drop: &mut dyn FnMut()| {
            let outcome = catch_unwind(AssertUnwindSafe(drop));
            assert_eq!(outcome.is_err(), panicking.is_some());
            drops.swap(0, Ordering::Relaxed)
        };
        let mut stack = Some(stack);
        assert_eq!(dropped(&mut || drop(stack.take())), 5);
        let mut unbounded = Some(unbounded);
        assert_eq!(dropped(&mut || drop(unbounded.take())), 5);
        assert_eq!(dropped(&mut || drop(all.pop_all())), 5);
        assert!(all.is_empty());
    }
}

/// A value whose drop panics outside the stack leaves the stack as it was.
#[test]
fn a_panicking_drop_leaves_no_slot_stuck() {
    let drops = AtomicUsize::new(0);
    let value = || Dropped { drops: &drops, panics: true };
    let stack = Stack::try_with_capacity(1).unwrap();
    let budget = Budget::root("process").limit(UnboundedStack::<Dropped<'_>>::NODE_BYTES).build();
    let unbounded = UnboundedStack::new_in(&budget.unwrap());
    for _ in 0..3 {
        assert!(stack.push(value()).is_ok());
        let refused = stack.push(value());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(refused))).is_err());
        let popped = stack.pop();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(popped))).is_err());
        assert!(stack.is_empty());
    }
    unbounded.push(value());
    let refused = unbounded.try_push(value());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(refused))).is_err());
    let quiet = Dropped { drops: &drops, panics: false };
    assert!(catch_unwind(AssertUnwindSafe(|| unbounded.push(quiet))).is_err(), "it is refused");
    let popped = unbounded.pop();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(popped))).is_err());
    assert!(unbounded.is_empty());
    assert_eq!(drops.load(Ordering::Relaxed), 6 + 3);
}

/// Pushes another value onto the stack that it was in, when it is dropped.
struct Again<'a> {
    left: usize,
    push: &'a dyn Fn(Again<'a>),
    drops: &'a AtomicUsize,
}

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        if let Some(left) = self.left.checked_sub(1) {
            (self.push)(Again { left, push: self.push, drops: self.drops });
        }
    }
}

#[test]
fn drops_may_use_the_stack() {
    let drops = AtomicUsize::new(0);
    let stack: &'static Stack<Again<'static>> =
        Box::leak(Box::new(Stack::try_with_capacity(1).unwrap()));
    let unbounded: &'static UnboundedStack<Again<'static>> =
        Box::leak(Box::new(UnboundedStack::new()));
    let drops: &'static AtomicUsize = Box::leak(Box::new(drops));
    let push: &'static dyn Fn(Again<'static>) = Box::leak(Box::new(|value| {
        assert!(stack.push(value).is_ok(), "the slot is free when the drop runs");
    }));
    assert!(stack.push(Again { left: 5, push, drops }).is_ok());
    while stack.pop().is_some() {}
    assert_eq!(drops.swap(0, Ordering::Relaxed), 6);

    let push: &'static dyn Fn(Again<'static>) = Box::leak(Box::new(|value| unbounded.push(value)));
    unbounded.push(Again { left: 5, push, drops });
    unbounded.push(Again { left: 2, push, drops });
    assert_eq!(unbounded.pop_all().count(), 2);
    drop(unbounded.pop_all());
    assert!(!unbounded.is_empty(), "pushed by the drops");
    while unbounded.pop().is_some() {}
    assert_eq!(drops.load(Ordering::Relaxed), 6 + 3);
}

#[test]
fn batches_own_each_value_once() {
    let value = Arc::new(());
    let stack = Stack::try_with_capacity(4).unwrap();
    let mut batch = vec![Arc::clone(&value); 6];
    assert_eq!((stack.push_many(&mut batch), batch.len()), (4, 2));
    assert_eq!((stack.push_many(&mut batch), batch.len()), (0, 2));
    let mut popped = vec![Arc::clone(&value)];
    assert_eq!((stack.pop_many(&mut popped, 3), popped.len()), (3, 4));
    assert_eq!((stack.pop_many(&mut popped, 0), stack.pop_many(&mut popped, 9)), (0, 1));
    assert_eq!(stack.push_many(&mut Vec::new()), 0);
    assert_eq!(stack.push_many(&mut batch), 2);
    assert_eq!(Arc::strong_count(&value), 1 + 5 + 2);
    drop((stack, popped, batch));
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn values_without_a_size_are_counted() {
    let stack = Stack::try_with_capacity(2).unwrap();
    assert_eq!(stack.push_many(&mut vec![(); 5]), 2);
    let mut popped = Vec::new();
    assert_eq!(stack.pop_many(&mut popped, usize::MAX), 2);
    assert_eq!(stack.pop(), None);
    let unbounded = UnboundedStack::new();
    unbounded.push(());
    unbounded.push(());
    assert_eq!((unbounded.pop(), unbounded.pop_all().count()), (Some(()), 1));
}

#[test]
fn a_budget_is_charged_until_the_stack_is_dropped() {
    let budget = Budget::root("process").limit(10_000).build().unwrap();
    let stack = Stack::<u64>::try_with_capacity_in(100, &budget).unwrap();
    assert_eq!(budget.usage().used, 100 * Stack::<u64>::SLOT_BYTES);
    let error = Stack::<u64>::try_with_capacity_in(1000, &budget).unwrap_err();
    assert!(matches!(error, AllocationError::Refused(_)));
    drop(stack);
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn a_capacity_that_is_too_large_is_an_error() {
    for capacity in [usize::MAX, 1 << (usize::BITS - 2), Stack::<u64>::MAX_CAPACITY + 1] {
        let budget = Budget::root("process").build().unwrap();
        let error = Stack::<u64>::try_with_capacity_in(capacity, &budget).unwrap_err();
        assert!(matches!(error, AllocationError::CapacityOverflow { .. }), "{error}");
        assert_eq!(budget.usage().used, 0);
    }
}

#[test]
fn a_budget_that_refuses_a_node_refuses_the_value() {
    let bytes = 3 * UnboundedStack::<Box<u32>>::NODE_BYTES;
    let budget = Budget::root("process").limit(bytes).build().unwrap();
    let stack = UnboundedStack::new_in(&budget);
    for value in 0..3 {
        stack.push(Box::new(value));
    }
    assert_eq!(stack.try_push(Box::new(3)), Err(Full(Box::new(3))));
    assert_eq!(budget.usage().used, bytes);
    assert_eq!(stack.pop(), Some(Box::new(2)));
    // The garbage is freed, at the latest when all threads of other tests have moved on.
    let mut value = Box::new(4);
    while let Err(Full(back)) = stack.try_push(value) {
        assert!(budget.usage().used > bytes * 2 / 3, "refused for no other reason");
        value = back;
        thread::yield_now();
    }
    assert_eq!(budget.usage().peak, bytes);
    assert!(stack.pop_all().map(|value| *value).eq([4, 1, 0]));
    come_back(&budget);
}

/// A thread that has popped values, and does nothing since, leaves the room to others.
#[test]
fn no_thread_keeps_garbage_for_itself() {
    let budget = Budget::root("process").limit(4 * UnboundedStack::<u64>::NODE_BYTES).build();
    let (stack, barrier) = (UnboundedStack::new_in(&budget.unwrap()), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..4).for_each(|value| stack.push(value));
            (0..4).for_each(|_| assert!(stack.pop().is_some()));
            barrier.wait();
            barrier.wait();
        });
        barrier.wait();
        // Threads of other tests may be in the way for a moment.
        let pushed = |value| {
            (0..1_000_000).any(|_| {
                thread::yield_now();
                stack.try_push(value).is_ok()
            })
        };
        let is_pushed = (4..8).all(pushed);
        barrier.wait();
        assert!(is_pushed, "the room is that of garbage");
    });
    assert!(stack.pop_all().eq([7, 6, 5, 4]));
}

/// Values, and garbage, may be longer than the stack, and the other way round.
#[test]
fn an_iterator_outlives_its_stack() {
    let budget = Budget::root("process").build().unwrap();
    let text = String::from("a value that is borrowed");
    let stack = UnboundedStack::new_in(&budget);
    for word in text.split(' ') {
        stack.push(word);
    }
    let mut all = stack.pop_all();
    stack.push("another");
    drop(stack);
    assert_eq!(all.next(), Some("borrowed"));
    let left = thread::scope(|scope| scope.spawn(|| all.collect::<Vec<_>>()).join().unwrap());
    assert_eq!(left, ["is", "that", "value", "a"]);
    drop(text);
    come_back(&budget);
}

/// Threads come and go while others stay. Each leaves its garbage to the others.
#[test]
fn threads_come_and_go() {
    let threads = if cfg!(miri) { 4 } else { 200 };
    let budget = Budget::root("process").build().unwrap();
    let (stack, bounded) = (UnboundedStack::new_in(&budget), Stack::try_with_capacity(8).unwrap());
    let (is_over, sum) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let popped = stack.pop().or_else(|| bounded.pop());
                sum.fetch_add(popped.unwrap_or(0), Ordering::Relaxed);
                thread::yield_now();
            }
        });
        for _ in 0..threads {
            let work = || {
                for value in 1..=5 {
                    stack.push(value);
                    while bounded.push(value).is_err() {
                        sum.fetch_add(bounded.pop().unwrap_or(0), Ordering::Relaxed);
                    }
                    sum.fetch_add(stack.pop().unwrap_or(0), Ordering::Relaxed);
                }
            };
            scope.spawn(work).join().unwrap();
        }
        is_over.store(true, Ordering::Release);
    });
    let left = stack.pop_all().sum::<usize>() + std::iter::from_fn(|| bounded.pop()).sum::<usize>();
    assert_eq!(sum.into_inner() + left, threads * 2 * 15);
    drop(stack);
    come_back(&budget);
}

#[test]
fn stacks_and_their_errors_format_as_expected() {
    let stack = Stack::try_with_capacity(1).unwrap();
    stack.push(String::from("first")).unwrap();
    let error = stack.push(String::from("second")).unwrap_err();
    assert_eq!(error.to_string(), "no room for another value");
    assert_eq!(error.0, "second");
    assert_eq!(format!("{stack:?}"), "Stack { is_empty: false, capacity: 1, .. }");
    let unbounded = UnboundedStack::<u8>::default();
    assert_eq!(format!("{unbounded:?}"), "UnboundedStack { is_empty: true, .. }");
    assert_eq!(format!("{:?}", unbounded.pop_all()), "PopAll { .. }");
}
