//! Whether a component should give its idle memory back.

use super::Budget;

impl Budget {
    /// Returns whether bytes that are released here lower a node that has more than its limit: this one, or
    /// one above. A closed node counts as one with a limit of 0.
    ///
    /// Components that keep idle memory ask it when memory becomes idle. Below a guarantee the answer is no:
    /// bytes that are released there stay charged to the nodes above.
    pub(crate) fn is_over_limit(&self) -> bool {
        let ledger = self.node.ledger();
        if ledger[self.node.key()].is_closed {
            return true;
        }
        for (_, account) in ledger.path(self.node.key()) {
            if account.charged > account.limit {
                return true;
            }
            if account.charged <= account.guarantee {
                return false;
            }
        }
        false
    }
}
