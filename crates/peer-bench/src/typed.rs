//! Values with a drop: j of one type, j2 of two types in turn.

use crate::harness::Bench;
use nebula_memory::arena::{DropArena, TypedArena};
use std::{any::Any, hint::black_box};

const ONE: (&str, &str) = ("j", "10 000 values with a drop in a typed arena, then drop all");
const MIXED: (&str, &str) =
    ("j2", "10 000 values with a drop, of two types in turn, then drop all");
const MANY: usize = 10_000;

/// A value with a drop that costs nothing else.
struct Dropped(u64);
impl Drop for Dropped {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

/// Another value of this kind.
struct Pair(u64, u64);
impl Drop for Pair {
    fn drop(&mut self) {
        black_box(self.0 + self.1);
    }
}

/// Ten thousand values in `$arena`, which is made once or each time.
macro_rules! one {
    ($bench:expr, $name:literal, $make:expr, |$arena:ident, $value:ident| $put:expr, $clear:expr) => {
        $bench.add(ONE, MANY, $name, || {
            let mut $arena = $make;
            move || {
                for i in 0..MANY {
                    let $value = Dropped(i as u64);
                    black_box($put);
                }
                $clear;
            }
        });
    };
    ($bench:expr, $name:literal, $make:expr, |$arena:ident, $value:ident| $put:expr) => {
        $bench.add(ONE, MANY, $name, || {
            || {
                let $arena = $make;
                for i in 0..MANY {
                    let $value = Dropped(i as u64);
                    black_box($put);
                }
            }
        });
    };
}

fn of_one_type(bench: &mut Bench) {
    one!(bench, "nebula", TypedArena::new(), |arena, value| arena.alloc(value), arena.reset());
    one!(bench, "nebula (new each time)", TypedArena::new(), |arena, value| arena.alloc(value));
    one!(bench, "typed-arena", typed_arena::Arena::new(), |arena, value| arena.alloc(value));
    one!(
        bench,
        "typed-arena (with_capacity)",
        typed_arena::Arena::with_capacity(MANY),
        |arena, value| arena.alloc(value)
    );
    one!(
        bench,
        "blink-alloc",
        blink_alloc::Blink::new(),
        |arena, value| arena.put(value),
        arena.reset()
    );
    one!(bench, "slab", slab::Slab::new(), |slab, value| slab.insert(value), slab.clear());
    bench.add(ONE, MANY, "floor (Vec, room for all)", || {
        let mut values = Vec::with_capacity(MANY);
        move || {
            for i in 0..MANY {
                black_box(values.push_mut_within(Dropped(i as u64)));
            }
            values.clear();
        }
    });
}

/// Pushes within the vector's capacity.
trait PushWithin<T> {
    fn push_mut_within(&mut self, value: T) -> &mut T;
}
impl<T> PushWithin<T> for Vec<T> {
    #[inline(always)]
    fn push_mut_within(&mut self, value: T) -> &mut T {
        let len = self.len();
        assert!(len < self.capacity(), "there is room");
        let slot = self.spare_capacity_mut()[0].write(value) as *mut T;
        // SAFETY: the slot was just written.
        unsafe { self.set_len(len + 1) };
        // SAFETY: the slot is an element now.
        unsafe { &mut *slot }
    }
}

fn of_two_types(bench: &mut Bench) {
    bench.add(MIXED, MANY, "nebula", || {
        let mut arena = DropArena::new();
        move || {
            for i in 0..(MANY / 2) as u64 {
                black_box(arena.alloc(Dropped(i)));
                black_box(arena.alloc(Pair(i, i)));
            }
            arena.reset();
        }
    });
    bench.add(MIXED, MANY, "blink-alloc", || {
        let mut blink = blink_alloc::Blink::new();
        move || {
            for i in 0..(MANY / 2) as u64 {
                black_box(blink.put(Dropped(i)));
                black_box(blink.put(Pair(i, i)));
            }
            blink.reset();
        }
    });
    bench.add(MIXED, MANY, "std (Box<dyn Any>)", || {
        let mut values: Vec<Box<dyn Any>> = Vec::with_capacity(MANY);
        move || {
            for i in 0..(MANY / 2) as u64 {
                values.push(black_box(Box::new(Dropped(i))));
                values.push(black_box(Box::new(Pair(i, i))));
            }
            values.clear();
        }
    });
}

pub fn register(bench: &mut Bench) {
    of_one_type(bench);
    of_two_types(bench);
}
