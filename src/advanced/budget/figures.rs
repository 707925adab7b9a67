//! The few figures that a controller reads hundreds of times a second.

use super::{
    Budget, builder,
    ledger::{Key, Ledger},
};
use crate::{core::MemoryError, utils::service::hand_over};

/// The figures of a node that decide about pressure and about the process's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Bytes that the node is charged, guarantees of its children included.
    pub(crate) used: usize,
    /// Of [`used`](Self::used), bytes of guarantees below the node that nobody uses.
    pub(crate) undrawn: usize,
    /// Bytes that are guaranteed to the node, or to those below it where they are more.
    pub(crate) guaranteed: usize,
    /// Requests that wait in the whole tree.
    pub(crate) waiting: usize,
    /// Whether one of them waits for bytes of this node.
    pub(crate) is_blocked: bool,
    /// Requests that were refused for good since the node was made, at it and below it.
    pub(crate) refused: u64,
}

impl Budget {
    /// Reads the figures of this node, all at one moment.
    ///
    /// Constant time for a root; linear in the nodes below another.
    pub(crate) fn figures(&self) -> Figures {
        let ledger = self.node.ledger();
        let key = self.node.key();
        Figures {
            used: ledger.used(key),
            undrawn: undrawn(&ledger, key),
            guaranteed: ledger.guaranteed(key),
            waiting: ledger.waiters.len(),
            is_blocked: ledger.blocked_at(key).is_some(),
            refused: ledger.record(key).refused,
        }
    }

    /// Sets the limit, if it was set `times` times before, and reclaims nothing. Returns the bytes that
    /// the node holds beyond the limit; `None` where somebody else has set the limit since.
    ///
    /// Runs no foreign code: for a thread that has to be on time. The wakers of requests that fit now are
    /// called on another.
    pub(crate) fn move_limit(
        &self,
        times: u32,
        bytes: usize,
    ) -> Result<Option<usize>, MemoryError> {
        let key = self.node.key();
        let mut ledger = self.node.ledger();
        if ledger.record(key).limits_set != times {
            return Ok(None);
        }
        builder::check_bounds(bytes, ledger[key].guarantee)?;
        let woken = ledger.set_limit(key, bytes);
        let excess = ledger.used(key).saturating_sub(bytes);
        drop(ledger);
        if excess > 0 {
            self.node.tree().note_excess();
        }
        if !woken.is_empty() {
            hand_over(move || woken.wake());
        }
        Ok(Some(excess))
    }
}

/// Bytes of the guarantees below `key` that nobody uses.
fn undrawn(ledger: &Ledger, key: Key) -> usize {
    if ledger.parent(key).is_none() {
        return ledger.undrawn();
    }
    let below = ledger.children(key).map(|child| ledger[child].slack() + undrawn(ledger, child));
    below.sum()
}
