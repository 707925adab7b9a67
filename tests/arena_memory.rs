//! The chunks that arenas take, keep and release. No chunk is leaked, wasted or unneeded.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        Allocator,
        bump::{Direction, Down, InlineBuffer, Up},
    },
    arena::{Arena, DropArena, SharedArena},
    core::MemoryUsage,
};
use std::{
    alloc::Layout,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

#[test]
fn the_chunks_of_a_leaked_child_go_with_the_arena() {
    let base = Awkward::new(0);
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let mut arena = Arena::options().budget(&budget).build_in(&base).unwrap();
    let agree = |arena: &Arena<&Awkward>| {
        let live: usize = base.live().iter().map(Layout::size).sum();
        assert_eq!((live, arena.used_bytes()), (budget.usage().used, budget.usage().used));
    };
    for leaked in 0..3 {
        // The children end in any order: the last, the first and the middle one.
        let mut children = Vec::from([arena.child(), arena.child(), arena.child()]);
        for child in &children {
            let inner = child.child();
            inner.alloc(7_u64);
            child.alloc([1_u8; 2000]);
            mem::forget(inner);
        }
        mem::forget(children.remove(leaked));
        drop(children);
        agree(&arena);
        arena.alloc([0_u8; 500]);
        if leaked == 1 {
            arena.trim(0);
            agree(&arena);
            assert_eq!(base.live(), [], "what was leaked is trimmed");
        }
        arena.reset();
    }
    mem::forget(arena.child().child().child());
    arena.trim_to_high_water();
    agree(&arena);
    drop(arena);
    assert_eq!((base.live(), budget.usage().used), (vec![], 0));
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Nothing64;

#[repr(align(8192))]
#[derive(Clone, Copy)]
struct Nothing8192;

#[test]
fn a_value_of_no_bytes_takes_no_chunk_whatever_its_alignment() {
    fn aligned<T>(value: &T) {
        assert!((&raw const *value).addr().is_multiple_of(align_of::<T>()));
    }
    fn check<A: Allocator, D: Direction, const MIN: usize>(arena: &mut Arena<A, D, MIN>) {
        let held = arena.used_bytes();
        aligned(arena.alloc(Nothing64));
        aligned(arena.alloc(Nothing8192));
        assert!(arena.alloc_slice_copy(&[Nothing8192; 3]).len() == 3);
        let mut cursor = arena.cursor();
        aligned(cursor.alloc(Nothing64));
        aligned(cursor.alloc(Nothing8192));
        drop(cursor);
        arena.scope(|scope| {
            aligned(scope.alloc(Nothing64));
            aligned(scope.alloc(Nothing8192));
            let mut cursor = scope.cursor();
            aligned(cursor.alloc(Nothing8192));
            drop(cursor);
            scope.scope(|inner| aligned(inner.alloc_with(|| Nothing8192)));
        });
        assert_eq!(arena.used_bytes(), held);
    }
    fn check_all<D: Direction, const MIN: usize>() {
        let base = Awkward::new(0);
        let options = Arena::options().direction::<D>().min_align::<MIN>().initial_chunk_bytes(64);
        let mut arena = options.build_in(&base).unwrap();
        check(&mut arena);
        arena.alloc([1_u8; 17]);
        check(&mut arena);
        let mut buffer = InlineBuffer::<40>::new();
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        check(&mut options.build_with_buffer(buffer.as_uninit()).unwrap());
    }
    check_all::<Up, 1>();
    check_all::<Up, 16>();
    check_all::<Down, 1>();
    check_all::<Down, 8>();
    let shared = SharedArena::new();
    aligned(shared.alloc(Nothing8192));
    aligned(shared.handle().alloc(Nothing8192));
    assert_eq!(shared.used_bytes(), 0);
}

#[test]
fn a_scope_that_panics_first_of_all_wastes_no_chunk() {
    let chunks_after = |fail: fn(&mut nebula_memory::arena::Scope<'_>)| {
        let mut arena = Arena::new();
        let mut scope = arena.as_scope();
        fail(&mut scope);
        scope.alloc([2_u8; 800]);
        drop(scope);
        arena.used_bytes()
    };
    let by_panic = chunks_after(|scope| {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            scope.scope(|scope| {
                scope.alloc([1_u8; 800]);
                resume_unwind(Box::new("planned"))
            })
        }));
        assert!(outcome.is_err());
    });
    assert_eq!(by_panic, 1024);
}

/// Runs `work`, which panics as planned.
fn survives(work: impl FnOnce()) {
    let payload = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"planned"));
}

#[test]
fn a_value_that_panics_while_it_is_made_gives_its_bytes_back() {
    /// Yields half of the items that its length promises.
    struct Half(usize);
    impl Iterator for Half {
        type Item = [u64; 5];

        fn next(&mut self) -> Option<[u64; 5]> {
            self.0 += 1;
            if self.0 > 500 { resume_unwind(Box::new("planned")) } else { Some([1; 5]) }
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (1000, Some(1000))
        }
    }
    impl ExactSizeIterator for Half {}

    fn planned<T>() -> T {
        resume_unwind(Box::new("planned"))
    }

    #[derive(Default)]
    struct Owned(Vec<u8>);

    impl Clone for Owned {
        fn clone(&self) -> Self {
            if self.0.is_empty() { planned() } else { Self(self.0.clone()) }
        }
    }

    macro_rules! attempts {
        ($arena:ident) => {
            survives(|| _ = $arena.alloc_with(planned::<[u64; 500]>));
            survives(|| _ = $arena.try_alloc_with(planned::<[u64; 500]>));
            survives(|| _ = $arena.alloc_try_with(planned::<Result<[u64; 500], ()>>));
            survives(|| {
                $arena.alloc_slice_fill_with(100, |i| if i < 50 { [i; 9] } else { planned() });
            });
            survives(|| _ = $arena.alloc_slice_fill_iter(Half(0)));
            survives(|| _ = $arena.alloc_iter(Half(0)));
            survives(|| _ = $arena.alloc_slice_fill(100, Owned::default()));
            let owned = [Owned(vec![7]), Owned::default()];
            survives(|| _ = $arena.alloc_slice_clone(&owned));
            survives(|| _ = $arena.alloc_fmt(format_args!("{:?}", Failing)));
        };
    }
    struct Failing;
    impl std::fmt::Debug for Failing {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&"long".repeat(100))?;
            planned()
        }
    }

    const ROUNDS: usize = if cfg!(miri) { 2 } else { 200 };
    fn check<D: Direction>() {
        let mut arena = Arena::options().direction::<D>().build().unwrap();
        arena.reserve(1 << 17); // so that nothing is given up at the end of a chunk
        let seven = arena.alloc(7_u64) as *const u64;
        attempts!(arena);
        let before = (arena.filled_bytes(), arena.used_bytes());
        for _ in 0..ROUNDS {
            attempts!(arena);
        }
        assert_eq!((arena.filled_bytes(), arena.used_bytes()), before);
        assert_eq!(arena.filled_bytes(), 8);
        // SAFETY: the arena was not reset.
        assert_eq!(unsafe { *seven }, 7);
        arena.scope(|scope| {
            let before = scope.chunk_capacity();
            attempts!(scope);
            assert_eq!(scope.chunk_capacity(), before);
        });
        assert_eq!((arena.filled_bytes(), arena.used_bytes()), before);
    }
    check::<Down>();
    check::<Up>();

    // A block that is large for a thread's free bytes does not lie next to them.
    let shared = SharedArena::new();
    let handle = shared.handle();
    handle.alloc(7_u64);
    shared.alloc(7_u64);
    let before = (shared.used_bytes(), handle.chunk_capacity());
    for _ in 0..20 * ROUNDS {
        survives(|| _ = shared.alloc_with(planned::<[u64; 5]>));
        survives(|| _ = handle.alloc_with(planned::<[u64; 5]>));
        survives(|| _ = shared.alloc_slice_fill(10, Owned::default()));
        survives(|| _ = handle.alloc_slice_fill_with(5, |i| if i < 3 { i } else { planned() }));
    }
    let after = (shared.used_bytes(), handle.chunk_capacity());
    assert_eq!(after, before);

    let dropping = DropArena::new();
    dropping.reserve(1 << 17);
    dropping.alloc(String::from("kept"));
    let filled = dropping.filled_bytes();
    for _ in 0..ROUNDS {
        survives(|| _ = dropping.alloc_with(planned::<(String, [u64; 500])>));
        survives(|| _ = dropping.alloc_with(planned::<[u64; 500]>));
        survives(|| _ = dropping.alloc_extend(Half(0).map(|half| (half, String::new()))));
    }
    assert_eq!(dropping.filled_bytes(), filled);
    // If a newer value exists, a block is not freed, and neither is the newer value.
    survives(|| {
        dropping.alloc_with(|| -> String {
            dropping.alloc(String::from("newer"));
            planned()
        });
    });
    assert!(dropping.filled_bytes() > filled);
}

#[test]
fn large_values_that_are_never_made_do_not_grow_a_shared_arena() {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line(#[expect(dead_code, reason = "only its size matters")] [u8; 64]);

    fn failing<T>(at: usize, len: usize, value: T) -> T {
        if at == len - 1 {
            resume_unwind(Box::new("planned"));
        }
        value
    }
    fn survives(attempt: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(attempt)).is_err());
    }
    macro_rules! attempts {
        ($arena:expr, $len:expr) => {
            let (arena, len) = ($arena, $len);
            survives(|| _ = arena.alloc_slice_fill_with(len, |at| failing(at, len, 1_u8)));
            survives(|| {
                arena.alloc_slice_fill_with(len / 64, |at| failing(at, len / 64, Line([1; 64])));
            });
            survives(|| {
                // An iterator of unknown length.
                let values = (0..).map(|at| failing(at, len, 1_u8)).take_while(|_| true);
                arena.alloc_iter(values);
            });
            let made = arena.alloc_try_with(|| Err::<[u8; 12_001], _>(()));
            assert!(made.is_err());
        };
    }
    fn check<D: Direction, const MIN_ALIGN: usize>(len: usize) {
        let rounds = if cfg!(miri) { 2 } else { 1 + 2_000_000 / len };
        let options = Arena::options().direction::<D>().min_align::<MIN_ALIGN>();
        let arena = options.build_shared().unwrap();
        let handle = arena.handle();
        let mut kept = Vec::new();
        for round in 0..rounds {
            kept.push((arena.alloc(round), handle.alloc(round)));
            attempts!(&arena, len);
            attempts!(&handle, len);
        }
        assert!(kept.into_iter().enumerate().all(|(at, (a, b))| (*a, *b) == (at, at)));
        // Few rounds are for Miri alone.
        let (used, requested) = (arena.used_bytes(), rounds * 2 * (2 * len + 12_001));
        assert!(used < requested / 10 || cfg!(miri), "{used} bytes of {requested}, for {len}");
    }
    let lens: &[usize] = if cfg!(miri) { &[1_001] } else { &[1_001, 12_001, 12_008, 100_000] };
    for &len in lens {
        check::<Up, 8>(len);
        check::<Up, 1>(len);
        check::<Down, 8>(len);
        check::<Down, 1>(len);
    }
    check::<Up, 16>(lens[lens.len() - 1]);
}

/// The block of a value that was not made becomes a free span, into which its header is written, while the closure that
/// would make it has just returned.
#[test]
fn a_block_whose_value_failed_becomes_a_span() {
    let arena = SharedArena::new();
    arena.reserve(8192);
    let failed = arena.alloc_try_with(|| {
        arena.alloc(1_u8);
        Err::<[u64; 16], _>("planned")
    });
    assert_eq!(failed, Err("planned"));
    assert_eq!(arena.alloc([7_u64; 16]), &[7; 16]);
}

/// Returns the panic message of `misuse`, which debug assertions detect.
#[cfg(debug_assertions)]
fn caught(misuse: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(misuse)).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[cfg(debug_assertions)]
#[test]
fn misuse_as_an_allocator_is_caught_and_explained() {
    fn check<D: Direction>() {
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let block = |arena: &Arena<_, D>| arena.allocate(layout(40)).unwrap().cast::<u8>();
        let options = || Arena::options().direction::<D>().initial_chunk_bytes(256);
        let (mut arena, other) = (options().build().unwrap(), options().build().unwrap());
        let own = block(&arena);
        // SAFETY: none; each is misuse, which is detected before anything is done.
        let said = caught(|| unsafe { (&other).deallocate(own, layout(40)) });
        assert!(said.contains("is not a block of this arena"), "{said}");
        let said = caught(|| {
            // SAFETY: as above.
            let _ = unsafe { (&other).grow(own, layout(40), layout(80)) };
        });
        assert!(said.contains("is not a block of this arena"), "{said}");
        let said = caught(|| {
            // SAFETY: as above.
            let _ = unsafe { (&arena).shrink(own, layout(4000), layout(8)) };
        });
        assert!(said.contains("does not fit the block"), "{said}");
        arena.scope(|scope| {
            let scope = &*scope;
            // SAFETY: as above.
            let said = caught(|| unsafe { scope.deallocate(own, layout(4000)) });
            assert!(said.contains("does not fit the block"), "{said}");
        });
        let gone = arena.scope(|scope| (&*scope).allocate(layout(4000)).unwrap().cast::<u8>());
        // SAFETY: as above.
        let said = caught(|| unsafe { (&arena).deallocate(gone, layout(4000)) });
        assert!(said.contains("is no longer a block of this arena"), "{said}");
        // SAFETY: allocated above, and not used again.
        unsafe { (&arena).deallocate(own, layout(40)) };
    }
    check::<Up>();
    check::<Down>();
}
