//! The charge of an arena's chunks on the ledger.
#![forbid(unsafe_code)]

use crate::core::error::Refused;

/// How hard the ledger tries to reserve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Effort {
    /// Reserves only bytes that no other holder has.
    Spare,
    /// Also reclaims bytes from other holders.
    Reclaim,
}

#[cfg(feature = "std")]
pub(in super::super) use with_ledger::Charge;
#[cfg(not(feature = "std"))]
pub(in super::super) use without_ledger::Charge;

#[cfg(feature = "std")]
mod with_ledger {
    use super::{Effort, Refused};
    use crate::advanced::budget::{Budget, Reservation};
    use core::{cell::Cell, mem::ManuallyDrop};

    /// The reservation of an arena's chunks, or `None` without a budget. Dropping `None` is one
    /// comparison.
    ///
    /// The reservation leaves the cell only while no user code runs. Reclaiming runs user code, and
    /// that code may use this same arena.
    pub(in crate::advanced::arena) struct Charge(ManuallyDrop<Cell<Option<Reservation>>>);

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self::of(None)
        }

        const fn of(held: Option<Reservation>) -> Self {
            Self(ManuallyDrop::new(Cell::new(held)))
        }

        pub(in crate::advanced::arena) fn to(budget: Option<Budget>) -> Self {
            // It has no bytes yet, so there is no holder to note.
            Self::of(budget.map(|budget| Reservation::of_charged(budget, 0)))
        }

        /// Returns whether there is no budget.
        #[inline]
        pub(in crate::advanced::arena) fn is_nobodys(&self) -> bool {
            self.with(|_| ()).is_none()
        }

        /// Returns another charge to the same budget, which holds nothing. An arena with its charge
        /// under a lock reserves through this one, without the lock.
        pub(in crate::advanced::arena) fn beside(&self) -> Self {
            Self::to(self.with(|held| held.budget().clone()))
        }

        /// Calls `look` with the reservation, if there is a budget. `look` runs no user code.
        #[inline]
        fn with<R>(&self, look: impl FnOnce(&mut Reservation) -> R) -> Option<R> {
            let mut held = self.0.take();
            let result = held.as_mut().map(look);
            self.0.set(held);
            result
        }

        /// Reserves bytes for a chunk that is about to be made. They are released again unless they
        /// are [kept](Self::keep).
        pub(in crate::advanced::arena) fn reserve(
            &self,
            bytes: usize,
            effort: Effort,
        ) -> Result<Option<Reservation>, Refused> {
            match effort {
                Effort::Spare => self.with(|held| held.budget().try_reserve_spare(bytes)),
                Effort::Reclaim => {
                    let budget = self.with(|held| held.budget().clone());
                    budget.map(|budget| budget.try_reserve(bytes))
                }
            }
            .transpose()
        }

        pub(in crate::advanced::arena) fn keep(&self, more: Option<Reservation>) {
            let Some(mut more) = more else { return };
            // Mostly empty: most arenas have a single chunk.
            if let Some(held) = self.0.take().filter(|held| held.size() > 0)
                && more.merge(held).is_err()
            {
                unreachable!("both were reserved from the same budget");
            }
            self.0.set(Some(more));
        }

        /// Releases the bytes of chunks that were freed. The caller has the arena for itself.
        pub(in crate::advanced::arena) fn release(&self, bytes: usize) {
            self.with(|held| held.shrink(bytes));
        }
    }

    impl Drop for Charge {
        /// Drops the reservation by hand, so that code which drops an arena contains only a
        /// comparison.
        #[inline]
        fn drop(&mut self) {
            if let Some(held) = self.0.take() {
                close(held);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn close(held: Reservation) {
        drop(held);
    }
}

#[cfg(not(feature = "std"))]
mod without_ledger {
    use super::{Effort, Refused};

    /// A charge that counts nothing: the ledger needs the standard library.
    pub(in crate::advanced::arena) struct Charge;

    /// Takes the place of the reservation.
    pub(in crate::advanced::arena) struct Nothing;

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the ledger's contract")]
        pub(in crate::advanced::arena) fn is_nobodys(&self) -> bool {
            true
        }

        #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the ledger's contract")]
        pub(in crate::advanced::arena) fn reserve(
            &self,
            _bytes: usize,
            _effort: Effort,
        ) -> Result<Nothing, Refused> {
            Ok(Nothing)
        }

        #[expect(clippy::unused_self, reason = "the ledger's contract")]
        pub(in crate::advanced::arena) fn keep(&self, _more: Nothing) {}

        #[expect(clippy::unused_self, reason = "the ledger's contract")]
        pub(in crate::advanced::arena) fn release(&self, _bytes: usize) {}
    }
}
