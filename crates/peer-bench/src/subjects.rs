//! The arenas: ours, the peers, and one written by hand.

use nebula_memory::{
    allocator::{
        SystemAllocator,
        bump::{Direction, Down, Up},
    },
    arena::Arena,
};
use std::{alloc::Layout, cell::Cell, mem::MaybeUninit, ptr::NonNull};

/// The operations that the cases need of an arena.
#[expect(clippy::mut_from_ref, reason = "what an arena is for")]
pub trait Subject: Sized + 'static {
    const NAME: &'static str;
    fn make() -> Self;
    fn clear(&mut self);
    fn value<T>(&self, value: T) -> &mut T;
    fn text<'a>(&'a self, text: &str) -> &'a str;
    fn raw(&self, layout: Layout) -> NonNull<u8>;
    /// A value of 4 KiB, made in place as far as the crate can.
    fn page(&self, seed: u8) -> &mut [u8; 4096];
}

pub struct Nebula<D: Direction, const MIN: usize>(pub Arena<SystemAllocator, D, MIN>);

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
nebula!(Up, 8, "nebula");
nebula!(Up, 1, "nebula (min-align 1)");
nebula!(Down, 8, "nebula (down)");
nebula!(Down, 1, "nebula (down, min-align 1)");

pub struct Bumpalo(pub bumpalo::Bump);
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

pub struct BumpScope<const MIN: usize, const UP: bool>(
    pub bump_scope::Bump<bump_scope::alloc::Global, bump_scope::settings::BumpSettings<MIN, UP>>,
)
where
    bump_scope::settings::MinimumAlignment<MIN>: bump_scope::settings::SupportedMinimumAlignment;

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

pub struct Blink(pub blink_alloc::Blink);
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

pub struct Stumpalo(pub stumpalo::Arena);
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

pub struct Oxc(pub oxc_allocator::Allocator);
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

/// The best that a machine can do: one region, downwards, no counters, no second chunk.
pub struct Floor {
    at: Cell<*mut u8>,
    start: *mut u8,
    region: Box<[MaybeUninit<u64>]>,
}

impl Floor {
    const WORDS: usize = 512 * 1024;

    #[cold]
    #[inline(never)]
    fn full() -> ! {
        panic!("the region is full");
    }
}

// SAFETY: the pointers are into the region, which moves with them and is not shared.
unsafe impl Send for Floor {}

impl Subject for Floor {
    const NAME: &'static str = "floor";
    fn make() -> Self {
        let mut region = Box::new_uninit_slice(Self::WORDS);
        let ends = region.as_mut_ptr_range();
        Self { at: Cell::new(ends.end.cast()), start: ends.start.cast(), region }
    }
    #[inline(always)]
    fn clear(&mut self) {
        self.at.set(self.start.wrapping_add(size_of_val(&*self.region)));
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        let block = self.raw(Layout::new::<T>()).cast::<T>();
        // SAFETY: the block has the layout of a `T`.
        unsafe { block.write(value) };
        // SAFETY: the value was just written, and nothing else refers to it.
        unsafe { &mut *block.as_ptr() }
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        let block = self.raw(Layout::for_value(text));
        // SAFETY: the block is new and as long as the text.
        unsafe { copy(text.as_ptr(), block.as_ptr(), text.len()) };
        // SAFETY: the bytes were just written, a copy of a text.
        unsafe { str::from_utf8_unchecked(std::slice::from_raw_parts(block.as_ptr(), text.len())) }
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        let new = self.at.get().wrapping_sub(layout.size());
        let new = new.map_addr(|at| at & !(layout.align() - 1));
        if (new.addr().wrapping_sub(self.start.addr())).cast_signed() < 0 {
            Self::full();
        }
        self.at.set(new);
        // SAFETY: the address lies within the region.
        unsafe { NonNull::new_unchecked(new) }
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        let block = self.raw(Layout::new::<[u8; 4096]>()).cast::<[u8; 4096]>();
        // SAFETY: the block has the layout of a page.
        unsafe { block.write_bytes(seed, 1) };
        // SAFETY: the page was just written, and nothing else refers to it.
        unsafe { &mut *block.as_ptr() }
    }
}

/// Copies short texts with two loads that overlap in the middle, and long ones with the C library.
///
/// # Safety
///
/// Both pointers are valid for `len` bytes, and the ranges do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    macro_rules! ends {
        ($word:ty) => {{
            let end = len - size_of::<$word>();
            // SAFETY: both ends are within `len` bytes, which are at least one word.
            unsafe {
                let (first, last) = (
                    from.cast::<$word>().read_unaligned(),
                    from.add(end).cast::<$word>().read_unaligned(),
                );
                to.cast::<$word>().write_unaligned(first);
                to.add(end).cast::<$word>().write_unaligned(last);
            }
        }};
    }
    match len {
        0 => {}
        1 => ends!(u8),
        2..=3 => ends!(u16),
        4..=7 => ends!(u32),
        8..=15 => ends!(u64),
        16..=32 => ends!(u128),
        // SAFETY: the caller's promise.
        _ => unsafe { to.copy_from_nonoverlapping(from, len) },
    }
}
