use super::{Facts, PLACES, STACKS, Shelf, Sweep, Taken};
use crate::utils::sync::Ordering;
use std::{collections::VecDeque, vec::Vec};

type Numbers = Shelf<usize>;

fn value(slot: &Taken<usize>) -> usize {
    // SAFETY: 1. The tests' shelves live as long as their slots are used. 2. Nothing changes the value.
    *unsafe { slot.get() }
}

fn push(shelf: &Numbers, thread: usize, slot: Taken<usize>) {
    // SAFETY: the tests have one shelf each.
    unsafe { shelf.push(thread, slot) };
}

fn filled(count: usize, is_fifo: bool) -> Numbers {
    let shelf = Numbers::new(is_fifo);
    for number in 0..count {
        push(&shelf, 0, shelf.add(number, 10 * number, 0).ok().unwrap());
    }
    shelf
}

fn drain(shelf: &Numbers, thread: usize) -> Vec<usize> {
    core::iter::from_fn(|| shelf.pop(thread)).map(|slot| value(&slot)).collect()
}

#[test]
fn a_thread_gets_its_objects_newest_first() {
    let count = 3 * PLACES;
    let shelf = filled(count, false);
    assert_eq!((shelf.idle(), shelf.idle_bytes()), (count, 10 * (0..count).sum::<usize>()));
    assert!(drain(&shelf, 0).into_iter().eq((0..count).rev()));
    assert_eq!((shelf.idle(), shelf.idle_bytes(), shelf.hits()), (0, 0, count as u64));
}

#[test]
fn another_thread_takes_the_oldest_and_no_object_is_lost() {
    let shelf = filled(PLACES + 1, false);
    let newest = shelf.pop_own(0).unwrap();
    assert_eq!(value(&newest), PLACES);
    // Another thread takes the oldest, and leaves a hole.
    let stolen = shelf.pop(1).unwrap();
    assert_eq!(value(&stolen), 0);
    push(&shelf, 0, newest);
    push(&shelf, 1, stolen);
    let mut all = drain(&shelf, 0);
    all.sort_unstable();
    assert!(all.into_iter().eq(0..=PLACES));
}

#[test]
fn objects_in_turn_are_given_out_oldest_first() {
    let shelf = filled(5, true);
    assert!(shelf.pop_own(0).is_none());
    assert_eq!(drain(&shelf, 3), [0, 1, 2, 3, 4]);
}

#[test]
fn threads_without_a_number_share_a_stack() {
    let shelf = Numbers::new(false);
    for thread in [STACKS, STACKS + 7, usize::MAX] {
        push(&shelf, thread, shelf.add(thread, 1, 0).ok().unwrap());
    }
    assert!(shelf.pop_own(usize::MAX).is_none());
    assert_eq!(shelf.idle(), 3);
    assert_eq!(drain(&shelf, usize::MAX), [usize::MAX, STACKS + 7, STACKS]);
}

#[test]
fn a_sweep_shows_the_oldest_first_and_keeps_the_rest_in_order() {
    for is_fifo in [false, true] {
        let count = PLACES + 3;
        let shelf = filled(count, is_fifo);
        let mut seen = Vec::new();
        let removed = shelf.sweep(
            1,
            |facts| {
                let number = facts.size.load(Ordering::Relaxed) / 10;
                seen.push(number);
                match number {
                    number if number == PLACES + 1 => Sweep::Stop,
                    number if number % 2 == 0 => Sweep::Remove,
                    _ => Sweep::Keep,
                }
            },
            || panic!("nobody takes any meanwhile"),
        );
        assert!(seen.into_iter().eq(0..PLACES + 2));
        let removed: Vec<_> = removed.map(|slot| value(&slot)).collect();
        assert!(removed.iter().copied().eq((0..=PLACES).step_by(2)), "{removed:?}");
        let mut kept: Vec<_> = (0..count).filter(|number| !removed.contains(number)).collect();
        assert_eq!(shelf.idle(), kept.len());
        if !is_fifo {
            kept.reverse();
        }
        assert_eq!(drain(&shelf, 0), kept);
    }
}

#[test]
fn a_slot_is_used_again_and_never_by_two() {
    let shelf = Numbers::new(false);
    let count = if cfg!(miri) { 50 } else { 5_000 };
    let mut numbers: Vec<u32> = (0..2)
        .flat_map(|_| {
            let slots: Vec<_> = (0..count).map(|n| shelf.add(n, 0, 0).ok().unwrap()).collect();
            // SAFETY: slots of this shelf, which lives.
            let numbers: Vec<_> = slots.iter().map(|slot| unsafe { slot.number() }).collect();
            for (n, slot) in slots.into_iter().enumerate() {
                // SAFETY: a slot of this shelf.
                assert_eq!(unsafe { shelf.remove(slot) }, Some(n));
            }
            numbers
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

#[test]
fn a_line_stays_in_order_when_some_are_removed() {
    let shelf = Numbers::new(true);
    let add = |number| push(&shelf, 0, shelf.add(number, 1, 0).unwrap());
    (0..6).for_each(add);
    let mut count = 0;
    let every_second = |_: &Facts| {
        count += 1;
        if count % 2 == 0 { Sweep::Remove } else { Sweep::Keep }
    };
    let removed = shelf.sweep(0, every_second, || ());
    assert_eq!((removed.len(), shelf.idle()), (3, 3));
    assert_eq!(removed.map(|slot| value(&slot)).collect::<Vec<_>>(), [1, 3, 5]);
    (6..8).for_each(add);
    let rest = std::iter::from_fn(|| shelf.pop(0)).map(|slot| value(&slot));
    assert_eq!(rest.collect::<Vec<_>>(), [0, 2, 4, 6, 7]);
    add(8);
    assert_eq!(shelf.sweep(0, |_| Sweep::Remove, || ()).len(), 1);
    assert!(shelf.pop(0).is_none());
}

/// Random steps of several threads' numbers, one after the other, against a list per thread.
#[test]
fn the_shelf_agrees_with_a_model() {
    let rounds = if cfg!(miri) { 300 } else { 200_000 };
    let shelf = Numbers::new(false);
    let mut model: [VecDeque<usize>; 3] = Default::default();
    let (mut out, mut state, mut next) = (Vec::new(), 7_u64, 0);
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..rounds {
        let thread = random(3);
        match random(5) {
            0 if out.len() < 3 * PLACES => {
                out.push(shelf.add(next, 1, 0).ok().unwrap());
                next += 1;
            }
            0 | 1 if !out.is_empty() => {
                let slot = out.swap_remove(random(out.len()));
                model[thread].push_back(value(&slot));
                push(&shelf, thread, slot);
            }
            2 if !out.is_empty() => {
                let slot = out.swap_remove(random(out.len()));
                // SAFETY: a slot of this shelf.
                unsafe { shelf.remove(slot) }.unwrap();
            }
            _ => {
                let idle: usize = model.iter().map(VecDeque::len).sum();
                assert_eq!((shelf.idle(), shelf.idle_bytes()), (idle, idle));
                let Some(slot) = shelf.pop(thread) else {
                    assert_eq!(idle, 0);
                    continue;
                };
                // Whose it was depends on the places; that it was idle does not.
                let number = value(&slot);
                let owner = model.iter_mut().find(|list| list.contains(&number)).unwrap();
                owner.retain(|idle| *idle != number);
                out.push(slot);
            }
        }
    }
}
