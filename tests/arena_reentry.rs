//! A reservation calls managers to reclaim bytes. A manager is foreign code, and may use the scope that made
//! the reservation.
#![cfg(feature = "std")]

#[path = "common/asked.rs"]
mod asked;

use asked::Asked;
use nebula_memory::{
    Budget,
    arena::{Arena, Scope},
    core::{MemoryManager, Progress, Reclaimable},
};
use std::{
    cell::{Cell, RefCell},
    mem,
    sync::{Arc, Mutex},
};

thread_local! {
    static SCOPE: Cell<Option<&'static Scope<'static>>> = const { Cell::new(None) };
    /// Whether the managers allocate with a cursor that they leak.
    static LEAKS: Cell<bool> = const { Cell::new(false) };
    static FOREIGN: RefCell<Vec<&'static mut u64>> = const { RefCell::new(Vec::new()) };
}

/// Returns a scope that lives for ever, on a budget of 4 KiB. A manager holds `held` bytes of the budget. The
/// manager releases them once, and then allocates in the scope of its thread.
fn scope_with_guest(held: usize) -> (Arc<impl MemoryManager>, &'static Scope<'static>) {
    let budget = Budget::root("run").limit(4096).build().unwrap();
    let held = Mutex::new(Some(budget.try_reserve(held).unwrap()));
    let reclaim = move || {
        let held = held.lock().unwrap().take();
        if held.is_some() {
            drop(held);
            let scope = SCOPE.get().unwrap();
            let values: Vec<_> = if LEAKS.get() {
                let mut cursor = mem::ManuallyDrop::new(scope.cursor());
                (100..104).filter_map(|i| cursor.try_alloc(i).ok()).collect()
            } else {
                (100..104).filter_map(|i| scope.try_alloc(i).ok()).collect()
            };
            FOREIGN.with_borrow_mut(|foreign| foreign.extend(values));
        }
        Progress::NOTHING
    };
    let guest = Arc::new(Asked { offer: Reclaimable::new(4096, 0), reclaim });
    budget.register(&guest);
    let options = Arena::options().budget(&budget).initial_chunk_bytes(512);
    let arena = Box::leak(Box::new(options.build().unwrap()));
    let scope: &'static Scope<'static> = Box::leak(Box::new(arena.as_scope()));
    SCOPE.set(Some(scope));
    (guest, scope)
}

fn foreign_values_are_whole() {
    FOREIGN.with_borrow(|foreign| {
        assert_eq!(foreign.len(), 4);
        assert!(foreign.iter().map(|value| **value).eq(100..104), "{foreign:?}");
    });
}

#[test]
fn a_scope_whose_request_succeeds_in_the_end_keeps_apart_from_its_guests() {
    let (_guest, scope) = scope_with_guest(4000);
    scope.try_alloc([1_u8; 400]).unwrap();
    let own: Vec<&mut u64> = (0..4).map(|i| scope.try_alloc(i).unwrap()).collect();
    foreign_values_are_whole();
    assert!(own.iter().map(|value| **value).eq(0..4));
}

#[test]
fn a_scope_whose_request_fails_in_the_end_keeps_apart_from_its_guests() {
    let (_guest, scope) = scope_with_guest(4000);
    assert!(scope.try_alloc([1_u8; 3800]).is_err());
    let own: Vec<&mut u64> = (0..4).map(|i| scope.try_alloc(i).unwrap()).collect();
    foreign_values_are_whole();
    assert!(own.iter().map(|value| **value).eq(0..4));
}

#[test]
fn a_cursor_whose_request_fails_in_the_end_keeps_apart_from_its_guests() {
    let (_guest, scope) = scope_with_guest(3500);
    scope.alloc(1_u64);
    let mut cursor = scope.cursor();
    assert!(cursor.try_alloc([1_u8; 4000]).is_err());
    let own: Vec<&mut u64> = (0..4).filter_map(|i| cursor.try_alloc(i).ok()).collect();
    FOREIGN.with_borrow(|foreign| {
        assert!(foreign.iter().zip(100..).all(|(value, expected)| **value == expected));
    });
    assert!(own.iter().zip(0..).all(|(value, expected)| **value == expected));
}

#[test]
fn a_cursor_that_a_guest_leaks_keeps_its_bytes() {
    LEAKS.set(true);
    let (_guest, scope) = scope_with_guest(4000);
    assert!(scope.try_alloc([1_u8; 3800]).is_err());
    let own: Vec<&mut u64> = (0..4).map(|i| scope.try_alloc(i).unwrap()).collect();
    foreign_values_are_whole();
    assert!(own.iter().map(|value| **value).eq(0..4));
}

#[test]
fn children_of_children_of_the_smallest_arena_grow() {
    let arena = Arena::options().initial_chunk_bytes(48).max_chunk_bytes(48).build().unwrap();
    let child = arena.child();
    let grandchild = child.child();
    let great = grandchild.child();
    assert_eq!((*child.alloc(1_u64), *grandchild.alloc(2_u64), *great.alloc(3_u64)), (1, 2, 3));
}
