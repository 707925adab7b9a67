//! What the nodes of a tree share.

use super::ledger::Ledger;
use crate::utils::sync::{Mutex, MutexGuard, lock};
use crossbeam_utils::CachePadded;
use std::thread::Thread;

#[derive(Debug, Default)]
pub(super) struct Tree {
    ledger: CachePadded<Mutex<Ledger>>,
    /// The thread that acts for those who wait, while there are any. Locked before the ledger.
    pub(super) arbitrator: Mutex<Option<Thread>>,
}

impl Tree {
    /// The ledger. Foreign code never runs while it is locked.
    #[inline]
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}
