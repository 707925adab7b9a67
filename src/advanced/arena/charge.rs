//! What an arena owes the ledger.
#![forbid(unsafe_code)]

use crate::core::error::Refused;

/// How hard the ledger tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Only what nobody else holds.
    Spare,
    /// What others can give up as well.
    Reclaim,
}

#[cfg(feature = "std")]
pub(super) use with_ledger::Charge;
#[cfg(not(feature = "std"))]
pub(super) use without_ledger::Charge;

#[cfg(feature = "std")]
mod with_ledger {
    use super::{Effort, Refused};
    use crate::advanced::budget::{Budget, Reservation};
    use core::cell::Cell;

    /// The reservation of an arena's chunks.
    ///
    /// It is put away whenever the ledger is asked for more: what is reclaimed then is foreign
    /// code, which may come back to this very arena.
    pub(in crate::advanced::arena) struct Charge {
        budget: Option<Budget>,
        held: Cell<Option<Reservation>>,
    }

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self { budget: None, held: Cell::new(None) }
        }

        pub(in crate::advanced::arena) fn to(budget: Option<Budget>) -> Self {
            Self { budget, held: Cell::new(None) }
        }

        /// Another of the same budget, which holds nothing: what locks its charge away reserves by
        /// this one.
        pub(in crate::advanced::arena) fn beside(&self) -> Self {
            Self::to(self.budget.clone())
        }

        /// Bytes for a chunk that is about to be made; given back unless they are
        /// [kept](Self::keep).
        pub(in crate::advanced::arena) fn reserve(
            &self,
            bytes: usize,
            effort: Effort,
        ) -> Result<Option<Reservation>, Refused> {
            let Some(budget) = &self.budget else { return Ok(None) };
            match effort {
                Effort::Spare => budget.try_reserve_spare(bytes).map(Some),
                Effort::Reclaim => budget.try_reserve(bytes).map(Some),
            }
        }

        pub(in crate::advanced::arena) fn keep(&self, more: Option<Reservation>) {
            let Some(more) = more else { return };
            let all = match self.held.take() {
                None => more,
                Some(mut held) => match held.merge(more) {
                    Ok(()) => held,
                    Err(_) => unreachable!("both were reserved from the same budget"),
                },
            };
            self.held.set(Some(all));
        }

        /// Gives back the bytes of chunks that are gone.
        pub(in crate::advanced::arena) fn release(&self, bytes: usize) {
            if let Some(mut held) = self.held.take() {
                held.shrink(bytes);
                self.held.set(Some(held));
            }
        }
    }
}

#[cfg(not(feature = "std"))]
mod without_ledger {
    use super::{Effort, Refused};

    /// Nobody counts: the ledger needs the standard library.
    pub(in crate::advanced::arena) struct Charge;

    /// Stands for the reservation.
    pub(in crate::advanced::arena) struct Nothing;

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self
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
