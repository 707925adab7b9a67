use super::{Rewind, Scope, scoped};
use crate::advanced::arena::Arena;
use crate::allocator::{
    Allocator, SystemAllocator,
    bump::{Direction, Up},
};
use core::{fmt, ops::Deref};

/// A scope of an arena that ends when the guard is dropped; see [`Arena::guard`]. Use it where a
/// closure does not fit, for example to leave the scope with `continue` or `?`.
///
/// The guard dereferences to the arena, to allocate from it. Values that are allocated through the
/// guard live as long as the guard is borrowed. A guard that is leaked does not free its values.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
///
/// let mut arena = Arena::new();
/// let mut outer = arena.guard();
/// for line in ["one two", "three"] {
///     let inner = outer.guard();
///     let words = inner.alloc_slice_fill_iter(line.split(' ').collect::<Vec<_>>());
///     if words.len() > 1 {
///         continue; // the scope ends here as well
///     }
///     assert_eq!(words[0], "three");
/// }
/// assert_eq!(*outer.alloc(7), 7);
/// ```
///
/// A value does not outlive its guard, and the outer guard cannot allocate while an inner guard
/// lives:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let kept = {
///     let guard = arena.guard();
///     guard.alloc(7)
/// };
/// println!("{kept}");
/// ```
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let mut outer = arena.guard();
/// let inner = outer.guard();
/// let below = outer.alloc(7);
/// drop(inner);
/// ```
pub struct ScopeGuard<'a, A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    /// # Invariants
    ///
    /// For other code the arena is borrowed uniquely. The guard gives out shared references to it
    /// only for as long as the guard is borrowed.
    arena: &'a Arena<A, D, MIN_ALIGN>,
    /// Rewinds the same arena.
    _rewind: Rewind<'a, A, D, MIN_ALIGN>,
}

impl<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> ScopeGuard<'a, A, D, MIN_ALIGN> {
    /// Begins a scope of `arena`.
    ///
    /// # Safety
    ///
    /// As long as the guard lives, blocks are allocated through it alone.
    #[inline]
    pub(in super::super) unsafe fn new(arena: &'a Arena<A, D, MIN_ALIGN>) -> Self {
        // SAFETY: `bump` is the arena's own. Blocks and cursors that are made through the guard
        // borrow it.
        Self { arena, _rewind: unsafe { Rewind::new(&arena.raw, &arena.raw.bump) } }
    }

    /// Begins a scope within this one, with a guard of its own.
    #[inline]
    #[must_use = "the scope ends where the guard is dropped"]
    pub fn guard(&mut self) -> ScopeGuard<'_, A, D, MIN_ALIGN> {
        // SAFETY: this guard is borrowed uniquely as long as the inner one lives.
        unsafe { ScopeGuard::new(self.arena) }
    }

    /// Runs `run` with a [scope](Arena::scope) within this one.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let mut guard = arena.guard();
    /// assert_eq!(guard.scope(|scope| scope.alloc_str("abc").len()), 3);
    /// ```
    #[inline]
    pub fn scope<R>(
        &mut self,
        run: impl for<'s> FnOnce(&mut Scope<'s, A, D, MIN_ALIGN>) -> R,
    ) -> R {
        // SAFETY: this guard is borrowed uniquely until `scoped` is back.
        unsafe { scoped(&self.arena.raw, &self.arena.raw.bump, run) }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Deref for ScopeGuard<'_, A, D, MIN_ALIGN> {
    type Target = Arena<A, D, MIN_ALIGN>;

    #[inline]
    fn deref(&self) -> &Arena<A, D, MIN_ALIGN> {
        self.arena
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for ScopeGuard<'_, A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeGuard").field("arena", self.arena).finish()
    }
}
