//! Arenas of one type: every value is dropped once, in order, whatever panics.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget,
    arena::{Arena, TypedArena},
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

/// Records its number when it is dropped.
struct Noted {
    number: usize,
    log: Rc<RefCell<Vec<usize>>>,
    panics: bool,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.log.borrow_mut().push(self.number);
        assert!(!self.panics, "planned");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    One,
    Many(usize),
    Reset,
    Trim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::One),
        3 => (0..40_usize).prop_map(Step::Many),
        1 => Just(Step::Reset),
        1 => (0..5000_usize).prop_map(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_value_is_dropped_once_and_in_order(
        steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 20 } else { 100 }),
        limit in prop_oneof![Just(usize::MAX), 1..6000_usize],
    ) {
        let log = Rc::new(RefCell::new(Vec::new()));
        let budget = Budget::root("run").limit(limit).build()?;
        let mut arena = Arena::options().budget(&budget).build_typed()?;
        let mut next = 0;
        let mut alive = 0;
        for step in steps {
            let new = |number| Noted { number, log: Rc::clone(&log), panics: false };
            match step {
                Step::One => {
                    if let Ok(value) = arena.try_alloc(new(next)) {
                        prop_assert_eq!(value.number, next);
                        (next, alive) = (next + 1, alive + 1);
                    } else {
                        prop_assert_eq!(log.borrow_mut().pop(), Some(next), "dropped at once");
                    }
                }
                Step::Many(count) => {
                    let before = log.borrow().len();
                    if let Ok(values) = arena.try_alloc_extend((next..next + count).map(new)) {
                        prop_assert!(values.iter().map(|value| value.number).eq(next..next + count));
                        (next, alive) = (next + count, alive + count);
                    } else {
                        let mut dropped = log.borrow_mut().split_off(before);
                        dropped.sort_unstable();
                        let yielded = next..next + dropped.len();
                        prop_assert!(dropped.into_iter().eq(yielded), "once each, no others");
                    }
                }
                Step::Reset => {
                    arena.reset();
                    alive = 0;
                }
                Step::Trim(keep) => {
                    arena.trim(keep);
                    alive = 0;
                    prop_assert!(arena.used_bytes() <= keep);
                }
            }
            prop_assert_eq!((arena.len(), arena.is_empty()), (alive, alive == 0));
            prop_assert!(arena.iter_mut().map(|value| value.number).eq(next - alive..next));
            let mut values = arena.iter_mut();
            for left in (0..alive).rev() {
                prop_assert_eq!(values.size_hint(), (left + 1, Some(left + 1)));
                prop_assert!(values.next().is_some());
            }
            prop_assert!(values.len() == 0 && values.next().is_none() && values.next().is_none());
            drop(values);
            prop_assert!(log.borrow().iter().copied().eq(0..next - alive));
            prop_assert_eq!(budget.usage().used, arena.used_bytes());
        }
        drop(arena);
        prop_assert!(log.borrow().iter().copied().eq(0..next));
        prop_assert_eq!(budget.usage().used, 0);
    }
}

#[test]
fn a_drop_that_panics_keeps_no_other_from_being_dropped() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut arena = TypedArena::new();
    let fill = |arena: &TypedArena<Noted>| {
        for number in 0..200 {
            arena.alloc(Noted { number, log: Rc::clone(&log), panics: number == 3 });
        }
    };
    fill(&arena);
    assert!(catch_unwind(AssertUnwindSafe(|| arena.reset())).is_err());
    assert!(log.take().into_iter().eq(0..200));
    assert!(arena.is_empty());
    fill(&arena);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(arena))).is_err());
    assert!(log.take().into_iter().eq(0..200));
}

#[test]
fn an_iterator_may_use_the_arena_and_may_panic() {
    let arena = TypedArena::new();
    let values = arena.alloc_extend((0..5).inspect(|i| {
        arena.alloc(i * 10);
    }));
    assert_eq!(values, [0, 1, 2, 3, 4]);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        arena.alloc_extend((0..5).map(|i| if i < 3 { i } else { panic!("planned") }));
    }));
    assert!(failed.is_err());
    assert_eq!(arena.len(), 10);
}

#[test]
fn values_of_no_bytes_are_counted_and_dropped() {
    thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
    struct Empty;
    impl Drop for Empty {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    let mut arena = TypedArena::new();
    arena.alloc(Empty);
    arena.alloc_extend([Empty, Empty]);
    assert_eq!((arena.len(), DROPS.get(), arena.used_bytes()), (3, 0, 0));
    assert_eq!((arena.iter_mut().count(), arena.iter_mut().len()), (3, 3));
    arena.reset();
    assert_eq!((arena.len(), DROPS.get()), (0, 3));
}

#[test]
fn a_chunk_is_filled_and_little_is_lost() {
    #[derive(Clone, Copy)]
    #[expect(dead_code, reason = "as large as it says")]
    struct Small([u64; 3]);
    let arena = TypedArena::new();
    let count = if cfg!(miri) { 1000 } else { 1_000_000 };
    for _ in 0..count {
        arena.alloc(Small([0; 3]));
    }
    let (used, needed) = (arena.used_bytes(), count * size_of::<Small>());
    assert!(cfg!(miri) || used - needed <= needed / 10, "{used} for {needed}");
}

#[test]
fn large_alignments_and_values_larger_than_a_chunk() {
    #[repr(align(256))]
    struct Aligned(u8);
    let mut arena = TypedArena::new();
    for i in 0..100 {
        let value = arena.alloc(Aligned(i));
        assert_eq!((&raw const *value).addr() % 256, 0);
    }
    assert!(arena.iter_mut().map(|value| value.0).eq(0..100));
    let mut arena = TypedArena::new();
    for i in 0..5 {
        arena.alloc([i; 5000]);
    }
    assert!(arena.iter_mut().map(|value| value[4999]).eq(0..5));
}

#[test]
fn it_goes_to_another_thread_as_its_values_do() {
    fn sendable<T: Send>(_: &T) {}
    let arena = TypedArena::new();
    arena.alloc(String::from("ada"));
    sendable(&arena);
    let mut arena = std::thread::spawn(move || arena).join().unwrap();
    assert_eq!(arena.iter_mut().next().unwrap(), "ada");
}
