//! Models: one thread at a time has an object, and no object is lost, whichever thread takes it from whichever stack.

use super::{Facts, Shelf, Sweep, Taken};
use loom::{sync::Arc, thread};

type Numbers = Shelf<u32>;

/// Runs a model in every order of at most three switches.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn push(shelf: &Numbers, thread: usize, slot: Taken<u32>) {
    // SAFETY: a slot of this shelf.
    unsafe { shelf.push(thread, slot) };
}

fn shelf_of(count: u32, thread: usize) -> Arc<Numbers> {
    let shelf = Arc::new(Numbers::new(false));
    for number in 0..count {
        let slot = shelf.add(number, 1, 0).unwrap();
        push(&shelf, thread, slot);
    }
    shelf
}

/// Uses an object: the model checker finds two threads that do so at once.
fn touch(slot: &mut Taken<u32>) -> u32 {
    // SAFETY: 1. The shelf lives. 2. The result is used up here.
    let value = unsafe { slot.get_mut() };
    *value += 10;
    *value
}

/// The values of all idle objects.
fn all(shelf: &Numbers) -> Vec<u32> {
    let mut values: Vec<_> =
        std::iter::from_fn(|| shelf.pop(0)).map(|mut slot| touch(&mut slot) % 10).collect();
    values.sort_unstable();
    values
}

/// The owner takes and returns its object while another thread takes it away, uses it and returns it to its own stack.
#[test]
fn the_owner_and_a_thief() {
    loom::model(|| {
        let shelf = shelf_of(2, 0);
        let thief = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                if let Some(mut slot) = shelf.pop(1) {
                    touch(&mut slot);
                    push(&shelf, 1, slot);
                }
            })
        };
        if let Some(mut slot) = shelf.pop_own(0) {
            touch(&mut slot);
            push(&shelf, 0, slot);
        }
        thief.join().unwrap();
        assert_eq!((shelf.idle(), all(&shelf)), (2, vec![0, 1]));
    });
}

/// The third object of the owner is in the list. A thief takes two, one of them from there, and puts them into a list
/// too, while the owner pops and pushes the top object.
#[test]
fn a_thief_takes_from_the_list_while_the_owner_pops() {
    check(|| {
        let shelf = shelf_of(4, 0);
        let thief = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let own = shelf.existing(0).unwrap();
                for _ in 0..2 {
                    if let Some(slot) = shelf.pop_listed(own) {
                        let mut slot = shelf.popped(1, shelf.stack(1), slot);
                        touch(&mut slot);
                        // SAFETY: a slot of this shelf. The owner's list is the one that it is put on.
                        let slot = unsafe { slot.0.as_ref() };
                        shelf.stack(1).pushed.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
                        own.head.push(slot.number, &slot.below);
                    }
                }
            })
        };
        if let Some(mut slot) = shelf.pop_own(0) {
            touch(&mut slot);
            push(&shelf, 0, slot);
        }
        thief.join().unwrap();
        assert_eq!(all(&shelf), [0, 1, 2, 3]);
    });
}

/// A sweep removes an object or leaves it where it is, while its owner takes and returns it.
#[test]
fn the_owner_and_a_sweep() {
    check(|| {
        let shelf = shelf_of(3, 0);
        let sweeper = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let mut first = true;
                let judge = |_: &Facts| {
                    if std::mem::take(&mut first) { Sweep::Remove } else { Sweep::Keep }
                };
                let removed = shelf.sweep(1, judge, || ());
                let count = removed.len();
                for mut slot in removed {
                    touch(&mut slot);
                    // SAFETY: a slot of this shelf.
                    assert!(unsafe { shelf.remove(slot) }.is_some());
                }
                count
            })
        };
        if let Some(mut slot) = shelf.pop_own(0) {
            touch(&mut slot);
            push(&shelf, 0, slot);
        }
        let removed = sweeper.join().unwrap();
        assert_eq!((shelf.idle(), all(&shelf).len()), (3 - removed, 3 - removed));
    });
}

/// A slot that was emptied is used again by another thread, which sees it empty.
#[test]
fn a_vacant_slot_passes_to_another_thread() {
    loom::model(|| {
        let shelf = shelf_of(1, 0);
        let other = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let mut slot = shelf.add(5, 1, 0).unwrap();
                assert_eq!(touch(&mut slot), 15);
                push(&shelf, 1, slot);
            })
        };
        let slot = shelf.pop_own(0).unwrap();
        // SAFETY: a slot of this shelf.
        assert_eq!(unsafe { shelf.remove(slot) }, Some(0));
        other.join().unwrap();
        assert_eq!(all(&shelf), [5]);
    });
}

/// Puts an object into the list of a thread.
fn push_listed(shelf: &Numbers, thread: usize, slot: Taken<u32>) {
    // SAFETY: a slot of this shelf.
    let slot = unsafe { slot.0.as_ref() };
    shelf.stack(thread).head.push(slot.number, &slot.below);
}

fn pop_listed(shelf: &Numbers, thread: usize) -> Option<Taken<u32>> {
    shelf.pop_listed(shelf.stack(thread)).map(Taken)
}

/// The owner makes an object, and with it the first block and its stack. Another thread finds it and uses it.
#[test]
fn an_object_is_seen_whole() {
    check(|| {
        let shelf = Arc::new(Numbers::new(false));
        let other = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let found = shelf.pop(1);
                found.map(|mut slot| touch(&mut slot)).inspect(|value| assert_eq!(*value, 15))
            })
        };
        push(&shelf, 0, shelf.add(5, 1, 0).unwrap());
        let found = other.join().unwrap();
        assert_eq!(shelf.pop(0).is_some(), found.is_none());
    });
}

/// The same for a sweep, which looks at the object before it takes it.
#[test]
fn a_sweep_sees_an_object_whole() {
    check(|| {
        let shelf = Arc::new(Numbers::new(false));
        let other = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let size = |facts: &Facts| facts.size.load(loom::sync::atomic::Ordering::Relaxed);
                let judge = |facts: &Facts| {
                    assert_eq!(size(facts), 7);
                    Sweep::Remove
                };
                shelf.sweep(1, judge, || ()).map(|mut slot| touch(&mut slot)).count()
            })
        };
        push(&shelf, 0, shelf.add(5, 7, 0).unwrap());
        let found = other.join().unwrap();
        assert_eq!(shelf.pop(0).is_some(), found == 0);
    });
}

/// One object in a place: its owner takes and returns it, while another thread takes it and returns it.
#[test]
fn one_object_and_two_threads() {
    check(|| {
        let shelf = shelf_of(1, 0);
        let thief = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                if let Some(mut slot) = shelf.pop(1) {
                    touch(&mut slot);
                    push(&shelf, 1, slot);
                }
            })
        };
        if let Some(mut slot) = shelf.pop(0) {
            touch(&mut slot);
            push(&shelf, 0, slot);
        }
        thief.join().unwrap();
        assert_eq!(all(&shelf), [0]);
    });
}

/// One object in a list, which passes between two threads.
#[test]
fn one_listed_object_and_two_threads() {
    check(|| {
        let shelf = shelf_of(1, 0);
        let slot = shelf.pop(0).unwrap();
        push_listed(&shelf, 0, slot);
        let thief = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                if let Some(mut slot) = pop_listed(&shelf, 0) {
                    touch(&mut slot);
                    push_listed(&shelf, 0, slot);
                }
            })
        };
        if let Some(mut slot) = pop_listed(&shelf, 0) {
            touch(&mut slot);
            push_listed(&shelf, 0, slot);
        }
        thief.join().unwrap();
        assert!(pop_listed(&shelf, 0).is_some());
        assert!(pop_listed(&shelf, 0).is_none());
    });
}

/// While a thread is about to pop the first of two, another pops both and puts the first back: the list's word differs.
#[test]
fn a_list_that_looks_as_before() {
    check(|| {
        let shelf = shelf_of(2, 0);
        let (one, two) = (shelf.pop(0).unwrap(), shelf.pop(0).unwrap());
        push_listed(&shelf, 0, two);
        push_listed(&shelf, 0, one);
        let thief = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || pop_listed(&shelf, 0).map(|mut slot| touch(&mut slot) % 10))
        };
        let first = pop_listed(&shelf, 0);
        let mut second = pop_listed(&shelf, 0);
        let mut values: Vec<_> = second.iter_mut().map(|slot| touch(slot) % 10).collect();
        if let Some(mut first) = first {
            touch(&mut first);
            push_listed(&shelf, 0, first);
        }
        values.extend(thief.join().unwrap());
        while let Some(mut slot) = pop_listed(&shelf, 0) {
            values.push(touch(&mut slot) % 10);
        }
        values.sort_unstable();
        assert_eq!(values, [0, 1]);
    });
}

/// A sweep takes a list apart and puts it together, while its owner pops and pushes.
#[test]
fn a_sweep_of_a_list() {
    check(|| {
        let shelf = shelf_of(2, 0);
        for _ in 0..2 {
            let slot = shelf.pop(0).unwrap();
            push_listed(&shelf, 0, slot);
        }
        let sweeper = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                let mut is_first = true;
                let judge = |_: &Facts| {
                    if std::mem::take(&mut is_first) { Sweep::Remove } else { Sweep::Keep }
                };
                shelf.sweep(1, judge, || ()).map(|mut slot| touch(&mut slot)).count()
            })
        };
        if let Some(mut slot) = pop_listed(&shelf, 0) {
            touch(&mut slot);
            push_listed(&shelf, 0, slot);
        }
        let removed = sweeper.join().unwrap();
        let left = std::iter::from_fn(|| pop_listed(&shelf, 0)).map(|mut slot| touch(&mut slot));
        assert_eq!(left.count(), 2 - removed);
    });
}
