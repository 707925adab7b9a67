//! Vectors that grow in the arena: d, d1, d2, d3, d4.

use crate::{
    harness::Bench,
    heaps::{Heap, Malloc},
    subjects::{BumpScope, Subject},
};
use nebula_memory::{allocator::bump::Down, arena::Arena};
use std::{alloc::System, hint::black_box, mem::MaybeUninit};

const ONE: (&str, &str) = ("d", "push 100 000 u64 onto a vector in the arena");
const TWO: (&str, &str) = ("d2", "push 50 000 u64 onto each of two vectors in turn");
const SHORT: (&str, &str) = ("d1", "push 100 u64 onto a vector in the arena");
const SHORT_TWO: (&str, &str) = ("d3", "push 50 u64 onto each of two vectors in turn");
const TEXT: (&str, &str) = ("d4", "push 10 000 words of 5 bytes onto a text in the arena");
const MANY: usize = 100_000;
const FEW: usize = 100;
const WORDS: usize = 10_000;

macro_rules! one {
    ($bench:expr, $name:expr, $make:expr, $clear:expr, [$($mut:ident)?] |$arena:ident| $vec:expr) => {
        one!(ONE, MANY, $bench, $name, $make, $clear, [$($mut)?] |$arena| $vec);
        one!(SHORT, FEW, $bench, $name, $make, $clear, [$($mut)?] |$arena| $vec);
    };
    ($case:ident, $many:ident, $bench:expr, $name:expr, $make:expr, $clear:expr, [$($mut:ident)?] |$arena:ident| $vec:expr) => {
        $bench.add($case, $many, $name, || {
            let mut arena = $make;
            move || {
                {
                    let $arena = &$($mut)? arena;
                    let mut vec = $vec;
                    for i in 0..$many as u64 {
                        vec.push(i);
                    }
                    black_box(&vec);
                }
                let clear: fn(&mut _) = $clear;
                clear(&mut arena);
            }
        });
    };
}

macro_rules! both {
    ($bench:expr, $name:expr, $make:expr, $clear:expr, |$arena:ident| $vec:expr) => {
        both!($bench, $name, $make, $clear, extend_from_slice, |$arena| $vec);
    };
    ($bench:expr, $name:expr, $make:expr, $clear:expr, $append:ident, |$arena:ident| $vec:expr) => {
        one!($bench, $name, $make, $clear, [] | $arena | $vec);
        both!(TWO, MANY, $bench, $name, $make, $clear, |$arena| $vec);
        both!(SHORT_TWO, FEW, $bench, $name, $make, $clear, |$arena| $vec);
        $bench.add(TEXT, WORDS, $name, || {
            let mut arena = $make;
            move || {
                {
                    let $arena = &arena;
                    let mut text = $vec;
                    for _ in 0..WORDS {
                        text.$append(black_box(b"word "));
                    }
                    black_box(&text);
                }
                let clear: fn(&mut _) = $clear;
                clear(&mut arena);
            }
        });
    };
    ($case:ident, $many:ident, $bench:expr, $name:expr, $make:expr, $clear:expr, |$arena:ident| $vec:expr) => {
        $bench.add($case, $many, $name, || {
            let mut arena = $make;
            move || {
                {
                    let $arena = &arena;
                    let mut first = $vec;
                    let mut second = $vec;
                    for i in 0..($many / 2) as u64 {
                        first.push(i);
                        second.push(i);
                    }
                    black_box((&first, &second));
                }
                let clear: fn(&mut _) = $clear;
                clear(&mut arena);
            }
        });
    };
}

fn nothing<T>(_: &mut T) {}

fn heap<A: Malloc>(bench: &mut Bench) {
    use allocator_api2::vec::Vec;
    both!(bench, A::NAME, Heap(A::IT), nothing, |heap| Vec::new_in(heap));
}

/// A slice in its own arena that is as long as it may become. It never grows, and a push is one comparison.
fn floor(bench: &mut Bench) {
    bench.add(ONE, MANY, "floor (room for all)", || {
        let mut region: Box<[MaybeUninit<u64>]> = Box::new_uninit_slice(MANY);
        move || {
            let mut len = 0;
            for i in 0..MANY as u64 {
                region[len].write(i);
                len += 1;
            }
            black_box(&region[..len]);
        }
    });
}

pub fn register(bench: &mut Bench) {
    use allocator_api2::vec::Vec as Vec04;
    use allocator_api2_02::vec::Vec as Vec02;

    both!(bench, "nebula", Arena::new(), Arena::reset, |arena| Vec04::new_in(arena));
    both!(
        bench,
        "nebula (down)",
        Arena::options().direction::<Down>().build().expect("an arena"),
        Arena::reset,
        |arena| Vec04::new_in(arena)
    );

    both!(
        bench,
        "bump-scope (up, Vec)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset,
        |arena| Vec04::new_in(arena)
    );
    both!(
        bench,
        "bump-scope (up, BumpVec)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset,
        extend_from_slice_copy,
        |arena| bump_scope::BumpVec::new_in(arena)
    );
    one!(
        bench,
        "bump-scope (up, MutBumpVec)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset,
        [mut] |arena| bump_scope::MutBumpVec::new_in(arena)
    );
    both!(bench, "bumpalo (Vec)", bumpalo::Bump::new(), bumpalo::Bump::reset, |arena| {
        Vec02::new_in(arena)
    });
    both!(
        bench,
        "bumpalo (its own Vec)",
        bumpalo::Bump::new(),
        bumpalo::Bump::reset,
        extend_from_slice_copy,
        |arena| bumpalo::collections::Vec::new_in(arena)
    );
    both!(
        bench,
        "blink-alloc",
        blink_alloc::BlinkAlloc::new(),
        blink_alloc::BlinkAlloc::reset,
        |arena| Vec04::new_in(arena)
    );
    both!(bench, "stumpalo", stumpalo::Arena::new(), stumpalo::Arena::clear, |arena| {
        Vec04::new_in(arena)
    });
    both!(
        bench,
        "oxc_allocator",
        oxc_allocator::Allocator::new(),
        oxc_allocator::Allocator::reset,
        |arena| oxc_allocator::Vec::new_in(&arena)
    );
    heap::<System>(bench);
    heap::<mimalloc::MiMalloc>(bench);
    heap::<tikv_jemallocator::Jemalloc>(bench);
    both!(bench, "std", (), nothing, |_heap| Vec::new());
    floor(bench);
}
