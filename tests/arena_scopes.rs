//! Scopes by guard, children, cursors and buffers.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down, InlineBuffer, Up},
    },
    arena::Arena,
    core::MemoryUsage,
};
use std::{
    alloc::Layout,
    mem::{self, MaybeUninit},
    panic::{AssertUnwindSafe, catch_unwind},
};

fn down() -> Arena<SystemAllocator, Down> {
    Arena::options().direction::<Down>().build().unwrap()
}

#[test]
fn a_guard_goes_back_on_every_way_out_and_a_leaked_one_does_not() {
    let mut arena = Arena::new();
    arena.alloc(1_u64);
    let before = arena.filled_bytes();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let guard = arena.guard();
        guard.alloc([0_u8; 5000]);
        panic!("planned");
    }));
    assert!(outcome.is_err());
    assert_eq!(arena.filled_bytes(), before);

    let guard = arena.guard();
    guard.alloc([0_u8; 5000]);
    mem::forget(guard);
    assert_eq!(arena.filled_bytes(), before + 5000);
    let mut guard = arena.guard();
    guard.alloc(1_u8);
    guard.scope(|scope| assert_eq!(scope.alloc_str("inner"), "inner"));
    guard.guard().alloc(2_u8);
    drop(guard);
    assert_eq!(arena.filled_bytes(), before + 5000);
}

#[test]
fn a_value_that_does_not_fit_leaves_the_rest_to_smaller_values() {
    fn check<D: Direction, const MIN_ALIGN: usize>() {
        // One chunk, with 96 bytes for values.
        let options = || Arena::options().direction::<D>().min_align::<MIN_ALIGN>();
        let mut arena = options().max_bytes(128).build().unwrap();
        let fill = |big: &mut dyn FnMut(u64) -> bool, small: &mut dyn FnMut(u64) -> bool| {
            assert!(big(1) && !big(2) && !big(3));
            assert!(small(4) && !big(5) && small(6) && !small(7));
        };
        let mut values = Vec::new();
        arena.scope(|scope| {
            let mut bigs = Vec::new();
            fill(
                &mut |n| scope.try_alloc([n; 10]).map(|value| bigs.push(value)).is_ok(),
                &mut |n| scope.try_alloc(n).map(|value| values.push(*value)).is_ok(),
            );
            assert_eq!((bigs.len(), *bigs[0]), (1, [1; 10]));
            // A panic costs the scope its free bytes, and nothing else.
            for _ in 0..2 {
                let panics = || *scope.alloc([8_u64; 10]);
                assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            }
            assert_eq!(*bigs[0], [1; 10]);
        });
        {
            let mut cursor = arena.cursor();
            let big = cursor.alloc([1_u64; 10]);
            assert!(cursor.try_alloc([2_u64; 10]).is_err());
            let panics = || *cursor.alloc([8_u64; 10]);
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            assert_eq!(*big, [1; 10]);
        }
        assert_eq!(*arena.alloc(9_u64), 9);
        arena.reset();
        let mut cursor = arena.cursor();
        let (mut bigs, mut smalls) = (Vec::new(), Vec::new());
        for n in 0..4_u64 {
            bigs.extend(cursor.try_alloc([n; 10]));
            smalls.extend(cursor.try_alloc(n));
        }
        assert_eq!((bigs.len(), *bigs[0]), (1, [0; 10]));
        assert_eq!(smalls, [&0, &1]);
        assert_eq!(values, [4, 6]);
    }
    check::<Up, 1>();
    check::<Up, 8>();
    check::<Down, 1>();
    check::<Down, 8>();
}

#[test]
fn a_leaked_cursor_costs_its_bytes_and_nothing_else() {
    fn check<D: Direction>(mut arena: Arena<SystemAllocator, D>) {
        arena.alloc(0_u64);
        arena.scope(|scope| {
            let outer = scope.alloc(1_u64);
            scope.scope(|inner| {
                let mut cursor = inner.cursor();
                let first = cursor.alloc(2_u64);
                mem::forget(cursor);
                let second = inner.alloc(3_u64);
                assert_eq!((*first, *second), (2, 3));
            });
            let after = scope.alloc(4_u64);
            let (outer_at, after_at) = ((&raw const *outer).addr(), (&raw const *after).addr());
            assert_eq!(outer_at.abs_diff(after_at), 8, "the scope has its bytes back");
            assert_eq!((*outer, *after), (1, 4));
        });
    }
    check(Arena::new());
    check(down());
}

/// After a cursor was leaked the arena has no free bytes. It must not treat the cursor's earlier bytes as
/// free.
#[test]
fn an_inner_guard_after_a_leaked_cursor_keeps_earlier_values() {
    fn check<A: Allocator>(arena: &mut Arena<A>) {
        let mut outer = arena.guard();
        let kept = outer.alloc([7_u8; 40]).as_ptr();
        mem::forget(outer.cursor());
        let inner = outer.guard();
        inner.alloc([1_u8; 3000]);
        drop(inner);
        let next = outer.alloc([9_u8; 40]);
        assert!(next.as_ptr().addr().abs_diff(kept.addr()) >= 40);
        // SAFETY: the outer guard is still alive.
        assert_eq!(unsafe { kept.cast::<[u8; 40]>().read() }, [7; 40]);
    }
    check(&mut Arena::new());
    let mut buffer = InlineBuffer::<256>::new();
    check(&mut Arena::with_buffer(buffer.as_uninit()));
}

#[test]
fn cursors_beside_each_other_and_beside_the_arena_keep_apart() {
    let arena = Arena::options().initial_chunk_bytes(128).max_chunk_bytes(256).build().unwrap();
    let mut first = arena.cursor();
    let mut second = arena.cursor();
    let mut values = Vec::new();
    for i in 0..if cfg!(miri) { 60_usize } else { 300 } {
        values.push(first.alloc(3 * i));
        values.push(second.alloc(3 * i + 1));
        values.push(arena.alloc(3 * i + 2));
        if i % 7 == 0 {
            second = arena.cursor();
        }
        if i % 11 == 0 {
            first = arena.cursor();
        }
    }
    assert!(values.iter().map(|value| **value).eq(0..values.len()));
}

#[test]
fn a_cursor_returns_its_unused_bytes() {
    let arena = Arena::new();
    arena.alloc(0_u64);
    let before = arena.used_bytes();
    for i in 0..100_u64 {
        let mut cursor = arena.cursor();
        assert_eq!(*cursor.alloc(i), i);
    }
    assert_eq!((arena.used_bytes(), arena.filled_bytes()), (before, 8 + 800));
}

#[test]
fn a_cursor_goes_on_after_an_error() {
    let base = Awkward::new(0);
    let arena = Arena::options().initial_chunk_bytes(64).build_in(&base).unwrap();
    let mut cursor = arena.cursor();
    let mut values: Vec<&mut u64> = (0..4).map(|i| cursor.alloc(i)).collect();
    base.most.set(0);
    assert!(cursor.try_alloc(4_u64).is_err());
    let _ = arena.try_alloc(5_u8).unwrap_err();
    base.most.set(1 << 20);
    values.extend((4..100).map(|i| cursor.alloc(i)));
    assert!(values.iter().map(|value| **value).eq(0..100));
    drop(cursor);
    drop(arena);
    assert!(base.live().is_empty());
}

#[test]
fn a_value_that_does_not_fit_is_a_panic_that_leaves_the_arena_whole() {
    let base = Awkward::new(0);
    let mut arena = Arena::options().initial_chunk_bytes(64).build_in(&base).unwrap();
    arena.alloc(1_u64);
    base.most.set(0);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut cursor = arena.cursor();
        (0..9_u64).for_each(|i| *cursor.alloc(i) += 1);
    }));
    assert!(outcome.is_err());
    assert_eq!(arena.filled_bytes(), 32, "the chunk is full, and no fuller");
    arena.reset();
    let scope = arena.as_scope();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        (0..9_u64).for_each(|i| *scope.alloc(i) += 1);
    }));
    assert!(outcome.is_err() && scope.try_alloc(1_u64).is_err());
    drop(scope);
    assert_eq!(arena.filled_bytes(), 32);
    arena.reset();
    arena.alloc(1_u64);
}

#[cfg(feature = "allocator-api2-04")]
#[test]
fn a_container_that_holds_the_arena_grows_beside_a_child() {
    let arena = Arena::new();
    let mut chars = allocator_api2_04::vec::Vec::new_in(&arena);
    for round in 0..if cfg!(miri) { 30_usize } else { 200 } {
        let child = arena.child();
        let scratch = child.alloc_slice_fill_with(round, |_| 0xEE_u8);
        chars.push(round);
        let inner = child.child();
        inner.alloc_slice_fill_with(round, |_| 0xDD_u8);
        assert!(scratch.iter().all(|byte| *byte == 0xEE));
    }
    assert!(chars.iter().copied().eq(0..chars.len()));
    assert!(arena.used_bytes() < 16 << 10, "chunks of children are used again");
}

#[test]
fn children_go_in_any_order_and_one_that_is_leaked_keeps_its_chunks_until_a_trim() {
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let mut arena = Arena::options().budget(&budget).build().unwrap();
    let (first, second, third) = (arena.child(), arena.child(), arena.child());
    let values = [first.alloc([1_u8; 900]), second.alloc([2; 900]), third.alloc([3; 900])];
    assert_eq!(budget.usage().used, 3 * 1024);
    assert_eq!(values.map(|value| value[899]), [1, 2, 3]);
    drop(second);
    drop(first);
    mem::forget(third);
    arena.alloc([0_u8; 900]);
    arena.alloc([0_u8; 900]);
    assert_eq!(budget.usage().used, 3 * 1024, "two of three are used again");
    arena.trim(0);
    assert_eq!((budget.usage().used, arena.used_bytes()), (0, 0), "the leaked one too");
}

#[test]
fn the_bound_and_the_budget_hold_for_an_arena_and_its_children_together() {
    let arena = Arena::options().max_bytes(4096).build().unwrap();
    let child = arena.child();
    let mut given = 0;
    while child.try_alloc(0_u64).is_ok() || arena.try_alloc(0_u64).is_ok() {
        given += 8;
    }
    assert!(arena.used_bytes() <= 4096 && given > 3500);
}

#[test]
fn a_large_value_has_a_chunk_of_its_own_and_the_rest_of_the_other_is_used() {
    const LARGE: usize = if cfg!(miri) { 1 << 13 } else { 1 << 20 };
    let arena = Arena::new();
    let small = arena.alloc(1_u64);
    let large = arena.alloc_slice_fill_with(LARGE, |_| 7_u8);
    let next = arena.alloc(2_u64);
    assert_eq!((&raw const *next).addr() - (&raw const *small).addr(), 8);
    assert_eq!((*small, *next, large[LARGE - 1]), (1, 2, 7));
    assert!(arena.used_bytes() < LARGE + 2048);
    assert_eq!(arena.filled_bytes(), LARGE + 16);
}

#[test]
fn a_scope_gives_the_chunks_of_large_values_back() {
    let mut arena = Arena::new();
    arena.alloc(1_u64);
    const LARGE: usize = if cfg!(miri) { 2000 } else { 50_000 };
    for _ in 0..if cfg!(miri) { 5 } else { 100 } {
        arena.scope(|scope| {
            scope.alloc(2_u64);
            scope.alloc_slice_fill_with(LARGE, |_| 7_u8);
            scope.alloc(3_u64);
        });
    }
    assert!(arena.used_bytes() < LARGE + 10_000);
    assert_eq!(arena.filled_bytes(), 8);
}

#[test]
fn a_past_peak_is_trimmed_and_recent_use_stays() {
    let options = Arena::options().initial_chunk_bytes(1024).max_chunk_bytes(4096);
    let mut arena = options.build().unwrap();
    let round = |arena: &mut Arena, bytes: usize| {
        for _ in 0..bytes / 100 {
            arena.alloc([0_u8; 100]);
        }
        arena.reset();
    };
    round(&mut arena, 100_000);
    assert_eq!(arena.trim_to_high_water(), 0);
    let peak = arena.used_bytes();
    round(&mut arena, 10_000);
    round(&mut arena, 5000);
    assert!(arena.trim_to_high_water() > 0);
    let kept = arena.used_bytes();
    assert!((10_000..16_000).contains(&kept), "{kept} of {peak}");
    let child = arena.child();
    child.alloc([0_u8; 3500]);
    drop(child);
    arena.trim_to_high_water();
    assert_eq!(arena.used_bytes(), 4096, "a child's chunk counts");
    arena.trim_to_high_water();
    assert_eq!(arena.used_bytes(), 0, "nothing was in use");
}

#[test]
fn an_arena_begins_in_its_buffer_and_goes_on_beyond() {
    let mut buffer = InlineBuffer::<256>::new();
    let range = buffer.as_uninit().as_ptr_range();
    let range = range.start.addr()..range.end.addr();
    for round in 0..3 {
        let mut arena = Arena::with_buffer(buffer.as_uninit());
        let first = arena.alloc(round);
        assert!(range.contains(&(&raw const *first).addr()));
        let values: Vec<_> = (0..100_u64).map(|i| arena.alloc(i)).collect();
        assert!(values.iter().map(|value| **value).eq(0..100));
        assert!(arena.used_bytes() > 0);
        arena.trim(0);
        assert_eq!(arena.used_bytes(), 0, "the buffer stays, and is nobody's to free");
        assert!(range.contains(&(&raw const *arena.alloc(1_u64)).addr()));
        let moved = arena;
        assert!(range.contains(&(&raw const *moved.alloc(1_u64)).addr()));
    }
}

#[test]
fn a_buffer_of_any_size_and_place_will_do() {
    let mut bytes = [MaybeUninit::uninit(); 200];
    for from in if cfg!(miri) { 5..9 } else { 0..20 } {
        for len in [0, 1, 7, 8, 9, 15, 16, 100, 180] {
            let arena = Arena::with_buffer(&mut bytes[from..from + len]);
            assert_eq!(*arena.alloc(7_u64), 7);
            let in_buffer = arena.used_bytes() == 0;
            drop(arena);
            // The first byte is skipped, so that no chunk borders on the other bytes.
            let gap = 1 + bytes[from + 1..].as_ptr().addr().wrapping_neg() % 8;
            assert_eq!(in_buffer, len >= gap + 8, "{from} {len}");
        }
    }
}

#[test]
fn reserved_bytes_need_no_chunk() {
    let base = Awkward::new(0);
    let mut arena = Arena::options().build_in(&base).unwrap();
    const BYTES: usize = if cfg!(miri) { 8000 } else { 100_000 };
    arena.reserve(BYTES);
    base.most.set(0);
    for i in 0..BYTES / 8 {
        arena.try_alloc(i).unwrap();
    }
    let error = arena.try_reserve(1 << 20).unwrap_err();
    assert_eq!(error.code(), "MEM:ALLOC:EXHAUSTED");
    assert!(!arena.try_reserve(usize::MAX).unwrap_err().is_retryable());
    arena.reset();
    arena.try_reserve(BYTES).unwrap();
}

#[test]
fn alignment_beyond_a_chunks_own_is_honoured_in_children_and_buffers() {
    let mut buffer = InlineBuffer::<300>::new();
    let outer = Arena::with_buffer(buffer.as_uninit());
    let child = outer.child();
    for shift in 0..13 {
        let layout = Layout::from_size_align(3, 1 << shift).unwrap();
        for arena_block in [outer.alloc_layout(layout), child.alloc_layout(layout)] {
            assert_eq!(arena_block.as_ptr().addr() % layout.align(), 0);
        }
    }
}
