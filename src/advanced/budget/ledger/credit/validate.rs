use super::{Key, LINES_MOST, Ledger};
use std::collections::BTreeSet;

impl Ledger {
    /// Checks the lists of open lines and of nodes with stranded credit.
    pub(crate) fn validate_lines(&self, keys: &[Key]) {
        let lines = &self.lines;
        assert!(lines.open.len() <= LINES_MOST && lines.stranded.len() <= LINES_MOST);
        assert_eq!(lines.open.len(), lines.seen.len());
        let open: BTreeSet<Key> = lines.open.iter().copied().collect();
        assert_eq!(open.len(), lines.open.len(), "a line is listed once");
        for (at, key) in lines.open.iter().enumerate() {
            assert_eq!(usize::from(self.record(*key).open_at), at);
        }
        if !self.waiters.is_empty() {
            assert!(open.is_empty(), "a line is open while requests wait");
        }
        for key in keys {
            let account = &self[*key];
            assert_eq!(account.is_open, open.contains(key));
            assert!(account.is_open || self.record(*key).shared.line.free() == 0);
            assert!(!(account.is_open && account.is_closed), "credit of a closed node");
            let below = open.iter().filter(|line| self.is_below(**line, *key)).count();
            assert_eq!(usize::from(account.lines_below), below);
            if self.record(*key).stranded > 0 {
                let is_listed = |other: &Key| self.has(*other) && self.is_below(*other, *key);
                assert!(lines.stranded.iter().any(is_listed), "nobody would recall it");
            }
        }
        let listed: BTreeSet<Key> = lines.stranded.iter().copied().collect();
        assert_eq!(listed.len(), lines.stranded.len(), "a node is listed once");
    }
}
