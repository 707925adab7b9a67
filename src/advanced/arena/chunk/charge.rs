//! The bytes that an arena is charged for on the ledger.
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
    use alloc::boxed::Box;
    use core::{cell::Cell, mem::ManuallyDrop};

    /// The reservation of an arena's chunks. Without a budget it is one word, and has nothing to
    /// drop.
    pub(in crate::advanced::arena) struct Charge(ManuallyDrop<Option<Box<Account>>>);

    struct Account {
        budget: Budget,
        /// The reservation stays in the cell while more bytes are reserved: reclaiming runs user
        /// code, and that code may use this same arena.
        held: Cell<Option<Reservation>>,
    }

    impl Charge {
        pub(in crate::advanced::arena) const fn nobody() -> Self {
            Self(ManuallyDrop::new(None))
        }

        /// Returns whether there is no budget.
        #[inline]
        pub(in crate::advanced::arena) fn is_nobodys(&self) -> bool {
            self.0.is_none()
        }

        pub(in crate::advanced::arena) fn to(budget: Option<Budget>) -> Self {
            let account = budget.map(|budget| Box::new(Account { budget, held: Cell::new(None) }));
            Self(ManuallyDrop::new(account))
        }

        /// Returns another charge to the same budget, which holds nothing. An arena with its charge
        /// under a lock reserves through this one, without the lock.
        pub(in crate::advanced::arena) fn beside(&self) -> Self {
            Self::to(self.0.as_ref().map(|account| account.budget.clone()))
        }

        /// Reserves bytes for a chunk that is about to be made. They are released again unless they
        /// are [kept](Self::keep).
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

        /// Releases the bytes of chunks that were freed.
        pub(in crate::advanced::arena) fn release(&self, bytes: usize) {
            let Some(account) = &*self.0 else { return };
            if let Some(mut held) = account.held.take() {
                held.shrink(bytes);
                account.held.set(Some(held));
            }
        }
    }

    impl Drop for Charge {
        /// Drops the account by hand, so that code which drops an arena contains only a comparison.
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
