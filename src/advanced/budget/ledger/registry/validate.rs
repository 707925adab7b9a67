use super::{Key, Ledger, ORDERS, size_class, watch};
use core::cmp::Reverse;
use std::{collections::BTreeSet, vec::Vec};

impl Ledger {
    /// Checks the managers' counts, and the order of the children by borrowed bytes.
    pub(crate) fn validate_registry(&self, keys: &[Key]) {
        let registry = &self.registry;
        let entries = (0_u32..).zip(&registry.entries);
        let entries: Vec<_> =
            entries.filter_map(|(at, entry)| Some((at, entry.as_ref()?))).collect();
        let vacant: BTreeSet<u32> = registry.vacant.iter().copied().collect();
        assert_eq!(vacant.len(), registry.vacant.len());
        assert_eq!(vacant.len() + entries.len(), registry.entries.len());
        let resting: BTreeSet<_> =
            entries.iter().filter_map(|(at, entry)| Some((entry.rests?, *at))).collect();
        assert_eq!(registry.resting, resting);
        for key in keys {
            let (account, record) = (&self[*key], self.record(*key));
            let own: BTreeSet<u32> =
                entries.iter().filter(|(_, entry)| entry.key == *key).map(|(at, _)| *at).collect();
            let extra = record.extra.as_ref();
            let listed = extra.map_or(&[][..], |extra| &extra.managers);
            assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), own);
            let mut counts = [0; ORDERS];
            for (_, entry) in entries.iter().filter(|(_, entry)| self.is_below(entry.key, *key)) {
                counts[entry.order()] += 1;
            }
            assert_eq!(extra.map_or([0; ORDERS], |extra| extra.counts), counts);
            let has_some = counts.iter().any(|count| *count > 0);
            assert_eq!(account.watch & watch::MANAGERS != 0, has_some);
            let class = size_class(account.borrowed_bytes());
            let is_near =
                account.borrowed.abs_diff(class) < 2 && (account.borrowed == 0) == (class == 0);
            assert!(
                !has_some || account.borrowed == class || is_near,
                "{} {class}",
                account.borrowed
            );
            for order in 0..ORDERS {
                let borrowers = self.children(*key).filter(|child| {
                    let extra = self.record(*child).extra.as_ref();
                    extra.is_some_and(|extra| extra.counts[order] > 0)
                });
                let borrowers: BTreeSet<_> =
                    borrowers.map(|child| (Reverse(self[child].borrowed), child.at)).collect();
                let known = extra.map(|extra| extra.borrowers[order].clone());
                assert_eq!(known.unwrap_or_default(), borrowers);
            }
        }
    }
}
