use super::{
    Arena, Keep, Scope,
    front::Front,
    scope::{Rewind, scoped},
};
use crate::allocator::{
    Allocator, SystemAllocator,
    bump::{Direction, Down},
};
use core::{fmt, ops::Deref};

/// A stretch of an arena's life that ends where the guard goes out of scope; from
/// [`Arena::guard`]. The arena is then as full as it was before.
///
/// It gives shared access to the arena, to allocate from, and what is allocated through it lives as
/// long as the guard is borrowed. A guard that is leaked leaves the arena as it is.
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
///         continue; // a guard goes on every way out, `?` too
///     }
///     assert_eq!(words[0], "three");
/// }
/// assert_eq!(*outer.alloc(7), 7);
/// ```
///
/// Nothing outlives its guard, and while an inner one is there the outer one allocates nothing:
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
pub struct ScopeGuard<'a, A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    /// # Invariants
    ///
    /// Borrowed uniquely, as far as others see: it is only lent out, shared, for as long as the guard
    /// is borrowed.
    arena: &'a Arena<A, D, MIN_ALIGN>,
    /// Of the same arena.
    _rewind: Rewind<'a, A, D, MIN_ALIGN>,
}

impl<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> ScopeGuard<'a, A, D, MIN_ALIGN> {
    /// # Safety
    ///
    /// As long as the guard lives, blocks are given out through it alone.
    #[inline]
    pub(super) unsafe fn new(arena: &'a Arena<A, D, MIN_ALIGN>) -> Self {
        // SAFETY: what is given out through the guard borrows it.
        Self { arena, _rewind: unsafe { Rewind::new(&arena.raw, &arena.raw.bump) } }
    }

    /// A guard within this one.
    ///
    /// # Examples
    ///
    /// See [`ScopeGuard`].
    #[inline]
    #[must_use = "the scope ends where the guard is dropped"]
    pub fn guard(&mut self) -> ScopeGuard<'_, A, D, MIN_ALIGN> {
        // SAFETY: this guard is borrowed uniquely as long as the inner one lives.
        unsafe { ScopeGuard::new(self.arena) }
    }

    /// A [scope](Arena::scope) within this one.
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

    /// All or nothing: see [`Scope::transact`]. What is kept lives until the guard is borrowed anew.
    ///
    /// # Panics
    ///
    /// As [`Scope::transact`].
    ///
    /// # Errors
    ///
    /// Whatever `run` returns.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let mut guard = arena.guard();
    /// let failed = guard.transact::<&'static str, _>(|scope| {
    ///     scope.alloc_str("gone");
    ///     Err("no")
    /// });
    /// assert_eq!(failed, Err("no"));
    /// assert_eq!(guard.filled_bytes(), 0);
    /// let kept = guard.transact::<&'static str, ()>(|scope| Ok(scope.alloc_str("kept")));
    /// assert_eq!(kept, Ok("kept"));
    /// ```
    #[inline]
    pub fn transact<K: Keep, E>(
        &mut self,
        run: impl for<'i> FnOnce(&mut Scope<'i, A, D, MIN_ALIGN>) -> Result<K::In<'i>, E>,
    ) -> Result<K::In<'_>, E> {
        let Arena { raw } = self.arena;
        // SAFETY: 1. Its own. 2. The guard is borrowed uniquely as long as the scope and what is kept
        // of it live.
        let mut scope = Scope { raw: unsafe { Front::new(raw, &raw.bump) } };
        scope.transact::<K, E>(run)
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
