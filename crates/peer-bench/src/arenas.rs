//! Arenas.

use crate::harness::Bench;
use nebula_memory::{
    allocator::{
        SystemAllocator,
        bump::{Direction, Down, Up},
    },
    arena::Arena,
};
use std::{alloc::Layout, fmt::Write, hint::black_box, ptr::NonNull};

/// What the cases ask of an arena.
trait Subject: Sized + 'static {
    const NAME: &'static str;
    fn make() -> Self;
    fn clear(&mut self);
    fn value<T>(&self, value: T) -> &mut T;
    fn text<'a>(&'a self, text: &str) -> &'a str;
    fn raw(&self, layout: Layout) -> NonNull<u8>;
    /// A value of 4 KiB, as well in its place as the crate does it.
    fn page(&self, seed: u8) -> &mut [u8; 4096];
}

struct Nebula<D: Direction, const MIN: usize>(Arena<SystemAllocator, D, MIN>);

macro_rules! nebula {
    ($direction:ty, $min:literal, $name:literal) => {
        impl Subject for Nebula<$direction, $min> {
            const NAME: &'static str = $name;
            fn make() -> Self {
                Self(Arena::default())
            }
            #[inline(always)]
            fn clear(&mut self) {
                self.0.reset();
            }
            #[inline(always)]
            fn value<T>(&self, value: T) -> &mut T {
                self.0.alloc(value)
            }
            #[inline(always)]
            fn text<'a>(&'a self, text: &str) -> &'a str {
                self.0.alloc_str(text)
            }
            #[inline(always)]
            fn raw(&self, layout: Layout) -> NonNull<u8> {
                NonNull::from(self.0.alloc_layout(layout)).cast()
            }
            #[inline(always)]
            fn page(&self, seed: u8) -> &mut [u8; 4096] {
                self.0.alloc_with(|| [seed; 4096])
            }
        }
    };
}
nebula!(Down, 8, "nebula");
nebula!(Down, 1, "nebula (min-align 1)");
nebula!(Up, 8, "nebula (up)");
nebula!(Up, 1, "nebula (up, min-align 1)");

struct Bumpalo(bumpalo::Bump);
impl Subject for Bumpalo {
    const NAME: &'static str = "bumpalo";
    fn make() -> Self {
        Self(bumpalo::Bump::new())
    }
    #[inline(always)]
    fn clear(&mut self) {
        self.0.reset();
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        self.0.alloc(value)
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        self.0.alloc_str(text)
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        self.0.alloc_layout(layout)
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        self.0.alloc_with(|| [seed; 4096])
    }
}

struct BumpScope<const MIN: usize, const UP: bool>(
    bump_scope::Bump<bump_scope::alloc::Global, bump_scope::settings::BumpSettings<MIN, UP>>,
)
where
    bump_scope::settings::MinimumAlignment<MIN>:
        bump_scope::settings::SupportedMinimumAlignment;

macro_rules! bump_scope {
    ($min:literal, $up:literal, $name:literal) => {
        impl Subject for BumpScope<$min, $up> {
            const NAME: &'static str = $name;
            fn make() -> Self {
                Self(bump_scope::Bump::new())
            }
            #[inline(always)]
            fn clear(&mut self) {
                self.0.reset_to_start();
            }
            #[inline(always)]
            fn value<T>(&self, value: T) -> &mut T {
                bump_scope::BumpBox::leak(self.0.alloc(value))
            }
            #[inline(always)]
            fn text<'a>(&'a self, text: &str) -> &'a str {
                bump_scope::BumpBox::leak(self.0.alloc_str(text))
            }
            #[inline(always)]
            fn raw(&self, layout: Layout) -> NonNull<u8> {
                use bump_scope::traits::BumpAllocatorTyped;
                self.0.allocate_layout(layout)
            }
            #[inline(always)]
            fn page(&self, seed: u8) -> &mut [u8; 4096] {
                bump_scope::BumpBox::leak(self.0.alloc_with(|| [seed; 4096]))
            }
        }
    };
}
bump_scope!(8, false, "bump-scope (down)");
bump_scope!(1, true, "bump-scope (up)");

struct Blink(blink_alloc::Blink);
impl Subject for Blink {
    const NAME: &'static str = "blink-alloc";
    fn make() -> Self {
        Self(blink_alloc::Blink::new())
    }
    #[inline(always)]
    fn clear(&mut self) {
        self.0.reset();
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        self.0.put_no_drop(value)
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        self.0.copy_str(text)
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        self.0.allocator().allocate(layout).expect("there is memory").cast()
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        self.0.emplace_no_drop().with(|| [seed; 4096])
    }
}

struct Stumpalo(stumpalo::Arena);
impl Subject for Stumpalo {
    const NAME: &'static str = "stumpalo";
    fn make() -> Self {
        Self(stumpalo::Arena::new())
    }
    #[inline(always)]
    fn clear(&mut self) {
        self.0.clear();
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        self.0.alloc(value)
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        self.0.alloc_str(text)
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        self.0.alloc_layout(layout)
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        self.0.alloc_with(|| [seed; 4096])
    }
}

struct Oxc(oxc_allocator::Allocator);
impl Subject for Oxc {
    const NAME: &'static str = "oxc_allocator";
    fn make() -> Self {
        Self(oxc_allocator::Allocator::new())
    }
    #[inline(always)]
    fn clear(&mut self) {
        self.0.reset();
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        self.0.alloc(value)
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        self.0.alloc_str(text)
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        self.0.alloc_layout(layout)
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        self.0.alloc([seed; 4096])
    }
}

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
    const MANY: usize = 10_000;
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
    bench.add(("k", "create, one u64, drop"), 64, S::NAME, || {
        move || {
            for i in 0..64_u64 {
                let arena = S::make();
                black_box(arena.value(i));
            }
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

/// Vectors that grow in the arena.
macro_rules! vectors {
    ($bench:expr, $name:expr, $make:expr, $clear:expr, $vec:ident) => {
        $bench.add(("d", "push 100 000 u64 onto a vector in the arena"), 100_000, $name, || {
            let mut arena = $make;
            move || {
                {
                    let mut vec = $vec::new_in(&arena);
                    for i in 0..100_000_u64 {
                        vec.push(i);
                    }
                    black_box(&vec);
                }
                $clear(&mut arena);
            }
        });
        $bench.add(("d2", "push onto two vectors in turn"), 100_000, $name, || {
            let mut arena = $make;
            move || {
                {
                    let mut first = $vec::new_in(&arena);
                    let mut second = $vec::new_in(&arena);
                    for i in 0..50_000_u64 {
                        first.push(i);
                        second.push(i);
                    }
                    black_box((&first, &second));
                }
                $clear(&mut arena);
            }
        });
    };
}

fn scopes(bench: &mut Bench) {
    const CASE: (&str, &str) = ("g", "a scope with 16 u64 in it");
    macro_rules! scope {
        ($name:literal, $make:expr, |$arena:ident| $body:expr) => {
            bench.add(CASE, 64, $name, || {
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
    scope!("nebula", Arena::new(), |arena| arena.scope(|scope| {
        for i in 0..16_u64 {
            black_box(scope.alloc(i));
        }
    }));
    scope!(
        "bump-scope (down)",
        <BumpScope<8, false> as Subject>::make().0,
        |arena| arena.scoped(|scope| {
            for i in 0..16_u64 {
                black_box(bump_scope::BumpBox::leak(scope.alloc(i)));
            }
        })
    );
    scope!("stumpalo", stumpalo::Arena::with_default_chunk(), |arena| arena.with_scope(|scope| {
        for i in 0..16_u64 {
            black_box(scope.alloc(i));
        }
    }));
    scope!("bumpalo (reset)", bumpalo::Bump::new(), |arena| {
        for i in 0..16_u64 {
            black_box(arena.alloc(i));
        }
        arena.reset();
    });
}

fn formatting(bench: &mut Bench) {
    const CASE: (&str, &str) = ("n", "format a number and a word into the arena");
    const MANY: usize = 256;
    macro_rules! formats {
        ($name:literal, $make:expr, $clear:expr, |$arena:ident, $i:ident| $body:expr) => {
            bench.add(CASE, MANY, $name, || {
                let mut $arena = $make;
                move || {
                    for $i in 0..MANY {
                        black_box($body);
                    }
                    #[allow(clippy::redundant_closure_call)]
                    $clear(&mut $arena);
                }
            });
        };
    }
    formats!("nebula", Arena::new(), Arena::reset, |arena, i| arena
        .alloc_fmt(format_args!("{i} {}", "word")));
    formats!(
        "nebula (up)",
        Arena::options().direction::<Up>().build().expect("an arena"),
        Arena::reset,
        |arena, i| arena.alloc_fmt(format_args!("{i} {}", "word"))
    );
    formats!(
        "bump-scope (up)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset_to_start,
        |arena, i| arena.alloc_fmt_mut(format_args!("{i} {}", "word")).len()
    );
    formats!("bumpalo", bumpalo::Bump::new(), bumpalo::Bump::reset, |arena, i| {
        let mut text = bumpalo::collections::String::new_in(&arena);
        write!(text, "{i} {}", "word").expect("text");
        text.into_bump_str().len()
    });
    formats!("std", (), |(): &mut ()| (), |_arena, i| format!("{i} {}", "word"));
}

pub fn register(bench: &mut Bench) {
    use allocator_api2::vec::Vec as Vec04;
    use allocator_api2_02::vec::Vec as Vec02;

    values::<Nebula<Down, 8>>(bench);
    values::<Nebula<Down, 1>>(bench);
    values::<Nebula<Up, 8>>(bench);
    values::<Nebula<Up, 1>>(bench);
    values::<Bumpalo>(bench);
    values::<BumpScope<8, false>>(bench);
    values::<BumpScope<1, true>>(bench);
    values::<Blink>(bench);
    values::<Stumpalo>(bench);
    values::<Oxc>(bench);

    vectors!(bench, "nebula", Arena::new(), Arena::reset, Vec04);
    vectors!(
        bench,
        "nebula (up)",
        Arena::options().direction::<Up>().build().expect("an arena"),
        Arena::reset,
        Vec04
    );
    vectors!(
        bench,
        "bump-scope (up)",
        <BumpScope<1, true> as Subject>::make().0,
        bump_scope::Bump::reset_to_start,
        Vec04
    );
    vectors!(bench, "bumpalo", bumpalo::Bump::new(), bumpalo::Bump::reset, Vec02);
    vectors!(
        bench,
        "stumpalo",
        stumpalo::Arena::new(),
        stumpalo::Arena::clear,
        Vec04
    );
    typed(bench);
    scopes(bench);
    formatting(bench);
}

/// Something to drop that costs nothing else.
struct Dropped(u64);
impl Drop for Dropped {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

fn typed(bench: &mut Bench) {
    const CASE: (&str, &str) = ("j", "10 000 values with a drop in a typed arena, then drop all");
    const MANY: usize = 10_000;
    bench.add(CASE, MANY, "nebula", || {
        let mut arena = nebula_memory::arena::TypedArena::new();
        move || {
            for i in 0..MANY {
                black_box(arena.alloc(Dropped(i as u64)));
            }
            arena.reset();
        }
    });
    bench.add(CASE, MANY, "nebula (new each time)", || {
        move || {
            let arena = nebula_memory::arena::TypedArena::new();
            for i in 0..MANY {
                black_box(arena.alloc(Dropped(i as u64)));
            }
        }
    });
    bench.add(CASE, MANY, "typed-arena", || {
        move || {
            let arena = typed_arena::Arena::new();
            for i in 0..MANY {
                black_box(arena.alloc(Dropped(i as u64)));
            }
        }
    });
    bench.add(CASE, MANY, "blink-alloc", || {
        let mut blink = blink_alloc::Blink::new();
        move || {
            for i in 0..MANY {
                black_box(blink.put(Dropped(i as u64)));
            }
            blink.reset();
        }
    });
}
