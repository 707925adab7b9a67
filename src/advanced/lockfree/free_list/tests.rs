use super::{CACHES, FreeList, MAGAZINE, MIN_CACHED, PATIENCE};
use std::{collections::HashSet, vec::Vec};

fn list(capacity: usize) -> FreeList {
    FreeList::try_with_capacity(capacity).unwrap()
}

fn is_closed(list: &FreeList) -> bool {
    super::lock(&list.shared).is_closed
}

#[test]
fn indices_that_others_keep_are_taken_before_none_is_returned() {
    for capacity in [0, 1, 2, MIN_CACHED, 5 * MAGAZINE, 8 * MAGAZINE + 3] {
        let list = list(capacity);
        // One thread or the depot has all; then all are out, to a thread that may keep some and to one that may not.
        for thread in [0, 1, CACHES] {
            let all: Vec<_> = core::iter::from_fn(|| list.take_as(thread)).collect();
            assert_eq!(all.iter().copied().collect::<HashSet<_>>().len(), capacity);
            assert_eq!((all.len(), list.available()), (capacity, 0));
            assert!(all.iter().all(|index| list.give_as(0, *index)));
            assert_eq!(list.available(), capacity);
        }
    }
}

#[test]
fn the_gate_opens_again_once_enough_indices_are_free() {
    let list = list(16 * MAGAZINE);
    assert!(!is_closed(&list));
    let all: Vec<_> = core::iter::from_fn(|| list.take_as(0)).collect();
    assert!(is_closed(&list));
    let eighth = all.len() / 8;
    for index in &all[1..eighth] {
        assert!(list.give_as(0, *index));
    }
    // Each call counts, but too few are free.
    for _ in 0..=PATIENCE {
        let index = list.take_as(0).unwrap();
        assert!(is_closed(&list) && list.give_as(0, index));
    }
    assert!(is_closed(&list));
    assert!(list.give_as(0, all[0]));
    assert!(!is_closed(&list));
    assert_eq!(list.available(), eighth);
}

#[test]
fn a_thread_that_only_gives_fills_the_depot() {
    let list = list(16 * MAGAZINE);
    let all: Vec<_> = (0..8 * MAGAZINE).map(|_| list.take_as(0).unwrap()).collect();
    for index in &all {
        assert!(list.give_as(1, *index));
    }
    assert!(!is_closed(&list));
    let shared = super::lock(&list.shared);
    // The thread keeps the rest.
    assert_eq!(shared.depot.free(), 6 * MAGAZINE);
}

/// What two gives at the same time would leave: an index that is in two lists. Calls end, and return indices of the
/// list.
#[test]
fn an_index_in_two_lists_does_no_more_than_be_taken_twice() {
    for capacity in [1, 3, MIN_CACHED, 5 * MAGAZINE] {
        for threads in [[0, 0], [0, 1], [1, CACHES], [CACHES, CACHES]] {
            let list = list(capacity);
            let held: Vec<_> = (0..capacity).map(|_| list.take_as(0).unwrap()).collect();
            let item = list.indices.out(held[0]).unwrap();
            for thread in threads {
                list.give_slowly(thread, item);
            }
            for round in 0..if cfg!(miri) { 3 } else { 4 * capacity } {
                for index in held.iter().skip(round % 2) {
                    list.give_as(round % 3, *index);
                }
                for _ in 0..3 * capacity {
                    let index = list.take_as((round + 1) % 3);
                    assert!(index.is_none_or(|index| index < capacity));
                }
                assert!(list.available() <= capacity);
            }
        }
    }
}
