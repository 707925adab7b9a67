//! Scopes and formatting: g, g0, g1, n.

use crate::{
    harness::Bench,
    subjects::{BumpScope, Floor, Subject},
};
use nebula_memory::{allocator::bump::Down, arena::Arena};
use std::{fmt::Write as _, hint::black_box, io::Write as _};

const SCOPE: (&str, &str) = ("g", "a scope with 16 u64 in it");
const ONE: (&str, &str) = ("g1", "a scope with one u64 in it");
const EMPTY: (&str, &str) = ("g0", "a scope that allocates nothing");
/// Not a literal: the compiler would make a literal part of the format.
const WORD: &str = "word";
const FORMAT: (&str, &str) = ("n", "format a number and a word into the arena");

fn scopes(bench: &mut Bench) {
    macro_rules! scope {
        ($name:literal, $make:expr, |$arena:ident| $body:expr) => {
            bench.add(SCOPE, 64, $name, || {
                let mut arena = $make;
                move || {
                    for _ in 0..64 {
                        let $arena = &mut arena;
                        $body;
                    }
                }
            });
        };
    }
    macro_rules! allocations {
        ($arena:expr, $value:ident => $allocated:expr) => {
            for $value in 0..16_u64 {
                black_box($allocated);
            }
        };
    }
    scope!("nebula", Arena::new(), |arena| arena.scope(|scope| {
        allocations!(scope, i => scope.alloc(i));
    }));
    scope!(
        "nebula (down)",
        Arena::options().direction::<Down>().build().expect("an arena"),
        |arena| arena.scope(|scope| {
            allocations!(scope, i => scope.alloc(i));
        })
    );
    scope!("bump-scope (down)", <BumpScope<8, false> as Subject>::make().0, |arena| arena.scoped(
        |scope| {
            allocations!(scope, i => bump_scope::BumpBox::leak(scope.alloc(i)));
        }
    ));
    scope!("bump-scope (up)", <BumpScope<1, true> as Subject>::make().0, |arena| {
        arena.scoped(|scope| allocations!(scope, i => bump_scope::BumpBox::leak(scope.alloc(i))))
    });
    scope!("stumpalo", stumpalo::Arena::with_default_chunk(), |arena| arena.with_scope(|scope| {
        allocations!(scope, i => scope.alloc(i));
    }));
    scope!("bumpalo (reset)", bumpalo::Bump::new(), |arena| {
        allocations!(arena, i => arena.alloc(i));
        arena.reset();
    });
    scope!("blink-alloc (reset)", blink_alloc::Blink::new(), |arena| {
        allocations!(arena, i => arena.put_no_drop(i));
        arena.reset();
    });
    scope!("oxc_allocator (reset)", oxc_allocator::Allocator::new(), |arena| {
        allocations!(arena, i => arena.alloc(i));
        arena.reset();
    });
    scope!("floor", Floor::make(), |arena| {
        allocations!(arena, i => arena.value(i));
        arena.clear();
    });
}

/// A scope that the compiler cannot look into: it sees a pointer to the scope.
fn empty_scopes(bench: &mut Bench) {
    macro_rules! empty {
        ($name:literal, $make:expr, |$arena:ident, $i:ident| $body:expr) => {
            bench.add(EMPTY, 64, $name, || {
                let mut arena = $make;
                move || {
                    for $i in 0..64_u64 {
                        let $arena = &mut arena;
                        $body;
                    }
                }
            });
        };
    }
    empty!("nebula", Arena::new(), |arena, i| arena.scope(|scope| {
        black_box(&scope);
        black_box(i)
    }));
    empty!(
        "nebula (down)",
        Arena::options().direction::<Down>().build().expect("an arena"),
        |arena, i| arena.scope(|scope| {
            black_box(&scope);
            black_box(i)
        })
    );
    empty!("nebula (guard)", Arena::new(), |arena, i| {
        let guard = arena.guard();
        black_box(&*guard);
        black_box(i)
    });
    empty!("bump-scope (down)", <BumpScope<8, false> as Subject>::make().0, |arena, i| arena
        .scoped(|scope| {
            black_box(&scope);
            black_box(i)
        }));
    empty!("bump-scope (up)", <BumpScope<1, true> as Subject>::make().0, |arena, i| arena.scoped(
        |scope| {
            black_box(&scope);
            black_box(i)
        }
    ));
    empty!("stumpalo", stumpalo::Arena::with_default_chunk(), |arena, i| arena.with_scope(
        |scope| {
            black_box(&scope);
            black_box(i)
        }
    ));
}

fn scopes_of_one(bench: &mut Bench) {
    macro_rules! one {
        ($name:literal, $make:expr, |$arena:ident, $i:ident| $body:expr) => {
            bench.add(ONE, 64, $name, || {
                let mut arena = $make;
                move || {
                    for $i in 0..64_u64 {
                        let $arena = &mut arena;
                        $body;
                    }
                }
            });
        };
    }
    one!("nebula", Arena::new(), |arena, i| arena.scope(|scope| {
        black_box(scope.alloc(i));
    }));
    one!("nebula (guard)", Arena::new(), |arena, i| {
        let guard = arena.guard();
        black_box(guard.alloc(i));
    });
    one!("bump-scope (down)", <BumpScope<8, false> as Subject>::make().0, |arena, i| arena.scoped(
        |scope| {
            black_box(bump_scope::BumpBox::leak(scope.alloc(i)));
        }
    ));
    one!("bump-scope (up)", <BumpScope<1, true> as Subject>::make().0, |arena, i| arena.scoped(
        |scope| {
            black_box(bump_scope::BumpBox::leak(scope.alloc(i)));
        }
    ));
    one!("stumpalo", stumpalo::Arena::with_default_chunk(), |arena, i| arena.with_scope(|scope| {
        black_box(scope.alloc(i));
    }));
}

fn formatting(bench: &mut Bench) {
    const MANY: usize = 256;
    macro_rules! formats {
        ($name:literal, $make:expr, $clear:expr, |$arena:ident, $i:ident| $body:expr) => {
            bench.add(FORMAT, MANY, $name, || {
                let mut $arena = $make;
                move || {
                    for $i in 0..MANY {
                        black_box($body);
                    }
                    let clear: fn(&mut _) = $clear;
                    clear(&mut $arena);
                }
            });
        };
    }
    formats!("nebula", Arena::new(), Arena::reset, |arena, i| arena
        .alloc_fmt(format_args!("{i} {}", WORD)));
    formats!(
        "nebula (down)",
        Arena::options().direction::<Down>().build().expect("an arena"),
        Arena::reset,
        |arena, i| arena.alloc_fmt(format_args!("{i} {}", WORD))
    );
    formats!(
        "bump-scope (up)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset_to_start,
        |arena, i| arena.alloc_fmt_mut(format_args!("{i} {}", WORD)).len()
    );
    formats!(
        "bump-scope (down)",
        <BumpScope<8, false> as Subject>::make().0,
        bump_scope::Bump::reset_to_start,
        |arena, i| arena.alloc_fmt_mut(format_args!("{i} {}", WORD)).len()
    );
    formats!("bumpalo", bumpalo::Bump::new(), bumpalo::Bump::reset, |arena, i| {
        let mut text = bumpalo::collections::String::new_in(&arena);
        write!(text, "{i} {}", WORD).expect("text");
        text.into_bump_str().len()
    });
    formats!(
        "blink-alloc (Vec)",
        blink_alloc::BlinkAlloc::new(),
        blink_alloc::BlinkAlloc::reset,
        |arena, i| {
            let mut text = allocator_api2::vec::Vec::new_in(&arena);
            write!(text, "{i} {}", WORD).expect("text");
            allocator_api2::vec::Vec::leak(text).len()
        }
    );
    formats!("stumpalo (Vec)", stumpalo::Arena::new(), stumpalo::Arena::clear, |arena, i| {
        let mut text = allocator_api2::vec::Vec::new_in(&arena);
        write!(text, "{i} {}", WORD).expect("text");
        allocator_api2::vec::Vec::leak(text).len()
    });
    formats!(
        "oxc_allocator",
        oxc_allocator::Allocator::new(),
        oxc_allocator::Allocator::reset,
        |arena, i| {
            let mut text = oxc_allocator::StringBuilder::new_in(&arena);
            write!(text, "{i} {}", WORD).expect("text");
            text.into_str().len()
        }
    );
    formats!("std", (), |_| (), |_arena, i| format!("{i} {}", WORD));
}

pub fn register(bench: &mut Bench) {
    scopes(bench);
    empty_scopes(bench);
    scopes_of_one(bench);
    formatting(bench);
}
