//! An object of a pool, with its charge.
#![forbid(unsafe_code)]

use super::shelf::Slot;
use crate::{advanced::budget::Reservation, core::error::Refused, integration::traits::Lifecycle};

/// An object with its charge. The fields are dropped in this order: the memory is freed before its bytes are
/// released.
pub(super) struct Held<T> {
    pub(super) object: T,
    charge: Reservation,
    /// The charge, and the bytes that the object itself had charged when it was last measured.
    size: usize,
    /// With this size it may be kept.
    is_accepted: bool,
}

impl<T> Held<T> {
    /// Measures a new object, and changes its charge from the estimate to the measured bytes.
    ///
    /// # Errors
    ///
    /// If the ledger has no room for its bytes; it is then destroyed.
    pub(super) fn new<L: Lifecycle<Object = T>>(
        object: T,
        charge: Reservation,
        lifecycle: &L,
    ) -> Result<Self, Refused> {
        let bytes = lifecycle.bytes(&object);
        let mut held = Self::charged_for(object, charge);
        if let Err(refused) = held.try_charge(bytes) {
            held.destroy(lifecycle);
            return Err(refused);
        }
        held.size = held.charge.size();
        Ok(held)
    }

    /// An object that was measured already: its charge is right.
    pub(super) fn charged_for(object: T, charge: Reservation) -> Self {
        let size = charge.size();
        Self { object, charge, size, is_accepted: false }
    }

    /// Returns the charge of an object that owns `bytes` in addition to its own size. The sum saturates: no
    /// budget has so many bytes.
    pub(super) const fn cost(bytes: usize) -> usize {
        bytes.saturating_add(size_of::<Slot<Self>>())
    }

    /// Charges the object for `bytes` in addition to its own size.
    pub(super) fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.charge.try_resize(Self::cost(bytes))
    }

    /// The bytes that are released when the object is destroyed, as last measured.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// The bytes that are charged for the object in addition to its own size.
    pub(super) const fn charged(&self) -> usize {
        self.charge.size() - Self::cost(0)
    }

    /// Measures an object that was returned, and changes its charge. Bytes that it has grown by are charged only if they
    /// are free: nothing is reclaimed for them. Returns whether the object may be kept, which has at most `most` bytes.
    #[inline]
    pub(super) fn settle<L: Lifecycle<Object = T>>(&mut self, lifecycle: &L, most: usize) -> bool {
        let bytes = lifecycle.bytes(&self.object);
        let by_object = lifecycle.charged_bytes(&self.object);
        let cost = Self::cost(bytes);
        if self.is_accepted
            && cost == self.charge.size()
            && cost.checked_add(by_object) == Some(self.size)
        {
            return true;
        }
        self.measure(cost, by_object, most)
    }

    #[cold]
    #[inline(never)]
    fn measure(&mut self, cost: usize, by_object: usize, most: usize) -> bool {
        let Some(size) = cost.checked_add(by_object) else { return false };
        self.is_accepted = size - Self::cost(0) <= most;
        if !self.is_accepted {
            return false;
        }
        self.size = size;
        match cost.checked_sub(self.charge.size()) {
            Some(more) => self.charge.try_grow_spare(more).is_ok(),
            None => self.charge.try_resize(cost).is_ok(),
        }
    }

    /// Destroys the object, then releases its bytes.
    pub(super) fn destroy<L: Lifecycle<Object = T>>(self, lifecycle: &L) {
        let Self { object, charge, .. } = self;
        lifecycle.destroy(object);
        drop(charge);
    }

    /// The object, and the charge for its bytes without its own size.
    pub(super) fn into_parts(self) -> (T, Reservation) {
        let Self { object, mut charge, .. } = self;
        charge.shrink(Self::cost(0));
        (object, charge)
    }
}
