//! Changes of an existing node: its limit, its guarantee, and its closing.

use super::{Binding, Key, Ledger, Woken};

impl Ledger {
    /// Refuses every charge at and below the node from now on, and the requests that wait there.
    pub(crate) fn close(&mut self, key: Key) -> Woken {
        self.close_below(key);
        self.recall_below(key);
        let mut woken = self.refuse_hopeless(key);
        woken.join(self.serve());
        woken
    }

    pub(super) fn close_below(&mut self, key: Key) {
        let mut left = std::vec![key];
        while let Some(key) = left.pop() {
            self.settle(key);
            self[key].is_closed = true;
            left.extend(self.children(key));
        }
    }

    /// Sets the limit. If it is below the charged bytes, no request is admitted until they fit.
    pub(crate) fn set_limit(&mut self, key: Key, limit: usize) -> Woken {
        let before = core::mem::replace(&mut self[key].limit, limit);
        if limit < self[key].charged || limit < before / 2 {
            // No credit is a way around the limit, and none is out of proportion to it.
            self.settle_below(key);
            self.recall_below(key);
        } else {
            self.recall_beyond_share(key);
        }
        let record = self.record_mut(key);
        record.limits_set = record.limits_set.wrapping_add(1);
        if self.waiters.is_empty() {
            return Woken::default();
        }
        self.follow_up(key.at);
        let mut woken = Woken::default();
        if limit < before && self.may_have_larger(key) {
            woken = self.refuse_hopeless(key);
        }
        woken.join(self.serve());
        woken
    }

    /// Sets the guarantee of the node, and charges the parent for it.
    pub(crate) fn set_guarantee(&mut self, key: Key, guarantee: usize) -> Result<Woken, Binding> {
        let Some(parent) = self.parent(key) else { return Ok(Woken::default()) };
        // What is charged must not become less while the parent is charged for it.
        self.settle_below(key);
        let promised = self.promises(key);
        let more = guarantee.max(self[key].charged).saturating_sub(self[key].drawn_above());
        if more > 0 {
            self.admit(parent, more, None)?;
            self.settle(parent);
        }
        // Not before: an admission may let requests of the node go on.
        let before = self[key].drawn_above();
        self.undrawn -= self[key].slack();
        let is_less = guarantee < self[key].guarantee;
        self[key].guarantee = guarantee;
        self.undrawn += self[key].slack();
        self.promise(key, promised);
        let after = self[key].drawn_above();
        self[parent].drawn = self[parent].drawn - before + after;
        self.release(parent, before + more - after);
        self.follow_up(key.at);
        // With a larger guarantee, requests of the node may pass requests that wait above. With a smaller one, a
        // request may have become too large.
        let mut woken = if is_less { self.refuse_hopeless(key) } else { Woken::default() };
        woken.join(self.serve());
        Ok(woken)
    }
}
