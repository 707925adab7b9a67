//! The arena that drops its values, which may have any type.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget,
    arena::{Arena, DropArena},
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Records its number when it is dropped, and may panic then.
struct Noted<'a, const N: usize> {
    number: usize,
    log: &'a RefCell<Vec<usize>>,
    panics: bool,
    _padding: [u8; N],
}

impl<const N: usize> Drop for Noted<'_, N> {
    fn drop(&mut self) {
        self.log.borrow_mut().push(self.number);
        assert!(!self.panics, "planned");
    }
}

fn noted<const N: usize>(number: usize, log: &RefCell<Vec<usize>>, panics: bool) -> Noted<'_, N> {
    Noted { number, log, panics, _padding: [0; N] }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Values are dropped newest first, and a slice in the order of its values. A panic does not stop the
    /// other drops.
    #[test]
    fn every_value_is_dropped_once_and_the_newest_first(
        kinds in proptest::collection::vec(0..5_u8, 0..if cfg!(miri) { 12 } else { 60 }),
        panicking in 0..90_usize,
        resets in any::<bool>(),
    ) {
        let log = RefCell::default();
        let mut arena = DropArena::new();
        let mut groups = Vec::new();
        let mut next = 0;
        for kind in kinds {
            let mut take = |count: usize| {
                let group: Vec<_> = (next..next + count).collect();
                next += count;
                group
            };
            match kind {
                0 => {
                    let group = take(1);
                    arena.alloc(noted::<1>(group[0], &log, group[0] == panicking));
                    groups.push(group);
                }
                1 => {
                    let group = take(1);
                    arena.alloc_with(|| noted::<100>(group[0], &log, group[0] == panicking));
                    groups.push(group);
                }
                2 => {
                    let group = take(7);
                    let values = group.iter().map(|i| noted::<3>(*i, &log, *i == panicking));
                    assert_eq!(arena.alloc_extend(values).len(), 7);
                    groups.push(group);
                }
                3 => assert_eq!(*arena.alloc(0x5A_u64), 0x5A),
                _ => assert_eq!(arena.alloc_extend([0_u16; 9]), [0; 9]),
            }
        }
        let panics = panicking < next;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if resets { arena.reset() } else { drop(arena) }
        }));
        prop_assert_eq!(outcome.is_err(), panics);
        let expected: Vec<_> = groups.into_iter().rev().flatten().collect();
        prop_assert_eq!(log.take(), expected);
    }
}

#[test]
fn a_value_whose_making_panics_is_not_dropped_and_the_others_are() {
    let log = RefCell::default();
    let mut arena = DropArena::new();
    arena.alloc(noted::<0>(1, &log, false));
    let failed = catch_unwind(AssertUnwindSafe(|| {
        arena.alloc_with(|| -> Noted<'_, 0> { panic!("planned") });
    }));
    assert!(failed.is_err());
    arena.alloc_with(|| {
        arena.alloc(noted::<0>(2, &log, false)); // the closure itself uses the arena
        noted::<0>(3, &log, false)
    });
    arena.reset();
    assert_eq!(log.take(), [3, 2, 1]);
}

#[test]
fn a_value_that_does_not_fit_is_dropped_at_once() {
    let log = RefCell::default();
    let arena = Arena::options().max_bytes(256).build_dropping().unwrap();
    assert!(arena.try_alloc(noted::<300>(1, &log, false)).is_err());
    assert_eq!(log.take(), [1]);
    let values = (2..5).map(|i| noted::<100>(i, &log, false));
    assert!(arena.try_alloc_extend(values).is_err());
    assert_eq!(log.take(), [3, 2], "the one that does not fit, and those before");
    drop(arena);
    assert!(log.take().is_empty());
}

#[test]
fn values_of_no_bytes_are_dropped_too() {
    thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
    struct Empty;
    impl Drop for Empty {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    let arena = DropArena::new();
    arena.alloc(Empty);
    arena.alloc_extend([Empty, Empty]);
    arena.alloc_extend::<Empty>([]);
    drop(arena);
    assert_eq!(DROPS.get(), 3);
}

#[test]
fn a_value_without_a_drop_costs_nothing_beside_itself() {
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let mut arena =
        Arena::options().initial_chunk_bytes(832).budget(&budget).build_dropping().unwrap();
    for i in 0..100_u64 {
        arena.alloc(i);
    }
    assert_eq!((arena.used_bytes(), budget.usage().used), (832, 832));
    assert_eq!(arena.trim(0), 832);
    assert_eq!(budget.usage().used, 0);
}
