//! The memory of the structures, with its charge on the ledger.
#![forbid(unsafe_code)]

use crate::{
    advanced::budget::{Budget, Reservation},
    core::AllocationError,
};
use alloc::{boxed::Box, vec::Vec};
use core::alloc::Layout;

/// The memory that a structure allocates, and the budget that is charged for it.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) component: &'static str,
    /// The bytes that are charged in addition to the slots.
    pub(super) beside: usize,
    pub(super) budget: Option<&'a Budget>,
}

impl Plan<'_> {
    /// Charges the budget for `len` slots, then allocates room for them.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]; nothing stays allocated or charged.
    pub(super) fn room<S>(
        self,
        len: usize,
    ) -> Result<(Vec<S>, Option<Reservation>), AllocationError> {
        let too_large = AllocationError::capacity_overflow(self.component, len, size_of::<S>());
        let slots = Layout::array::<S>(len).map_err(|_| too_large)?;
        let bytes = slots.size().checked_add(self.beside).ok_or(too_large)?;
        let charge = self.budget.map(|budget| budget.try_reserve(bytes)).transpose()?;
        let mut room = Vec::new();
        let exhausted = |_| AllocationError::exhausted(self.component, slots.size(), None);
        room.try_reserve_exact(len).map_err(exhausted)?;
        Ok((room, charge))
    }

    /// Like [`room`](Self::room), with a slot from `make` at each index.
    pub(super) fn slots<S>(
        self,
        len: usize,
        make: impl FnMut(usize) -> S,
    ) -> Result<(Box<[S]>, Option<Reservation>), AllocationError> {
        let (mut slots, charge) = self.room(len)?;
        slots.extend((0..len).map(make));
        Ok((slots.into_boxed_slice(), charge))
    }

    /// Returns the number of slots for `capacity` elements of type `S`: the next power of two.
    ///
    /// # Errors
    ///
    /// [`AllocationError::CapacityOverflow`] if there is no such power of two.
    pub(super) fn rounded<S>(self, capacity: usize) -> Result<usize, AllocationError> {
        let too_large =
            AllocationError::capacity_overflow(self.component, capacity, size_of::<S>());
        capacity.max(1).checked_next_power_of_two().ok_or(too_large)
    }
}
