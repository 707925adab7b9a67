//! Values, strings and blocks: a, b, c, c2, e, e2, k, k5, k6, m.

use crate::{
    harness::Bench,
    heaps::{Listed, Malloc},
    subjects::{Blink, BumpScope, Bumpalo, Floor, Nebula, Oxc, Stumpalo, Subject},
};
use nebula_memory::{
    Budget,
    allocator::bump::{Direction, Down, InlineBuffer, Up},
    arena::Arena,
};
use std::{
    alloc::{Layout, System},
    cell::Cell,
    hint::black_box,
    mem::MaybeUninit,
};

const CREATE: (&str, &str) = ("k", "create, one u64, drop");
const CREATE_LIMITED: (&str, &str) = ("k6", "create with a limit of bytes, one u64, drop");
const CURSOR: (&str, &str) = ("a-cursor", "10 000 u64 by a cursor held by value, then reset");
const MANY: usize = 10_000;

/// Numbers that look random and are the same in every run.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn texts(count: usize, least: u64, most: u64) -> Vec<String> {
    let mut next = random(7);
    (0..count)
        .map(|_| {
            let len = usize::try_from(least + next() % (most - least + 1)).expect("short");
            "x".repeat(len)
        })
        .collect()
}

fn values<S: Subject>(bench: &mut Bench) {
    bench.add(("a", "10 000 u64, then reset"), MANY, S::NAME, || {
        let mut arena = S::make();
        move || {
            for i in 0..MANY {
                black_box(arena.value(i as u64));
            }
            arena.clear();
        }
    });
    bench.add(("b", "10 000 structs of 64 bytes, then reset"), MANY, S::NAME, || {
        let mut arena = S::make();
        move || {
            for i in 0..MANY {
                black_box(arena.value([i as u64; 8]));
            }
            arena.clear();
        }
    });
    for (case, least, most) in
        [(("c", "strings of 5 to 200 bytes"), 5, 200), (("c2", "strings of 1 to 24 bytes"), 1, 24)]
    {
        bench.add(case, 4096, S::NAME, move || {
            let texts = texts(4096, least, most);
            let mut arena = S::make();
            move || {
                for text in &texts {
                    black_box(arena.text(text));
                }
                arena.clear();
            }
        });
    }
    bench.add(("e", "sizes of 8 to 512, alignment 8 known when compiled"), MANY, S::NAME, || {
        let mut next = random(11);
        let sizes: Vec<_> =
            (0..MANY).map(|_| usize::try_from(8 + next() % 505).expect("small")).collect();
        let mut arena = S::make();
        move || {
            for size in &sizes {
                let layout = Layout::from_size_align(*size, 8).expect("a layout");
                black_box(arena.raw(layout));
            }
            arena.clear();
        }
    });
    bench.add(("e2", "sizes of 8 to 512, alignments of 1 to 16"), MANY, S::NAME, || {
        let mut next = random(13);
        let layouts: Vec<_> = (0..MANY)
            .map(|_| {
                let size = usize::try_from(8 + next() % 505).expect("small");
                Layout::from_size_align(size, 1 << (next() % 5)).expect("a layout")
            })
            .collect();
        let mut arena = S::make();
        move || {
            for layout in &layouts {
                black_box(arena.raw(*layout));
            }
            arena.clear();
        }
    });
    bench.add(("k5", "one u64, then reset"), 1024, S::NAME, || {
        let mut arena = S::make();
        move || {
            for i in 0..1024_u64 {
                black_box(arena.value(i));
                arena.clear();
            }
        }
    });
    bench.add(("m", "a value of 4 KiB in its place"), 64, S::NAME, || {
        let mut arena = S::make();
        move || {
            for i in 0..64 {
                black_box(arena.page(i));
            }
            arena.clear();
        }
    });
}

fn create<S: Subject>(bench: &mut Bench) {
    bench.add(CREATE, 64, S::NAME, || {
        move || {
            for i in 0..64_u64 {
                let arena = S::make();
                black_box(arena.value(i));
            }
        }
    });
}

fn create_block<A: Malloc>(bench: &mut Bench) {
    bench.add(CREATE, 64, A::NAME, || {
        move || {
            for i in 0..64_u64 {
                let block = A::IT.block(Layout::new::<u64>()).cast::<u64>();
                // SAFETY: the block has the layout of a `u64`.
                unsafe { block.write(i) };
                black_box(block);
                // SAFETY: the block was taken from here with this layout, and is freed once.
                unsafe { A::IT.dealloc(block.as_ptr().cast(), Layout::new::<u64>()) };
            }
        }
    });
}

/// An arena whose first bytes lie on the stack: it calls no heap. The compiler must not know what happens to it,
/// or nothing of it is left.
fn create_inline(bench: &mut Bench) {
    struct Inline {
        at: Cell<usize>,
        chunk: [MaybeUninit<u64>; 8],
    }
    bench.add(CREATE, 64, "nebula (inline)", || {
        move || {
            for i in 0..64_u64 {
                let mut buffer = InlineBuffer::<256>::new();
                let arena = Arena::with_buffer(buffer.as_uninit());
                black_box(arena.alloc(i));
                // The compiler knows nothing about the arena from here on.
                black_box(&arena);
            }
        }
    });
    bench.add(CREATE, 64, "floor (inline chunk)", || {
        move || {
            for i in 0..64_u64 {
                let mut arena = Inline { at: Cell::new(8), chunk: [MaybeUninit::uninit(); 8] };
                let at = arena.at.get() - 1;
                arena.at.set(at);
                black_box(arena.chunk[at].write(i));
                black_box(&arena);
            }
        }
    });
}

/// An arena whose chunk is counted against a limit. A budget is shared, and a limit of bumpalo's is the arena's own.
fn create_limited(bench: &mut Bench) {
    bench.add(CREATE_LIMITED, 64, "nebula (budget)", || {
        let budget = Budget::root("run").limit(1 << 20).build().expect("a limit");
        move || {
            for i in 0..64_u64 {
                let arena = Arena::options().budget(&budget).build().expect("an arena");
                black_box(arena.alloc(i));
            }
        }
    });
    bench.add(CREATE_LIMITED, 64, "nebula (max_bytes)", || {
        move || {
            for i in 0..64_u64 {
                let arena = Arena::options().max_bytes(1 << 20).build().expect("an arena");
                black_box(arena.alloc(i));
            }
        }
    });
    bench.add(CREATE_LIMITED, 64, "bumpalo (limit)", || {
        move || {
            for i in 0..64_u64 {
                let arena = bumpalo::Bump::new();
                arena.set_allocation_limit(Some(1 << 20));
                black_box(arena.alloc(i));
            }
        }
    });
}

fn cursor_of<D: Direction>(bench: &mut Bench, name: &'static str) {
    bench.add(CURSOR, MANY, name, || {
        let mut arena = Arena::options().direction::<D>().build().expect("an arena");
        move || {
            let mut cursor = arena.cursor();
            for i in 0..MANY {
                black_box(cursor.alloc(i as u64));
            }
            drop(cursor);
            arena.reset();
        }
    });
}

/// A cursor keeps the arena's end in a register for as long as one borrow lasts.
fn cursor(bench: &mut Bench) {
    cursor_of::<Up>(bench, "nebula");
    cursor_of::<Down>(bench, "nebula (down)");
    bench.add(CURSOR, MANY, "floor", || {
        let mut region: Box<[MaybeUninit<u64>]> = Box::new_uninit_slice(MANY + 1);
        move || {
            let ends = region.as_mut_ptr_range();
            let mut at = ends.end;
            for i in 0..MANY {
                let new = at.wrapping_sub(1);
                assert!(new >= ends.start, "the region is full");
                at = new;
                // SAFETY: the address lies within the region.
                black_box(unsafe { &mut *new }.write(i as u64));
            }
        }
    });
}

pub fn register(bench: &mut Bench) {
    values::<Nebula<Up, 8>>(bench);
    values::<Nebula<Up, 1>>(bench);
    values::<Nebula<Down, 8>>(bench);
    values::<Nebula<Down, 1>>(bench);
    values::<Bumpalo>(bench);
    values::<BumpScope<8, false>>(bench);
    values::<BumpScope<1, true>>(bench);
    values::<Blink>(bench);
    values::<Stumpalo>(bench);
    values::<Oxc>(bench);
    values::<Listed<System>>(bench);
    values::<Listed<mimalloc::MiMalloc>>(bench);
    values::<Listed<tikv_jemallocator::Jemalloc>>(bench);
    values::<Floor>(bench);

    create::<Nebula<Up, 8>>(bench);
    create::<Nebula<Down, 8>>(bench);
    create::<Bumpalo>(bench);
    create::<BumpScope<8, false>>(bench);
    create::<BumpScope<1, true>>(bench);
    create::<Blink>(bench);
    create::<Stumpalo>(bench);
    create::<Oxc>(bench);
    create_block::<System>(bench);
    create_block::<mimalloc::MiMalloc>(bench);
    create_block::<tikv_jemallocator::Jemalloc>(bench);
    create_inline(bench);
    create_limited(bench);

    cursor(bench);
}
