use super::{Inner, Slot};
use crate::{advanced::budget::Reservation, core::error::Refused, integration::traits::Lifecycle};
use core::{
    fmt,
    ops::{Deref, DerefMut},
};
use std::sync::Arc;

/// A guard of an object that is checked out of a pool. When it is dropped, the object returns to the pool.
///
/// The guard keeps the pool alive. It may outlive every handle to the pool, and may be dropped on any thread.
///
/// # Examples
///
/// ```
/// use nebula_memory::pool::Pool;
///
/// let pool = Pool::options("lines").build(String::new)?;
/// let mut line = pool.try_get()?;
/// line.push_str("hello");
/// assert_eq!(&line[..], "hello");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct Pooled<L: Lifecycle> {
    /// # Invariants
    ///
    /// `Some` until `drop` or `detach` takes it.
    slot: Option<Slot<L::Object>>,
    pool: Arc<Inner<L>>,
}

impl<L: Lifecycle> Pooled<L> {
    pub(super) fn new(slot: Slot<L::Object>, pool: Arc<Inner<L>>) -> Self {
        Self { slot: Some(slot), pool }
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
        self.slot_mut().try_charge(bytes)
    }

    /// Returns the bytes that are charged for the object, without its [slot](super::Pool::OBJECT_OVERHEAD).
    #[must_use]
    pub fn charged(&self) -> usize {
        self.slot().charge.size() - Slot::<L::Object>::cost(0)
    }

    /// Removes the object from the pool for good. Returns it with the reservation of its own bytes.
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
    #[expect(clippy::missing_panics_doc, reason = "the slot is there until the guard is gone")]
    #[must_use = "dropping the object and its reservation is what `drop` does better"]
    pub fn detach(mut this: Self) -> (L::Object, Reservation) {
        let Slot { object, mut charge, .. } = this.slot.take().expect(HELD);
        charge.shrink(Slot::<L::Object>::cost(0));
        (object, charge)
    }

    fn slot(&self) -> &Slot<L::Object> {
        self.slot.as_ref().expect(HELD)
    }

    fn slot_mut(&mut self) -> &mut Slot<L::Object> {
        self.slot.as_mut().expect(HELD)
    }
}

const HELD: &str = "a guard holds its object until it is dropped";

impl<L: Lifecycle> Deref for Pooled<L> {
    type Target = L::Object;

    fn deref(&self) -> &L::Object {
        &self.slot().object
    }
}

impl<L: Lifecycle> DerefMut for Pooled<L> {
    fn deref_mut(&mut self) -> &mut L::Object {
        &mut self.slot_mut().object
    }
}

impl<L: Lifecycle> Drop for Pooled<L> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pool.take_back(slot);
        }
    }
}

impl<L: Lifecycle> fmt::Debug for Pooled<L>
where
    L::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&self.slot().object).finish()
    }
}
