//! Checks every invariant of the ledger.

use super::{
    Key, Ledger,
    account::{Account, NONE, watch},
};
use std::{collections::BTreeSet, vec::Vec};

impl Ledger {
    /// Checks every invariant of the ledger, each against a sum over all that it knows.
    ///
    /// # Panics
    ///
    /// Where one does not hold.
    pub(crate) fn validate(&self) {
        assert_eq!(self.accounts.len(), self.records.len());
        let keys = self.live_keys();
        let vacant: BTreeSet<u32> = self.vacant.iter().map(|at| at.0).collect();
        for (at, record) in (0_u32..).zip(&self.records) {
            assert!(record.is_some() || vacant.contains(&at), "{at} is used again");
        }
        assert!(!matches!(self.records.last(), Some(None)), "the lists become shorter");
        for key in &keys {
            self.validate_node(*key, &keys);
        }
        assert_eq!(self.undrawn, keys.iter().map(|key| self[*key].slack()).sum::<usize>());
        let declared = keys.iter().filter(|key| self.record(**key).workers > 0).count();
        assert_eq!(self.declared, declared);
        let tracked = keys.iter().filter(|key| self.record(**key).shared.tasks.get().is_some());
        assert_eq!(self.tracked, tracked.count());
        self.validate_lines(&keys);
        self.validate_waits(&keys);
        self.validate_registry(&keys);
    }

    fn live_keys(&self) -> Vec<Key> {
        let records = (0_u32..).zip(&self.records);
        records.filter_map(|(at, record)| Some(Key { id: record.as_ref()?.id, at })).collect()
    }

    fn validate_node(&self, key: Key, keys: &[Key]) {
        let (account, record) = (&self[key], self.record(key));
        let below: BTreeSet<u32> =
            keys.iter().filter(|child| self[**child].parent == key.at).map(|key| key.at).collect();
        let listed: Vec<Key> = self.children(key).collect();
        assert_eq!(listed.iter().map(|key| key.at).collect::<BTreeSet<_>>(), below);
        let mut previous = NONE;
        for child in &listed {
            assert_eq!(self.record(*child).previous, previous, "the list goes both ways");
            previous = child.at;
            let child = &self[*child];
            assert_eq!(child.depth, account.depth + 1);
            assert!(child.is_closed || !account.is_closed, "open below a closed node");
        }
        assert_eq!(record.last_child, previous);
        let draws = |hidden: bool| {
            let children = listed.iter().map(|child| &self[*child]);
            let children = children.filter(move |child| child.is_hidden == hidden);
            children.map(Account::drawn_above).sum::<usize>()
        };
        assert_eq!(account.drawn, draws(false), "drawn by children of {key:?}");
        let aside = if account.parent == NONE { self.set_aside } else { 0 };
        let credit = record.shared.line.free();
        assert!(account.charged >= account.drawn + draws(true) + aside + credit, "{key:?}");
        assert!(account.guarantee <= account.limit || account.limit < self.guaranteed(key));
        let promises = listed.iter().map(|child| self.promises(*child));
        let (all, lasting) = promises.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!((record.guaranteed_below, record.lasting_below), (all, lasting));
        let divides = record.sharing().divides_by_weight();
        for child in &listed {
            let is_active = self[*child].charged > 0 || self.record(*child).waiting > 0;
            let counts = divides && !self[*child].is_hidden;
            assert_eq!(self[*child].is_active, counts && is_active, "{child:?}");
            assert_eq!(self[*child].watch & watch::SHARES != 0, counts);
        }
        let active = listed.iter().filter(|child| self[**child].is_active);
        let weights: u64 = active.map(|child| u64::from(self.record(*child).weight)).sum();
        let known = record.extra.as_ref().map_or(0, |extra| extra.active_weight);
        assert_eq!(known, weights, "the weights of the active children");
        let stranded: usize = listed.iter().map(|child| self.record(*child).stranded).sum();
        assert!(record.stranded >= stranded, "unused credit of buffered reservations");
    }
}
