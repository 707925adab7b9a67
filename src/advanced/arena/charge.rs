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
    use alloc::boxed::Box;
    use core::{cell::Cell, mem::ManuallyDrop};

    /// The reservation of an arena's chunks; one word, and nothing to drop, for an arena on no budget.
    pub(in crate::advanced::arena) struct Charge(ManuallyDrop<Option<Box<Account>>>);

    struct Account {
        budget: Budget,
        /// It is put away whenever the ledger is asked for more: what is reclaimed then is foreign
        /// code, which may come back to this very arena.
        held: Cell<Option<Reservation>>,
    }

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self(ManuallyDrop::new(None))
        }

        /// Whether there is no budget.
        #[inline]
        pub(in crate::advanced::arena) fn is_nobodys(&self) -> bool {
            self.0.is_none()
        }

        pub(in crate::advanced::arena) fn to(budget: Option<Budget>) -> Self {
            let account = budget.map(|budget| Box::new(Account { budget, held: Cell::new(None) }));
            Self(ManuallyDrop::new(account))
        }

        /// Another of the same budget, which holds nothing: what locks its charge away reserves by
        /// this one.
        pub(in crate::advanced::arena) fn beside(&self) -> Self {
            Self::to(self.0.as_ref().map(|account| account.budget.clone()))
        }

        /// Bytes for a chunk that is about to be made; given back unless they are
        /// [kept](Self::keep).
        pub(in crate::advanced::arena) fn reserve(
            &self,
            bytes: usize,
            effort: Effort,
        ) -> Result<Option<Reservation>, Refused> {
            let Some(account) = &*self.0 else { return Ok(None) };
            match effort {
                Effort::Spare => account.budget.try_reserve_spare(bytes).map(Some),
                Effort::Reclaim => account.budget.try_reserve(bytes).map(Some),
            }
        }

        pub(in crate::advanced::arena) fn keep(&self, more: Option<Reservation>) {
            let (Some(account), Some(more)) = (&*self.0, more) else { return };
            let all = match account.held.take() {
                None => more,
                Some(mut held) => match held.merge(more) {
                    Ok(()) => held,
                    Err(_) => unreachable!("both were reserved from the same budget"),
                },
            };
            account.held.set(Some(all));
        }

        /// Gives back the bytes of chunks that are gone.
        pub(in crate::advanced::arena) fn release(&self, bytes: usize) {
            let Some(account) = &*self.0 else { return };
            if let Some(mut held) = account.held.take() {
                held.shrink(bytes);
                account.held.set(Some(held));
            }
        }
    }

    impl Drop for Charge {
        /// By hand, so that only a comparison is compiled into whoever drops an arena.
        #[inline]
        fn drop(&mut self) {
            if let Some(account) = self.0.take() {
                close(account);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn close(account: Box<Account>) {
        drop(account);
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
