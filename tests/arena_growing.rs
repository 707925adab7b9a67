//! Slices and texts of unknown length that grow in an arena.
#![cfg(feature = "std")]

use nebula_memory::{
    allocator::bump::{Direction, Down, Up},
    arena::{Arena, DropArena, SharedArena, TypedArena},
    core::MemoryUsage,
};
use std::{
    cell::Cell,
    fmt::Write,
    iter,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Counts its live instances.
struct Alive<'a>(&'a Cell<usize>, usize);

impl<'a> Alive<'a> {
    fn new(alive: &'a Cell<usize>, number: usize) -> Self {
        alive.set(alive.get() + 1);
        Self(alive, number)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Hides an iterator's length.
fn unknown<I: Iterator>(mut values: I) -> impl Iterator<Item = I::Item> {
    iter::from_fn(move || values.next())
}

#[test]
fn a_slice_of_unknown_length_is_all_that_the_iterator_yields() {
    fn check<D: Direction, const MIN: usize>() {
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        let arena = options.initial_chunk_bytes(64).build().unwrap();
        for len in [0, 1, 15, 16, 17, 200] {
            let beside = arena.alloc([0xA5_u8; 5]);
            let alone = arena.alloc_iter(unknown(0..len));
            let filled = arena.filled_bytes();
            let nested = arena.alloc_iter(unknown(0..len).map(|i| arena.alloc(i)));
            assert!(alone.iter().copied().eq(0..len));
            assert!(nested.iter().map(|value| **value).eq(0..len));
            assert_eq!(*beside, [0xA5; 5]);
            assert!(len > 0 || arena.filled_bytes() == filled);
        }
        assert_eq!(arena.alloc_iter(iter::repeat_n((), 1000)).len(), 1000);
        let mut arena = options_of::<D, MIN>();
        let values = arena.alloc_iter(unknown(0..100_u64));
        assert_eq!(values.len(), 100);
        assert_eq!(arena.filled_bytes(), 800, "what is not needed goes back");
        arena.reset();
    }
    fn options_of<D: Direction, const MIN: usize>()
    -> Arena<impl nebula_memory::allocator::Allocator, D, MIN> {
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        options.initial_chunk_bytes(1 << 12).build().unwrap()
    }
    check::<Up, 1>();
    check::<Up, 8>();
    check::<Down, 1>();
    check::<Down, 16>();
    let shared = SharedArena::new();
    assert!(shared.alloc_iter(unknown(0..50)).iter().copied().eq(0..50));
    assert!(shared.handle().alloc_iter(unknown(0..50)).iter().copied().eq(0..50));
}

#[test]
fn elements_of_an_unfinished_slice_are_dropped() {
    let alive = Cell::new(0);
    let some = |panics| {
        let alive = &alive;
        (0..60).map(move |i| {
            if panics && i == 40 {
                resume_unwind(Box::new("planned"));
            }
            Alive::new(alive, i)
        })
    };
    let arena = Arena::options().max_bytes(600).build().unwrap();
    let typed = Arena::options().max_bytes(600).build_typed::<Alive<'_>>().unwrap();
    let mixed = Arena::options().max_bytes(600).build_dropping().unwrap();
    for hidden in [false, true] {
        assert!(if hidden {
            arena.try_alloc_iter(unknown(some(false))).is_err()
                && typed.try_alloc_extend(unknown(some(false))).is_err()
                && mixed.try_alloc_extend(unknown(some(false))).is_err()
        } else {
            arena.try_alloc_iter(some(false)).is_err()
                && typed.try_alloc_extend(some(false)).is_err()
                && mixed.try_alloc_extend(some(false)).is_err()
        });
        assert_eq!((alive.get(), typed.len(), arena.filled_bytes()), (0, 0, 0));
    }
    let (arena, typed, mixed) = (Arena::new(), TypedArena::new(), DropArena::new());
    let extend: [&dyn Fn() -> usize; 3] =
        [&|| arena.alloc_iter(some(true)).len(), &|| typed.alloc_extend(some(true)).len(), &|| {
            mixed.alloc_extend(some(true)).len()
        }];
    for extend in extend {
        assert!(catch_unwind(AssertUnwindSafe(extend)).is_err());
        assert_eq!((alive.get(), typed.len(), arena.filled_bytes()), (0, 0, 0));
    }
    let values = typed.alloc_extend(some(false));
    assert!(values.iter().map(|value| value.1).eq(0..60));
    assert_eq!(alive.get(), 60);
    drop(typed);
    assert_eq!(alive.get(), 0);
}

#[test]
fn a_text_grows_in_place_and_gives_back_unused_bytes() {
    let arena = Arena::options().direction::<Up>().min_align::<1>();
    let arena = arena.initial_chunk_bytes(4096).build().unwrap();
    let mut text = arena.string();
    assert_eq!((&*text, arena.used_bytes()), ("", 0));
    text.push_str("é");
    let start = text.as_ptr();
    while text.len() < 800 {
        text.push_str("é");
    }
    assert_eq!(text.as_ptr(), start);
    let text = text.into_str();
    assert_eq!((text.as_ptr(), text.len(), arena.filled_bytes()), (start, 800, 800));
    assert!(text.chars().all(|c| c == 'é'));

    let mut gone = arena.string();
    gone.push_str("gone");
    drop(gone);
    assert_eq!(arena.string().into_str(), "");
    assert_eq!(arena.filled_bytes(), 800);
}

#[test]
fn a_text_without_memory_is_an_error_and_as_it_was() {
    let arena = Arena::options().max_bytes(256).build().unwrap();
    let mut text = arena.string();
    while write!(text, "{}", text.len() % 10).is_ok() {}
    let before = text.to_string();
    assert!(text.try_push_str("more").is_err() && text.try_reserve(usize::MAX).is_err());
    assert_eq!(&*text, before);
    assert!(before.len() > 100);
    text.make_ascii_uppercase();
    text.clear();
    text.try_push_str("anew").unwrap();
    assert_eq!(text.into_str(), "anew");
}

#[test]
fn texts_and_values_beside_each_other_keep_apart() {
    fn check<D: Direction>() {
        let mut arena = Arena::options().direction::<D>().min_align::<1>().build().unwrap();
        let kept: Vec<(&str, &u64)> = {
            let (mut one, mut other) = (arena.string(), arena.string());
            let mut numbers = Vec::new();
            for i in 0..50_u64 {
                write!(one, "{i}").unwrap();
                numbers.push(&*arena.alloc(i));
                write!(other, "{}", i + 1).unwrap();
            }
            vec![(other.into_str(), numbers[49]), (one.into_str(), numbers[0])]
        };
        let expected: String = (0..50).map(|i| i.to_string()).collect();
        assert_eq!(kept[1], (&expected[..], &0));
        assert_eq!(kept[0].0, format!("{}50", &expected[1..]));
        arena.scope(|scope| {
            let mut text = scope.string();
            text.push_str("in a scope");
            let text: &mut str = text.into_str();
            scope.alloc(1);
            assert_eq!(text, "in a scope");
        });
    }
    check::<Up>();
    check::<Down>();
}

#[test]
fn bytes_of_a_value_that_was_not_made_go_back() {
    let arena = Arena::new();
    assert_eq!(arena.alloc_try_with(|| Err::<[u64; 9], _>(7)), Err(7));
    assert_eq!(arena.filled_bytes(), 0);
    let made = arena.alloc_try_with(|| Ok::<_, ()>([8_u64; 9])).unwrap();
    let failed = arena.try_alloc_try_with(|| {
        arena.alloc(9_u64);
        Err::<[u64; 9], _>("no")
    });
    assert_eq!((*made, failed), ([8; 9], Ok(Err("no"))));
    assert_eq!(arena.filled_bytes(), 72 + 72 + 8, "what lies behind another stays");
    assert_eq!(arena.alloc_try_with(|| Err::<(), _>(1)), Err(1));
}

#[test]
fn values_that_an_iterator_puts_into_its_own_typed_arena_come_after_or_before_but_once() {
    let alive = Cell::new(0);
    let prefixes: &[usize] = if cfg!(miri) { &[3] } else { &[0, 1, 3, 100] };
    for prefix in prefixes.iter().copied() {
        for len in if cfg!(miri) { [0, 1, 2, 3, 5] } else { [0, 1, 2, 5, 40] } {
            for meanwhile in [0, 1, 7, 60] {
                let arena =
                    Arena::options().initial_chunk_bytes(256).build_typed::<Alive<'_>>().unwrap();
                (0..prefix).for_each(|i| assert_eq!(arena.alloc(Alive::new(&alive, i)).1, i));
                let nested = |i: usize| {
                    let inner = (0..meanwhile).map(|k| {
                        if k == 5 {
                            arena.alloc(Alive::new(&alive, 9_000));
                        }
                        Alive::new(&alive, 10_000 + k)
                    });
                    if i == 1 {
                        let inner = arena.alloc_extend(unknown(inner));
                        assert!(inner.iter().map(|v| v.1).eq(10_000..10_000 + meanwhile));
                        let known = arena.len();
                        assert!(known >= prefix + meanwhile);
                    }
                    Alive::new(&alive, 1_000 + i)
                };
                let outer = arena.alloc_extend(unknown((0..len).map(nested)));
                assert!(outer.iter().map(|value| value.1).eq(1_000..1_000 + len));
                arena.alloc(Alive::new(&alive, 1));
                let extra = if len > 1 { meanwhile + usize::from(meanwhile > 5) } else { 0 };
                assert_eq!(arena.len(), prefix + len + extra + 1);
                assert_eq!(alive.get(), arena.len());
                let total = arena.len();
                let mut numbers: Vec<_> = arena.into_vec().iter().map(|value| value.1).collect();
                assert!(numbers[..prefix].iter().copied().eq(0..prefix));
                assert_eq!((numbers.len(), alive.get()), (total, 0));
                numbers.sort_unstable();
                assert_eq!(numbers.iter().filter(|n| (1_000..9_000).contains(*n)).count(), len);
            }
        }
    }
}

#[test]
fn a_few_values_go_to_places_that_are_there() {
    let arena = TypedArena::new();
    arena.alloc(0_u64);
    let held = arena.used_bytes();
    for i in 0..30 {
        assert_eq!(arena.alloc_extend(unknown([i, i].into_iter())), [i, i]);
        assert_eq!(arena.alloc_extend([i]), [i]);
    }
    assert_eq!((arena.len(), arena.used_bytes()), (91, held));
    assert_eq!(*arena.alloc_with(|| *arena.alloc_with(|| 7) + 1), 8);
    assert_eq!(arena.into_vec()[91..], [7, 8]);
    assert_eq!(TypedArena::<()>::new().into_vec(), []);
    let units = TypedArena::with_capacity(10);
    units.alloc_extend([(); 3]);
    assert_eq!(units.into_vec(), [(); 3]);
}

#[test]
fn values_of_an_iterator_that_panics_are_dropped() {
    let alive = Cell::new(0);
    let arena = TypedArena::new();
    arena.alloc(Alive::new(&alive, 0));
    for meanwhile in [false, true] {
        let values = unknown((0..9).map(|i| {
            if i == 3 && meanwhile {
                arena.alloc(Alive::new(&alive, 1));
            }
            if i == 7 {
                resume_unwind(Box::new("planned"));
            }
            Alive::new(&alive, i)
        }));
        let extend = AssertUnwindSafe(|| arena.alloc_extend(values).len());
        assert!(catch_unwind(extend).is_err());
        assert_eq!(arena.len(), 1 + usize::from(meanwhile));
        assert_eq!(alive.get(), arena.len());
    }
    assert!(arena.into_vec().iter().map(|value| value.1).eq([0, 1]));
    assert_eq!(alive.get(), 0);
}
