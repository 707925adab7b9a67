//! Scopes that data opens and closes.

use super::{Arena, raw::Checkpoint};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down},
    },
    core::{AllocationError, CapacityOverflow, Exhausted},
    utils::id::unique_id,
};
use alloc::vec::Vec;
use core::{fmt, marker::PhantomData, mem, num::NonZeroU64, ops::Deref, ptr::NonNull};

/// Nested scopes of an arena that data opens and closes, not syntax; from [`Arena::scopes`].
///
/// For what walks a structure without recursion: a parser with a stack of its own, an interpreter's
/// frames. A value lives until the scope that was innermost when it was [put](Self::put) is
/// [closed](Self::close). As no borrow can say how long that is, what comes back is a [`Slot`]: a
/// number of words that is checked when it is [looked up](Self::get).
///
/// It gives shared access to the arena as well, for values that live until the next scope is opened
/// or closed. When it is dropped, the arena is as full as before.
///
/// # Complexity
///
/// To open and to close a scope is constant; so is a look-up, unless scopes are
/// [committed](Self::commit), which it is linear in.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
///
/// let mut arena = Arena::new();
/// let mut scopes = arena.scopes();
/// let mut names = Vec::new();
/// for token in "( a ( b ) ( c".split(' ') {
///     match token {
///         "(" => scopes.open(),
///         ")" => assert!(scopes.close()),
///         name => names.push(scopes.put_str(name)),
///     }
/// }
/// let found: Vec<_> = names.iter().map(|name| scopes.get(*name)).collect();
/// assert_eq!(found, [Some("a"), None, Some("c")], "the scope of `b` is closed");
/// ```
///
/// A reference does not outlive the next step:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let mut scopes = arena.scopes();
/// let slot = scopes.put(7);
/// let seven = scopes.get(slot);
/// scopes.close();
/// println!("{seven:?}");
/// ```
pub struct ScopeStack<'a, A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    /// # Invariants
    ///
    /// Borrowed uniquely, as far as others see: it is only lent out, shared, for as long as the stack
    /// is borrowed.
    arena: &'a Arena<A, D, MIN_ALIGN>,
    /// # Invariants
    ///
    /// The open scopes, the outermost first, which is the stack's own. Each began at its checkpoint,
    /// no later than the next.
    open: Vec<Open<D, MIN_ALIGN>>,
    /// Serial numbers of scopes that were committed to one that is open, in the order in which they
    /// were.
    committed: Vec<u64>,
    /// How many scopes were ever opened.
    serials: u64,
    id: NonZeroU64,
}

struct Open<D: Direction, const MIN_ALIGN: usize> {
    serial: u64,
    began: Checkpoint<D, MIN_ALIGN>,
    /// How many scopes had been committed then.
    committed: usize,
}

/// A value in a [`ScopeStack`], four words.
///
/// It keeps nothing alive: the look-up says whether the value is still there.
///
/// # Examples
///
/// See [`ScopeStack`].
pub struct Slot<T: ?Sized> {
    /// # Invariants
    ///
    /// An initialised value of the stack of this id, nobody else's, as long as the scope of this
    /// serial number is open, or was committed to one that is.
    value: NonNull<T>,
    stack: NonZeroU64,
    serial: u64,
    depth: u32,
    /// Neither a longer nor a shorter lifetime within `T`: what is written through one copy is read
    /// through another.
    invariant: PhantomData<*mut T>,
}

impl<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize> ScopeStack<'a, A, D, MIN_ALIGN> {
    pub(super) fn new(arena: &'a mut Arena<A, D, MIN_ALIGN>) -> Result<Self, AllocationError> {
        let mut stack =
            Self { arena, open: Vec::new(), committed: Vec::new(), serials: 0, id: unique_id() };
        stack.try_open()?;
        Ok(stack)
    }

    /// Opens a scope within the innermost one.
    ///
    /// # Panics
    ///
    /// Where there is no memory for the five words that an open scope takes on the heap;
    /// [`try_open`](Self::try_open) returns an error instead.
    ///
    /// # Complexity
    ///
    /// Constant, amortised.
    ///
    /// # Examples
    ///
    /// See [`ScopeStack`].
    #[track_caller]
    pub fn open(&mut self) {
        self.try_open().unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`open`](Self::open), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`], where there is no memory, or 2³² scopes are open.
    pub fn try_open(&mut self) -> Result<(), AllocationError> {
        let size = size_of::<Open<D, MIN_ALIGN>>();
        let too_many = CapacityOverflow::new("scopes", self.open.len(), size);
        u32::try_from(self.open.len()).map_err(|_| too_many)?;
        self.open.try_reserve(1).map_err(|_| Exhausted::new("scopes", size, None))?;
        let began = self.arena.raw.checkpoint(&self.arena.raw.bump);
        self.open.push(Open { serial: self.serials, began, committed: self.committed.len() });
        self.serials += 1;
        Ok(())
    }

    /// Closes the innermost scope; what was put there is gone. `false`, and nothing happens, where
    /// every scope that was opened is closed.
    ///
    /// # Complexity
    ///
    /// Constant, plus a step for each chunk that the arena has entered since.
    ///
    /// # Examples
    ///
    /// See [`ScopeStack`].
    pub fn close(&mut self) -> bool {
        if self.depth() == 0 {
            return false;
        }
        let Some(open) = self.open.pop() else { return false };
        self.committed.truncate(open.committed);
        // SAFETY: 1. The arena's, as scopes that began later were closed before and went back no
        // further. 2. References to what was allocated since borrow the stack, which is borrowed
        // uniquely here; slots of it are refused from now on, as serial numbers are used once.
        unsafe { self.arena.raw.rewind(&open.began) };
        true
    }

    /// Closes the innermost scope and keeps what was put there in the one around it. `false`, and
    /// nothing happens, where every scope that was opened is closed.
    ///
    /// # Panics
    ///
    /// Where there is no memory to remember it, a word; [`try_commit`](Self::try_commit) returns an
    /// error instead.
    ///
    /// # Complexity
    ///
    /// Constant; a look-up of what was committed is linear in the number of commits since the innermost
    /// open scope began.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let mut scopes = arena.scopes();
    /// scopes.open();
    /// let kept = scopes.put(7);
    /// scopes.commit();
    /// scopes.open();
    /// let gone = scopes.put(8);
    /// scopes.close();
    /// assert_eq!((scopes.get(kept), scopes.get(gone)), (Some(&7), None));
    /// ```
    #[track_caller]
    pub fn commit(&mut self) -> bool {
        self.try_commit().unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`commit`](Self::commit), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`], where there is no memory; the scope stays open.
    pub fn try_commit(&mut self) -> Result<bool, AllocationError> {
        if self.depth() == 0 {
            return Ok(false);
        }
        let size = size_of::<u64>();
        self.committed.try_reserve(1).map_err(|_| Exhausted::new("scopes", size, None))?;
        if let Some(open) = self.open.pop() {
            self.committed.push(open.serial);
        }
        Ok(true)
    }

    /// How many scopes are open.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let mut scopes = arena.scopes();
    /// scopes.open();
    /// assert_eq!(scopes.depth(), 1, "its own does not count");
    /// ```
    #[must_use]
    pub fn depth(&self) -> usize {
        self.open.len() - 1
    }

    /// Moves `value` into the innermost scope. It is not dropped.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_put`](Self::try_put) returns an error instead.
    ///
    /// # Examples
    ///
    /// See [`ScopeStack`].
    #[track_caller]
    pub fn put<T>(&self, value: T) -> Slot<T> {
        self.slot(NonNull::from(self.arena.alloc(value)))
    }

    /// [`put`](Self::put), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] as for [`Arena`]; the value is dropped.
    pub fn try_put<T>(&self, value: T) -> Result<Slot<T>, AllocationError> {
        Ok(self.slot(NonNull::from(self.arena.try_alloc(value)?)))
    }

    /// Copies `text` into the innermost scope.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_put_str`](Self::try_put_str) returns an error instead.
    ///
    /// # Examples
    ///
    /// See [`ScopeStack`].
    #[track_caller]
    pub fn put_str(&self, text: &str) -> Slot<str> {
        self.slot(NonNull::from(self.arena.alloc_str(text)))
    }

    /// [`put_str`](Self::put_str), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] as for [`Arena`].
    pub fn try_put_str(&self, text: &str) -> Result<Slot<str>, AllocationError> {
        Ok(self.slot(NonNull::from(self.arena.try_alloc_str(text)?)))
    }

    /// Keeps what `make` allocates for as long as the innermost scope.
    ///
    /// # Errors
    ///
    /// Whatever `make` returns.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let scopes = arena.scopes();
    /// let squares = scopes.keep(|arena| arena.try_alloc_slice_fill_with(4, |i| i * i))?;
    /// assert_eq!(scopes.get(squares), Some(&[0, 1, 4, 9][..]));
    /// # Ok::<(), nebula_memory::core::AllocationError>(())
    /// ```
    pub fn keep<T: ?Sized, E>(
        &self,
        make: impl for<'s> FnOnce(&'s Arena<A, D, MIN_ALIGN>) -> Result<&'s mut T, E>,
    ) -> Result<Slot<T>, E> {
        // As `make` is for any lifetime, the result is the arena's, or lives for ever.
        Ok(self.slot(NonNull::from(make(self.arena)?)))
    }

    fn slot<T: ?Sized>(&self, value: NonNull<T>) -> Slot<T> {
        let depth = u32::try_from(self.depth()).unwrap_or(u32::MAX);
        let serial = self.open.last().map_or(0, |open| open.serial);
        Slot { value, stack: self.id, serial, depth, invariant: PhantomData }
    }

    /// Whether the value of a slot is still there.
    fn is_live<T: ?Sized>(&self, slot: Slot<T>) -> bool {
        let open = usize::try_from(slot.depth).ok().and_then(|depth| self.open.get(depth));
        slot.stack == self.id
            && (open.is_some_and(|open| open.serial == slot.serial)
                || self.committed.contains(&slot.serial))
    }

    /// The value of `slot`; `None` where its scope is closed, or it is another stack's.
    ///
    /// # Examples
    ///
    /// See [`ScopeStack`].
    #[must_use]
    pub fn get<T: ?Sized>(&self, slot: Slot<T>) -> Option<&T> {
        if !self.is_live(slot) {
            return None;
        }
        // SAFETY: initialised, and there as long as the stack is borrowed, as it was just checked
        // (the invariants of the slot); a unique reference borrows the stack uniquely.
        Some(unsafe { slot.value.as_ref() })
    }

    /// As [`get`](Self::get), to change it.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// let mut scopes = arena.scopes();
    /// let counter = scopes.put(0);
    /// *scopes.get_mut(counter).unwrap() += 1;
    /// assert_eq!(scopes.get(counter), Some(&1));
    /// ```
    #[must_use]
    pub fn get_mut<T: ?Sized>(&mut self, mut slot: Slot<T>) -> Option<&mut T> {
        if !self.is_live(slot) {
            return None;
        }
        // SAFETY: as in `get`; the stack is borrowed uniquely.
        Some(unsafe { slot.value.as_mut() })
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Deref for ScopeStack<'_, A, D, MIN_ALIGN> {
    type Target = Arena<A, D, MIN_ALIGN>;

    fn deref(&self) -> &Arena<A, D, MIN_ALIGN> {
        self.arena
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for ScopeStack<'_, A, D, MIN_ALIGN> {
    fn drop(&mut self) {
        if let Some(own) = mem::take(&mut self.open).first() {
            // SAFETY: as in `close`; the slots go unused without the stack.
            unsafe { self.arena.raw.rewind(&own.began) };
        }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for ScopeStack<'_, A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeStack")
            .field("depth", &self.depth())
            .field("arena", self.arena)
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Slot<T> {}

impl<T: ?Sized> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("depth", &self.depth).finish_non_exhaustive()
    }
}
