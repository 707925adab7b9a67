use super::{
    flag,
    held::Held,
    inner::{Inner, Out, Permit},
};
use crate::{
    advanced::budget::Reservation, core::error::Refused, integration::traits::Lifecycle,
    utils::sync::Ordering,
};
use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    panic::Location,
    ptr::{self, NonNull},
};
use std::sync::Arc;

/// A guard of an object that is checked out of a [`Pool`](super::Pool). When it is dropped, the object returns to the pool.
///
/// A guard borrows its pool. [`into_owned`](Self::into_owned) makes one that keeps the pool alive instead: it may
/// outlive every handle to the pool. Both may be dropped on any thread.
///
/// # Examples
///
/// ```
/// use nebula_memory::pool::{Pool, Pooled};
///
/// let pool = Pool::options("lines").build(String::new)?;
/// let mut line = pool.try_get()?;
/// line.push_str("hello");
/// assert_eq!(&line[..], "hello");
///
/// let line: Pooled<'static, _> = line.into_owned();
/// drop(pool);
/// assert_eq!(line.len(), 5);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Pooled<'p, L: Lifecycle> {
    /// # Invariants
    ///
    /// From the pool's shelf. Taken only by what consumes the guard.
    slot: ManuallyDrop<Out<L>>,
    pool: Home<'p, L>,
}

impl<L: Lifecycle> Inner<L> {
    /// Makes the guard of an object, which takes over the permit that the caller has for it.
    #[inline]
    pub(super) fn hand_out<'p>(
        self: &'p Arc<Self>,
        slot: Out<L>,
        place: &'static Location<'static>,
        permit: Option<Permit<'p>>,
    ) -> Pooled<'p, L> {
        if let Some(permit) = permit {
            permit.keep();
        }
        let guard = Pooled::new(slot, self);
        if self.flags() & flag::RECORDED != 0 {
            self.record_holder(guard.slot(), place);
        }
        guard
    }
}

type Either<'p, L> = (&'p Arc<Inner<L>>, Arc<Inner<L>>);

/// The pool of a guard, borrowed or owned, in one word. A guard of two words stays in registers.
struct Home<'p, L: Lifecycle> {
    /// # Invariants
    ///
    /// From [`Arc::as_ptr`]. With [`OWNED`] in the address it stands for a reference count of its own; otherwise the
    /// `Arc` is borrowed for `'p`.
    pool: NonNull<Inner<L>>,
    marker: PhantomData<Either<'p, L>>,
}

// SAFETY: it is one of the types in its marker.
unsafe impl<'p, L: Lifecycle> Send for Home<'p, L> where Either<'p, L>: Send {}
// SAFETY: as above.
unsafe impl<'p, L: Lifecycle> Sync for Home<'p, L> where Either<'p, L>: Sync {}

/// The bit of the address that an alignment leaves free.
const OWNED: usize = 1;

impl<'p, L: Lifecycle> Home<'p, L> {
    #[inline]
    fn borrowed(pool: &'p Arc<Inner<L>>) -> Self {
        const { assert!(align_of::<Inner<L>>() > OWNED) };
        // SAFETY: the data of an `Arc` is not at null.
        let pool = unsafe { NonNull::new_unchecked(Arc::as_ptr(pool).cast_mut()) };
        Self { pool, marker: PhantomData }
    }

    #[inline]
    fn pointer(&self) -> *const Inner<L> {
        self.pool.as_ptr().map_addr(|address| address & !OWNED)
    }

    fn is_owned(&self) -> bool {
        self.pool.addr().get() & OWNED != 0
    }

    #[inline]
    fn inner(&self) -> &Inner<L> {
        // SAFETY: the pool lives as long as its `Arc`, which is borrowed or owned.
        unsafe { &*self.pointer() }
    }

    fn into_owned(self) -> Home<'static, L> {
        let this = ManuallyDrop::new(self);
        if !this.is_owned() {
            // SAFETY: the `Arc` that the pointer comes from is borrowed.
            unsafe { Arc::increment_strong_count(this.pointer()) };
        }
        Home { pool: this.pool.map_addr(|address| address | OWNED), marker: PhantomData }
    }
}

impl<L: Lifecycle> Drop for Home<'_, L> {
    #[inline]
    fn drop(&mut self) {
        if self.is_owned() {
            // SAFETY: the pointer comes from an `Arc`, whose count it stands for.
            drop(unsafe { Arc::from_raw(self.pointer()) });
        }
    }
}

impl<'p, L: Lifecycle> Pooled<'p, L> {
    /// The slot is from the shelf of `pool`, with a permit.
    #[inline]
    pub(super) fn new(slot: Out<L>, pool: &'p Arc<Inner<L>>) -> Self {
        Self { slot: ManuallyDrop::new(slot), pool: Home::borrowed(pool) }
    }

    /// Makes a guard that does not borrow the pool but keeps it alive.
    ///
    /// # Complexity
    ///
    /// One reference count, which the threads that use owned guards share.
    #[must_use]
    pub fn into_owned(self) -> Pooled<'static, L> {
        let (slot, pool) = self.into_parts();
        Pooled { slot: ManuallyDrop::new(slot), pool: pool.into_owned() }
    }

    /// Sets the bytes that are charged for the object, in addition to its [slot](super::Pool::OBJECT_OVERHEAD).
    /// Call this before the object grows: otherwise the new bytes are charged only when the object is returned.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the object and its charge do not change.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, pool::Pool};
    ///
    /// let budget = Budget::root("process").limit(1 << 16).build()?;
    /// let pool = Pool::options("buffers").budget(&budget).build(Vec::<u8>::new)?;
    /// let mut buffer = pool.try_get()?;
    /// buffer.try_charge(4096)?;
    /// buffer.reserve_exact(4096);
    /// assert!(buffer.try_charge(1 << 20).is_err(), "more than the budget has");
    /// assert_eq!(buffer.charged(), 4096);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.held_mut().try_charge(bytes)
    }

    /// Returns the bytes that are charged for the object, without its [slot](super::Pool::OBJECT_OVERHEAD).
    #[must_use]
    pub fn charged(&self) -> usize {
        self.held().charged()
    }

    /// Removes the object from the pool for good. Returns it with the reservation of its own bytes. The pool may
    /// make another one in its place.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::{Pool, Pooled};
    ///
    /// let pool = Pool::options("buffers").build(|| vec![7u8; 16])?;
    /// let (buffer, charge) = Pooled::detach(pool.try_get()?);
    /// assert_eq!((buffer.len(), charge.size()), (16, 16));
    /// drop((buffer, charge));
    /// assert_eq!(pool.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[expect(clippy::missing_panics_doc, reason = "the slot has an object while it is out")]
    #[must_use = "dropping the object and its reservation is what `drop` does better"]
    pub fn detach(this: Self) -> (L::Object, Reservation) {
        let (slot, pool) = this.into_parts();
        pool.inner().detach(slot).expect(FULL).into_parts()
    }

    #[inline]
    pub(super) fn slot(&self) -> &Out<L> {
        &self.slot
    }

    /// Puts the object back as it is into its pool. Returns the permit, where there are permits.
    pub(super) fn put_back(self, pool: &'p Inner<L>) -> Option<Permit<'p>> {
        let (slot, _home) = self.into_parts();
        pool.forget_holder(&slot);
        pool.counts.not_given.fetch_add(1, Ordering::Relaxed);
        // Given back also if the end of another object panics.
        let permit = pool.permits.is_some().then(|| pool.permit());
        pool.put_back(slot);
        permit
    }

    fn into_parts(self) -> (Out<L>, Home<'p, L>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and its slot is not used again.
        let slot = unsafe { ManuallyDrop::take(&mut this.slot) };
        // SAFETY: nor is its pool.
        let pool = unsafe { ptr::read(&raw const this.pool) };
        (slot, pool)
    }

    #[inline]
    fn held(&self) -> &Held<L::Object> {
        // SAFETY: 1. The pool, and with it the shelf, lives as long as the guard. 2. The guard is borrowed.
        unsafe { self.slot.get() }
    }

    #[inline]
    fn held_mut(&mut self) -> &mut Held<L::Object> {
        // SAFETY: as above, borrowed uniquely.
        unsafe { self.slot.get_mut() }
    }
}

const FULL: &str = "a slot that is out has an object";

impl<L: Lifecycle> Deref for Pooled<'_, L> {
    type Target = L::Object;

    #[inline]
    fn deref(&self) -> &L::Object {
        &self.held().object
    }
}

impl<L: Lifecycle> DerefMut for Pooled<'_, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut L::Object {
        &mut self.held_mut().object
    }
}

impl<L: Lifecycle> Drop for Pooled<'_, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard is dropped, so nothing else takes it.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        self.pool.inner().take_back(slot);
    }
}

impl<L: Lifecycle> fmt::Debug for Pooled<'_, L>
where
    L::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&self.held().object).finish()
    }
}
