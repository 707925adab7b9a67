pub(super) mod child;
pub(super) mod cursor;
pub(super) mod guard;
pub(super) mod registers;

use self::registers::Registers;
use super::{
    raw::{Checkpoint, RawArena},
    values::{
        Values as _,
        methods::{allocating_methods, reserving_methods},
        text::Formatted as _,
    },
};
use crate::allocator::{
    Allocator, SystemAllocator,
    bump::{Direction, RawBump, Up},
};
use core::{fmt, mem::ManuallyDrop};

/// A part of an arena whose values are freed together when the scope ends; see
/// [`Arena::scope`](super::Arena::scope).
///
/// Values that are allocated in a scope live for `'s`, as long as the scope. The borrow checker
/// ensures that no reference leaves it.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
///
/// let mut arena = Arena::new();
/// let total = arena.scope(|scope| {
///     let numbers = scope.alloc_slice_fill_with(100, |i| i);
///     let longest = scope.scope(|inner| inner.alloc_fmt(format_args!("{numbers:?}")).len());
///     numbers.iter().sum::<usize>() + longest
/// });
/// assert_eq!(total, 4950 + 390);
/// ```
///
/// A reference cannot leave the scope:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let escaped = arena.scope(|scope| scope.alloc(7));
/// ```
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let mut escaped: &mut i32 = &mut 0;
/// arena.scope(|scope| escaped = scope.alloc(7));
/// ```
///
/// While an inner scope is open the outer scope cannot allocate, because the end of the inner scope
/// would free the value:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// arena.scope(|outer| {
///     outer.scope(|_inner| { outer.alloc(7); });
/// });
/// ```
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// arena.scope(|outer| {
///     let mut kept = outer.alloc(1);
///     outer.scope(|inner| kept = inner.alloc(7));
/// });
/// ```
pub struct Scope<'s, A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    pub(super) raw: Registers<'s, A, D, MIN_ALIGN>,
}

impl<'s, A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'s, A, D, MIN_ALIGN> {
    allocating_methods! {
        live: 's,
        begin: "# nebula_memory::arena::Arena::new().scope(|arena| {",
        end: "# });"
    }

    reserving_methods! {
        begin: "# nebula_memory::arena::Arena::new().scope(|arena| {",
        end: "# });"
    }

    /// Runs `run` with a scope within this one.
    #[inline]
    pub fn scope<R>(
        &mut self,
        run: impl for<'i> FnOnce(&mut Scope<'i, A, D, MIN_ALIGN>) -> R,
    ) -> R {
        let _resume = Resume(&self.raw);
        // SAFETY: this scope is borrowed uniquely until `scoped` returns, so only the inner scope
        // allocates.
        unsafe { scoped(self.raw.raw, &self.raw.bump, run) }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for Scope<'_, A, D, MIN_ALIGN> {
    #[inline]
    fn drop(&mut self) {
        self.raw.give_back();
    }
}

/// Runs `run` with a scope and then rewinds the arena, also if `run` panics. `bump` has the free
/// bytes.
///
/// # Safety
///
/// 1. `bump` is `raw`'s own, or that of a [`Registers`] of `raw`.
/// 2. Until this function returns, blocks are allocated through the scope alone.
#[inline]
pub(super) unsafe fn scoped<A: Allocator, D: Direction, const MIN_ALIGN: usize, R>(
    raw: &RawArena<A, D, MIN_ALIGN>,
    bump: &RawBump<D, MIN_ALIGN>,
    run: impl for<'i> FnOnce(&mut Scope<'i, A, D, MIN_ALIGN>) -> R,
) -> R {
    // SAFETY: `run` works for every lifetime of the scope, so no block leaves the scope.
    let _rewind = unsafe { Rewind::new(raw, bump) };
    // SAFETY: 1 and 2.
    let registers = unsafe { Registers::new(raw, bump) };
    // The scope does not give its free bytes back: the rewind replaces those of the arena.
    run(&mut ManuallyDrop::new(Scope { raw: registers }))
}

/// Rewinds the arena on drop.
///
/// # Invariants
///
/// `to` is a checkpoint of `raw`. Blocks that were allocated since then live no longer than this
/// value.
pub(super) struct Rewind<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    pub(super) raw: &'a RawArena<A, D, MIN_ALIGN>,
    to: Checkpoint<D, MIN_ALIGN>,
}

impl<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> Rewind<'a, A, D, MIN_ALIGN> {
    /// Takes a checkpoint, to which the arena is rewound when the result is dropped.
    ///
    /// # Safety
    ///
    /// `bump` has the arena's free bytes. Blocks and cursors that are made from now on live no
    /// longer than the result, unless the result is forgotten. Until then the arena is not rewound
    /// to a point before now.
    #[inline]
    pub(super) unsafe fn new(
        raw: &'a RawArena<A, D, MIN_ALIGN>,
        bump: &RawBump<D, MIN_ALIGN>,
    ) -> Self {
        Self { raw, to: raw.checkpoint(bump) }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for Rewind<'_, A, D, MIN_ALIGN> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: 1. `to` was taken from `raw`. Inner scopes have rewound it no further than to
        // where they began, and emptying needs the whole arena, which is borrowed. 2. Blocks that
        // were allocated since then live no longer than this value (the invariants).
        unsafe { self.raw.rewind(&self.to) };
    }
}

/// Lets a scope that began in an empty arena continue in the chunk that its inner scope has added.
/// This happens after the inner scope was rewound, whether it returned or panicked.
///
/// # Invariants
///
/// Dropped right after the [`Rewind`] of the inner scope, or never.
struct Resume<'a, 'r, A: Allocator, D: Direction, const MIN_ALIGN: usize>(
    &'a Registers<'r, A, D, MIN_ALIGN>,
);

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for Resume<'_, '_, A, D, MIN_ALIGN> {
    #[inline]
    fn drop(&mut self) {
        let Registers { bump, raw } = self.0;
        if bump.is_nowhere() {
            // SAFETY: 1. `raw.bump` has the arena's free bytes, as it was just rewound (the
            // invariants). 2. The inner scope is not used any more.
            unsafe { bump.restore(&raw.bump) };
        }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug for Scope<'_, A, D, MIN_ALIGN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("held", &self.raw.raw.held()).finish_non_exhaustive()
    }
}
