//! An object of a pool, with its charge.
#![forbid(unsafe_code)]

use super::shelf::{Size, Slot};
use crate::{advanced::budget::Reservation, core::error::Refused, integration::traits::Lifecycle};

/// An object with its charge. The fields are dropped in this order: the memory is freed before its bytes are
/// released.
pub(super) struct Held<T> {
    pub(super) object: T,
    pub(super) charge: Reservation,
    /// The bytes that the object itself had charged when it was last returned.
    pub(super) charged_by_object: usize,
    /// When the object was made, and when it was last returned, in ns since the pool was made. Not kept up to date
    /// where no option needs them.
    pub(super) made: u64,
    pub(super) idle_since: u64,
    /// The last round of checks that has seen it.
    pub(super) checked: u32,
}

impl<T> Held<T> {
    /// Returns the charge of an object that owns `bytes` in addition to its own size. The sum saturates: no
    /// budget has so many bytes.
    pub(super) const fn cost(bytes: usize) -> usize {
        bytes.saturating_add(size_of::<Slot<Self>>())
    }

    /// Charges the object for `bytes` in addition to its own size.
    pub(super) fn try_charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.charge.try_resize(Self::cost(bytes))
    }

    /// Measures an object that was returned, and charges what it has grown by if that is free: no memory is
    /// reclaimed for it. Returns whether the object may be kept.
    #[inline]
    pub(super) fn settle<L: Lifecycle<Object = T>>(&mut self, lifecycle: &L, most: usize) -> bool {
        let bytes = lifecycle.bytes(&self.object);
        self.charged_by_object = lifecycle.charged_bytes(&self.object);
        let cost = Self::cost(bytes);
        let is_settled = cost == self.charge.size() || self.resize(cost);
        is_settled && bytes.saturating_add(self.charged_by_object) <= most
    }

    #[cold]
    fn resize(&mut self, cost: usize) -> bool {
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
}

impl<T> Size for Held<T> {
    #[inline]
    fn size(&self) -> usize {
        self.charge.size().saturating_add(self.charged_by_object)
    }
}
