//! An arena for values of one type. It drops them when it is reset or dropped.

mod counted;
mod places;

use self::{counted::Counted, places::Places};
use super::{
    ArenaOptions,
    raw::{Failure, OrFail as _, Panic, RawArena},
    values::{Allocated, growing::Growing},
};
use crate::{
    allocator::{Allocator, SystemAllocator, bump::Up},
    core::{AllocationError, MemoryUsage, Resettable},
};
use alloc::vec::Vec;
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    iter::{self, FusedIterator},
    marker::PhantomData,
    mem,
    ptr::{self, NonNull},
    slice,
};

/// An arena for values of one type, which are dropped with the arena in the order of their
/// allocation.
///
/// Values lie in runs. A run is a row of slots in a chunk of an arena, so that budgets, limits and
/// base allocators work as for [`Arena`](super::Arena). A typed arena is used by one thread at a
/// time. It is [`Send`] if its values and its base allocator are.
///
/// # Complexity
///
/// Allocating a value is a comparison, an addition and the write.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::TypedArena;
///
/// let mut names = TypedArena::new();
/// let ada = names.alloc(String::from("ada"));
/// let bob = names.alloc(String::from("bob")); // `ada` stays valid
/// ada.push_str(" lovelace");
/// assert_eq!((&ada[..], &bob[..]), ("ada lovelace", "bob"));
/// assert_eq!(names.iter_mut().map(|name| name.len()).sum::<usize>(), 15);
/// names.reset(); // drops both, keeps the chunks
/// assert!(names.is_empty());
/// ```
///
/// A value cannot be used after a reset. Values cannot refer to other values of the same arena, as
/// those may be dropped first. For such graphs use [`Arena`](super::Arena), which drops nothing:
///
/// ```compile_fail
/// let mut names = nebula_memory::arena::TypedArena::new();
/// let name = names.alloc(String::new());
/// names.reset();
/// name.push('x');
/// ```
///
/// ```compile_fail
/// use std::cell::Cell;
/// struct Node<'a>(Cell<Option<&'a Node<'a>>>);
/// let nodes = nebula_memory::arena::TypedArena::new();
/// let node = nodes.alloc(Node(Cell::new(None)));
/// node.0.set(Some(node));
/// ```
pub struct TypedArena<T, A: Allocator = SystemAllocator> {
    /// # Invariants
    ///
    /// The slots from `pos` to `end` are those of the last run that hold no value. Or both pointers
    /// are dangling: then there is no run, or its slots are [taken](Places).
    pos: Cell<NonNull<T>>,
    end: Cell<NonNull<T>>,
    /// # Invariants
    ///
    /// The list of runs begins at `first`, continues by `next` and ends at `last`. The runs are
    /// written in blocks of `raw`. In each run the first [`Run::len`] values are initialised; in
    /// the last run the values below `pos`. Values are lent out for no longer than the arena is
    /// borrowed.
    first: Cell<Option<NonNull<Run<T>>>>,
    last: Cell<Option<NonNull<Run<T>>>>,
    /// The number of values of no bytes, which need no slots. Values beyond `usize::MAX` are not
    /// counted, and are never dropped.
    unsized_len: Cell<usize>,
    raw: RawArena<A, Up, 1>,
    values: PhantomData<T>,
}

/// A row of values.
struct Run<T> {
    next: Cell<Option<NonNull<Run<T>>>>,
    start: NonNull<T>,
    /// The number of values. It is up to date in the last run only while that run's slots are
    /// taken.
    len: Cell<usize>,
}

// SAFETY: the values are sent with the arena, and so is the raw arena. References to values borrow
// the arena, which then does not move.
unsafe impl<T: Send, A: Allocator + Send> Send for TypedArena<T, A> {}

impl<T> TypedArena<T> {
    /// Creates an empty arena without a budget. It allocates memory with the first value.
    #[must_use]
    pub fn new() -> Self {
        Self::over(RawArena::unbounded(SystemAllocator))
    }

    /// Like [`new`](Self::new), but with slots for `values` values.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails. [`try_reserve`](Self::try_reserve) on a new arena returns an
    /// error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::TypedArena, core::MemoryUsage};
    ///
    /// let names = TypedArena::with_capacity(1000);
    /// let held = names.used_bytes();
    /// (0..1000).for_each(|i| { names.alloc(i.to_string()); });
    /// assert_eq!(names.used_bytes(), held);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn with_capacity(values: usize) -> Self {
        let arena = Self::new();
        arena.reserve(values);
        arena
    }
}

impl ArenaOptions {
    /// Creates an arena for values of one type, with the budget, the chunks and the limit of these
    /// options.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, arena::{Arena, TypedArena}};
    ///
    /// let run = Budget::root("run").limit(1 << 20).build()?;
    /// let names: TypedArena<String> = Arena::options().budget(&run).build_typed()?;
    /// names.alloc(String::from("ada"));
    /// assert_eq!(run.usage().used, 1024, "the places, not what the strings own");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_typed<T>(self) -> Result<TypedArena<T>, crate::core::error::ConfigError> {
        self.build_typed_in(SystemAllocator)
    }

    /// Like [`build_typed`](Self::build_typed), but takes chunks from `base`.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::Arena};
    ///
    /// let names = Arena::options().max_bytes(1024).build_typed_in(&SystemAllocator)?;
    /// assert_eq!(names.alloc(String::from("ada")), "ada");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_typed_in<T, A: Allocator>(
        self,
        base: A,
    ) -> Result<TypedArena<T, A>, crate::core::error::ConfigError> {
        let arena = self.direction::<Up>().min_align::<1>().build_in(base)?;
        Ok(TypedArena::over(arena.raw))
    }
}

impl<T, A: Allocator> TypedArena<T, A> {
    /// Like [`new`](TypedArena::new), but takes chunks from `base`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::TypedArena};
    ///
    /// let names = TypedArena::new_in(&SystemAllocator);
    /// assert_eq!(names.alloc(String::from("ada")), "ada");
    /// ```
    #[must_use]
    pub fn new_in(base: A) -> Self {
        Self::over(RawArena::unbounded(base))
    }

    fn over(raw: RawArena<A, Up, 1>) -> Self {
        Self {
            pos: Cell::new(NonNull::dangling()),
            end: Cell::new(NonNull::dangling()),
            first: Cell::new(None),
            last: Cell::new(None),
            unsized_len: Cell::new(0),
            raw,
            values: PhantomData,
        }
    }

    /// Moves `value` into the arena.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc`](Self::try_alloc) returns an error instead.
    #[inline]
    #[track_caller]
    pub fn alloc(&self, value: T) -> &mut T {
        let outcome: Result<_, Panic> = self.put(value);
        match outcome {
            Ok(value) => value,
        }
    }

    /// Like [`alloc`](Self::alloc), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] in the same cases as for [`Arena`](super::Arena). The value is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::{Arena, TypedArena};
    ///
    /// let few: TypedArena<[u8; 100]> = Arena::options().max_bytes(512).build_typed()?;
    /// let count = (0..10).take_while(|_| few.try_alloc([0; 100]).is_ok()).count();
    /// assert_eq!(count, 4);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn try_alloc(&self, value: T) -> Result<&mut T, AllocationError> {
        self.put(value)
    }

    /// Moves the result of `make` into the arena. A slot is reserved before `make` is called.
    /// `make` may use the arena and may panic.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc_with`](Self::try_alloc_with) returns an error
    /// instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let pages = nebula_memory::arena::TypedArena::new();
    /// assert_eq!(pages.alloc_with(|| [0_u8; 4096]).len(), 4096);
    /// ```
    #[inline]
    #[track_caller]
    pub fn alloc_with(&self, make: impl FnOnce() -> T) -> &mut T {
        self.reserve(1);
        self.alloc(make())
    }

    /// Like [`alloc_with`](Self::alloc_with), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. `make` was not called, unless `make` itself allocated a value that took
    /// the reserved slot.
    #[inline]
    pub fn try_alloc_with(&self, make: impl FnOnce() -> T) -> Result<&mut T, AllocationError> {
        self.try_reserve(1)?;
        self.put(make())
    }

    /// Reserves slots for `values` more values in a row. Takes more memory if fewer slots are free.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_reserve`](Self::try_reserve) returns an error instead.
    #[inline]
    #[track_caller]
    pub fn reserve(&self, values: usize) {
        self.try_reserve(values).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Like [`reserve`](Self::reserve), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. Nothing was taken then.
    #[inline]
    pub fn try_reserve(&self, values: usize) -> Result<(), AllocationError> {
        if size_of::<T>() == 0 || values <= self.free_places() {
            return Ok(());
        }
        self.add_run(values)
    }

    /// Moves all values of an iterator into the arena, side by side. The iterator may use the
    /// arena. If it panics, the values that it has yielded are dropped.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc_extend`](Self::try_alloc_extend) returns an
    /// error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let names = nebula_memory::arena::TypedArena::new();
    /// let many = names.alloc_extend((0..100).map(|i| i.to_string()));
    /// assert_eq!(many[99], "99");
    /// ```
    #[track_caller]
    pub fn alloc_extend(&self, values: impl IntoIterator<Item = T>) -> &mut [T] {
        let outcome: Result<_, Panic> = self.put_all(values.into_iter());
        match outcome {
            Ok(values) => values,
        }
    }

    /// Like [`alloc_extend`](Self::alloc_extend), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. The values that the iterator has yielded are dropped, and no more are
    /// requested.
    pub fn try_alloc_extend(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<&mut [T], AllocationError> {
        self.put_all(values.into_iter())
    }

    /// Returns the number of values.
    ///
    /// # Complexity
    ///
    /// Linear in the number of runs.
    ///
    /// # Examples
    ///
    /// ```
    /// let names = nebula_memory::arena::TypedArena::new();
    /// names.alloc_extend(["ada", "bob"]);
    /// assert_eq!((names.len(), names.is_empty()), (2, false));
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.unsized_len.get() + self.runs().map(|run| self.len_of(run)).sum::<usize>()
    }

    /// Returns whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an iterator over the values, in the order of their allocation.
    ///
    /// There is no method for a shared borrow: [`alloc`](Self::alloc) returns unique references,
    /// and only a unique borrow of the arena ends them.
    ///
    /// # Complexity
    ///
    /// Finding the length is linear in the number of runs. Each value is then constant.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut names = nebula_memory::arena::TypedArena::new();
    /// names.alloc_extend(["ada", "bob"]);
    /// let mut values = names.iter_mut();
    /// assert_eq!(values.len(), 2);
    /// assert_eq!(values.next(), Some(&mut "ada"));
    /// assert_eq!(values.len(), 1);
    /// ```
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut T> + FusedIterator {
        let (this, left) = (&*self, self.len());
        // SAFETY: the arena is borrowed uniquely, so no other code refers to its values.
        let values = this.slices().flat_map(|values| unsafe { &mut *values.as_ptr() });
        Counted { values: values.fuse(), left }
    }

    /// Drops every value and keeps the chunks. If a drop panics, the other values are still
    /// dropped.
    ///
    /// # Complexity
    ///
    /// Linear in the number of values if they have something to drop, else constant.
    pub fn reset(&mut self) {
        /// Empties the arena, also when a drop panics.
        struct Clear<'a, T, A: Allocator>(&'a TypedArena<T, A>);
        impl<T, A: Allocator> Drop for Clear<'_, T, A> {
            fn drop(&mut self) {
                // SAFETY: the runs and their values were forgotten.
                unsafe { self.0.raw.clear() };
            }
        }
        let this = &*self;
        let clear = Clear(this);
        this.drop_values();
        drop(clear);
    }

    /// Drops every value and frees chunks until the remaining ones take at most `keep_bytes`
    /// together. Returns the freed bytes, which are also released to the budget.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut names = nebula_memory::arena::TypedArena::new();
    /// names.alloc_extend((0..1000).map(|i| i.to_string()));
    /// assert!(names.trim(0) >= 24_000);
    /// ```
    pub fn trim(&mut self, keep_bytes: usize) -> usize {
        self.reset();
        self.raw.trim(keep_bytes)
    }

    /// Drops every value and frees the chunks that were not needed since the last call of this
    /// method. See [`Arena::trim_to_high_water`](super::Arena::trim_to_high_water).
    ///
    /// # Examples
    ///
    /// ```
    /// let options = nebula_memory::arena::Arena::options().max_chunk_bytes(4096);
    /// let mut names = options.build_typed()?;
    /// (0..1000).for_each(|i| { names.alloc(i.to_string()); });
    /// assert_eq!(names.trim_to_high_water(), 0, "all was needed");
    /// names.alloc(String::new());
    /// assert!(names.trim_to_high_water() > 10_000);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim_to_high_water(&mut self) -> usize {
        self.reset();
        self.raw.trim_to_high_water()
    }

    /// Moves the values, in the order of their allocation, into a vector. The vector is on the
    /// global heap, which no budget is charged for.
    ///
    /// # Complexity
    ///
    /// Linear in the number of values.
    ///
    /// # Examples
    ///
    /// ```
    /// let names = nebula_memory::arena::TypedArena::new();
    /// names.alloc(String::from("ada"));
    /// names.alloc_extend(["bob", "cid"].map(String::from));
    /// assert_eq!(names.into_vec(), ["ada", "bob", "cid"]);
    /// ```
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len());
        for values in self.slices() {
            let behind = all.spare_capacity_mut().as_mut_ptr().cast::<T>();
            // SAFETY: the values are initialised, and no code refers to them, as the arena was
            // moved here. The vector lies elsewhere and has room for all values.
            unsafe { values.cast::<T>().as_ptr().copy_to_nonoverlapping(behind, values.len()) };
            let len = all.len() + values.len();
            // SAFETY: the values were just written. They are the vector's from now on, as the runs
            // are forgotten below and nothing unwinds until then.
            unsafe { all.set_len(len) };
        }
        self.forget_runs();
        all
    }

    /// Returns the number of slots of the last run that hold no value.
    fn free_places(&self) -> usize {
        (self.end.get().addr().get() - self.pos.get().addr().get()) / size_of::<T>().max(1)
    }

    #[inline]
    #[track_caller]
    fn put<E: Failure>(&self, value: T) -> Allocated<'_, T, E> {
        let place = self.pos.get();
        if place == self.end.get() {
            return self.put_in_new_run(value);
        }
        // SAFETY: `place` is a slot of the last run (the invariants), so the next slot is within
        // the run or is its end.
        self.pos.set(unsafe { place.add(1) });
        // SAFETY: the slot holds no value, and no other code uses it from now on. It stays until
        // the arena is reset or dropped, for which the arena is borrowed uniquely.
        Ok(unsafe { Self::fill(place, value) })
    }

    /// Writes `value` into a slot.
    ///
    /// # Safety
    ///
    /// The slot is valid for a value for `'a`, and no other code uses it.
    #[inline]
    unsafe fn fill<'a>(mut place: NonNull<T>, value: T) -> &'a mut T {
        // SAFETY: the slot is valid for a value, as the caller says.
        unsafe { place.write(value) };
        // SAFETY: the value was just written, and no other code uses it for `'a`, as the caller
        // says.
        unsafe { place.as_mut() }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn put_in_new_run<E: Failure>(&self, value: T) -> Allocated<'_, T, E> {
        if size_of::<T>() == 0 {
            self.unsized_len.set(self.unsized_len.get().saturating_add(1));
            mem::forget(value);
            // SAFETY: a value of no bytes may lie at any aligned address. The value was forgotten,
            // so this is the only reference to it.
            return Ok(unsafe { NonNull::dangling().as_mut() });
        }
        self.add_run(1).or_fail()?;
        let place = self.pos.get();
        // SAFETY: as in `put`: the run has at least one slot.
        self.pos.set(unsafe { place.add(1) });
        // SAFETY: as in `put`.
        Ok(unsafe { Self::fill(place, value) })
    }

    #[track_caller]
    fn put_all<E: Failure>(&self, mut values: impl Iterator<Item = T>) -> Allocated<'_, [T], E> {
        if size_of::<T>() == 0 {
            // A vector of values of no bytes allocates nothing. The arena drops the values that it
            // leaks.
            let values = values.collect::<Vec<T>>().leak();
            self.unsized_len.set(self.unsized_len.get().saturating_add(values.len()));
            return Ok(values);
        }
        let mut places = Places::take(self);
        let mut next = None;
        if values.size_hint().0 <= places.capacity {
            loop {
                next = values.next();
                let Some(value) = next.take() else { return Ok(places.keep()) };
                if let Err(value) = places.push(value) {
                    next = Some(value);
                    break;
                }
            }
        }
        let mut growing = Growing::new(&self.raw, Layout::new::<Run<T>>());
        places.move_to(&mut growing).or_fail()?;
        growing.extend(next.into_iter().chain(values)).or_fail()?;
        if growing.len() == 0 {
            return Ok(&mut []);
        }
        let (block, start, len) = growing.finish().or_fail()?;
        self.link(block, len, len);
        // SAFETY: `len` values are initialised, and no other code uses them until the arena is
        // reset or dropped.
        Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Returns the layout of a run's block, and the offset of its `capacity` slots behind the head.
    fn layout(capacity: usize) -> Result<(Layout, usize), AllocationError> {
        let too_large = AllocationError::capacity_overflow("arena", capacity, size_of::<T>());
        let values = Layout::array::<T>(capacity).map_err(|_| too_large)?;
        Layout::new::<Run<T>>().extend(values).map_err(|_| too_large)
    }

    /// Ends the last run and begins one with at least `least` slots, and more if the chunk has
    /// room.
    fn add_run(&self, least: usize) -> Result<(), AllocationError> {
        let (layout, _) = Self::layout(least)?;
        let block = self.raw.alloc::<AllocationError>(layout)?;
        self.link(block, least, 0);
        Ok(())
    }

    /// Ends the last run and begins one in `block`. The caller owns the block, which is for a run
    /// of `places` slots with values in the first `used`. If the block is the newest, it grows to
    /// the end of its chunk.
    fn link(&self, block: NonNull<u8>, places: usize, used: usize) {
        let Ok((layout, offset)) = Self::layout(places) else { return };
        let (mut block, mut capacity) = (block, places);
        if self.raw.bump.is_newest(block, layout.size()) {
            let more = places + self.raw.free() / size_of::<T>();
            if let Ok((all, _)) = Self::layout(more)
                // SAFETY: 1. The block is the caller's, for `layout`. 2. It is replaced at once. 3.
                // A layout of more slots is no smaller.
                && let Ok(longer) = unsafe { self.raw.grow::<AllocationError>(block, layout, all) }
            {
                (block, capacity) = (longer, more);
            }
        }
        let run = block.cast::<Run<T>>();
        // SAFETY: the offset is where the values begin behind the run.
        let start = unsafe { block.add(offset) }.cast::<T>();
        // Reclaiming memory for the block runs user code, which may have changed `last`.
        let last = self.last.get();
        // SAFETY: the block begins with room for a run, aligned for it.
        unsafe { run.write(Run { next: Cell::new(None), start, len: Cell::new(used) }) };
        match last {
            Some(last) => {
                // SAFETY: a run stays until the arena is reset, and no code refers to it uniquely.
                let last = unsafe { last.as_ref() };
                last.len.set(self.len_of(last));
                last.next.set(Some(run));
            }
            None => self.first.set(Some(run)),
        }
        self.last.set(Some(run));
        // SAFETY: the first `used` slots hold values, so the offset is within the slots.
        self.pos.set(unsafe { start.add(used) });
        // SAFETY: the offset is the end of the block.
        self.end.set(unsafe { start.add(capacity) });
    }

    /// Returns the number of values in `run`.
    fn len_of(&self, run: &Run<T>) -> usize {
        let places_are_taken = self.end.get() == NonNull::dangling();
        if run.next.get().is_some() || places_are_taken {
            return run.len.get();
        }
        (self.pos.get().addr().get() - run.start.addr().get()) / size_of::<T>()
    }

    /// Returns the runs, in their order.
    fn runs(&self) -> impl Iterator<Item = &Run<T>> {
        let mut next = self.first.get();
        iter::from_fn(move || {
            // SAFETY: a run stays until the arena is reset, for which it is borrowed uniquely. No
            // code refers to the run uniquely.
            let run = unsafe { next?.as_ref() };
            next = run.next.get();
            Some(run)
        })
    }

    /// Returns the values of each run as a slice, after a slice of the values of no bytes.
    fn slices(&self) -> impl Iterator<Item = NonNull<[T]>> {
        let nowhere = NonNull::slice_from_raw_parts(NonNull::dangling(), self.unsized_len.get());
        let runs =
            self.runs().map(|run| NonNull::slice_from_raw_parts(run.start, self.len_of(run)));
        iter::once(nowhere).chain(runs)
    }

    /// Drops all values and forgets the runs. Call this only while the arena is borrowed uniquely.
    fn drop_values(&self) {
        /// Drops the remaining values when a drop panics.
        struct Rest<T, I: Iterator<Item = NonNull<[T]>>>(I);
        impl<T, I: Iterator<Item = NonNull<[T]>>> Drop for Rest<T, I> {
            fn drop(&mut self) {
                for values in self.0.by_ref() {
                    // SAFETY: the values are initialised, no code refers to them, and each slice is
                    // yielded once.
                    unsafe { ptr::drop_in_place(values.as_ptr()) };
                }
            }
        }
        if mem::needs_drop::<T>() {
            let slices: Vec<_> = self.slices().collect();
            self.forget_runs();
            let mut rest = Rest(slices.into_iter());
            for values in rest.0.by_ref() {
                // SAFETY: as in `Rest`.
                unsafe { ptr::drop_in_place(values.as_ptr()) };
            }
        } else {
            self.forget_runs();
        }
    }

    fn forget_runs(&self) {
        self.first.set(None);
        self.last.set(None);
        self.pos.set(NonNull::dangling());
        self.end.set(NonNull::dangling());
        self.unsized_len.set(0);
    }
}

impl<T, A: Allocator> Drop for TypedArena<T, A> {
    fn drop(&mut self) {
        self.drop_values();
    }
}

impl<T> Default for TypedArena<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the bytes of the arena's chunks, whether or not values fill them. Memory that the values
/// own elsewhere is not counted.
impl<T, A: Allocator> MemoryUsage for TypedArena<T, A> {
    fn used_bytes(&self) -> usize {
        self.raw.held()
    }

    fn peak_bytes(&self) -> usize {
        self.raw.peak()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.raw.max_bytes()
    }
}

impl<T, A: Allocator> Resettable for TypedArena<T, A> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<T, A: Allocator> fmt::Debug for TypedArena<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedArena")
            .field("len", &self.len())
            .field("held", &self.raw.held())
            .finish_non_exhaustive()
    }
}
