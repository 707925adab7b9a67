use super::{
    face::allocating_methods,
    raw::{Checkpoint, RawArena},
};
use crate::allocator::{
    Allocator, SystemAllocator,
    bump::{Direction, Down},
};
use core::fmt;

/// A stretch of an arena's life, after which the arena goes back to where it was; from
/// [`Arena::scope`](super::Arena::scope).
///
/// What is allocated here lives as long as the scope, `'s`, and the borrow checker keeps it from
/// getting out.
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
/// Nothing escapes:
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
/// While an inner scope is open, nothing is allocated in the outer one, as it would be gone with the
/// inner:
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
pub struct Scope<'s, A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    pub(super) raw: &'s RawArena<A, D, MIN_ALIGN>,
}

impl<'s, A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'s, A, D, MIN_ALIGN> {
    allocating_methods! {
        live: 's,
        begin: "# nebula_memory::arena::Arena::new().scope(|arena| {",
        end: "# });"
    }

    /// A scope within this one.
    ///
    /// # Examples
    ///
    /// See [`Scope`].
    #[inline]
    pub fn scope<R>(
        &mut self,
        run: impl for<'i> FnOnce(&mut Scope<'i, A, D, MIN_ALIGN>) -> R,
    ) -> R {
        // SAFETY: this scope is borrowed uniquely until `scoped` is back, so that only the inner
        // scope allocates.
        unsafe { scoped(self.raw, run) }
    }
}

/// Runs a scope, after which the arena goes back, also if `run` panics.
///
/// # Safety
///
/// Until this is back, blocks are given out through the scope alone.
#[inline]
pub(super) unsafe fn scoped<A: Allocator, D: Direction, const MIN_ALIGN: usize, R>(
    raw: &RawArena<A, D, MIN_ALIGN>,
    run: impl for<'i> FnOnce(&mut Scope<'i, A, D, MIN_ALIGN>) -> R,
) -> R {
    let rewind = Rewind { raw, to: raw.checkpoint() };
    run(&mut Scope { raw: rewind.raw })
}

/// Goes back on drop.
///
/// # Invariants
///
/// `to` is a place of `raw`; blocks that were given out since then live no longer than this.
struct Rewind<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    raw: &'a RawArena<A, D, MIN_ALIGN>,
    to: Checkpoint,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for Rewind<'_, A, D, MIN_ALIGN> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: 1. `to` is `raw`'s; inner scopes have gone back no further than to where they
        // began, and emptying takes the whole arena, which is borrowed. 2. Blocks given out since
        // live no longer than this: `run` is made for any lifetime of the scope, so that it can
        // bring none of them out.
        unsafe { self.raw.rewind(self.to) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug for Scope<'_, A, D, MIN_ALIGN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("held", &self.raw.held()).finish_non_exhaustive()
    }
}
