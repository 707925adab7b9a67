//! The used and free parts of the spill file. This is only arithmetic.

use std::collections::BTreeMap;

/// The used parts of a file, and the holes between them.
///
/// ```text
///  0 ──────────────────────────────────── end ─ ─ ─ ─ ─ limit
///  │ in use │ hole │ in use │ hole │ in use │
/// ```
///
/// # Invariants
///
/// - No hole is empty, no two holes overlap or touch, and no hole ends beyond `end`.
/// - `end` is at most `limit`.
/// - `used` is `end` minus the holes.
#[derive(Debug)]
pub(super) struct Space {
    /// The lengths of the holes, by their positions.
    holes: BTreeMap<u64, u64>,
    end: u64,
    limit: u64,
    used: u64,
}

impl Space {
    pub(super) const fn new(limit: u64) -> Self {
        Self { holes: BTreeMap::new(), end: 0, limit, used: 0 }
    }

    /// Takes `len` bytes, which must be more than 0: from the first hole that is large enough, otherwise at the
    /// end. Returns their position, or `None` if they would end beyond the limit.
    ///
    /// Linear in the number of holes.
    pub(super) fn take(&mut self, len: u64) -> Option<u64> {
        debug_assert!(len > 0);
        let fits = self.holes.iter().find(|(_, hole)| **hole >= len);
        let at = if let Some((&at, &hole)) = fits {
            self.holes.remove(&at);
            if hole > len {
                self.holes.insert(at + len, hole - len);
            }
            at
        } else {
            let at = self.tail().unwrap_or(self.end);
            let end = at.checked_add(len).filter(|end| *end <= self.limit)?;
            self.holes.remove(&at);
            self.end = end;
            at
        };
        self.used += len;
        Some(at)
    }

    /// Makes a hole of `len` bytes at `at`, as [`take`](Self::take) returned it for this length.
    pub(super) fn give_back(&mut self, mut at: u64, mut len: u64) {
        self.used -= len;
        if let Some(behind) = self.holes.remove(&(at + len)) {
            len += behind;
        }
        if let Some((&before, &hole)) = self.holes.range(..at).next_back()
            && before + hole == at
        {
            at = before;
            len += hole;
        }
        self.holes.insert(at, len);
    }

    /// Returns the position of the last hole, if nothing is behind it.
    pub(super) fn tail(&self) -> Option<u64> {
        let (&at, &hole) = self.holes.last_key_value()?;
        (at + hole == self.end).then_some(at)
    }

    /// Notes that the file was truncated at [`tail`](Self::tail).
    pub(super) fn cut_tail(&mut self) {
        if let Some(at) = self.tail() {
            self.holes.remove(&at);
            self.end = at;
        }
    }

    /// Returns the bytes in use.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Returns the length of the file, in use or not.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Returns the largest length of the file.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Checks the invariants.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub(super) fn validate(&self) {
        let mut free = 0;
        let mut border = None;
        for (&at, &hole) in &self.holes {
            assert!(hole > 0, "the hole at {at} is empty");
            assert!(border.is_none_or(|border| border < at), "the hole at {at} touches another");
            free += hole;
            border = Some(at + hole);
        }
        assert!(border.is_none_or(|border| border <= self.end), "a hole reaches beyond the end");
        assert!(self.end <= self.limit, "{} bytes of at most {}", self.end, self.limit);
        assert_eq!(self.used + free, self.end, "bytes in use and holes are the whole file");
    }
}

#[cfg(test)]
mod tests {
    use super::Space;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    #[test]
    fn the_first_hole_that_fits_is_used_first() {
        let mut space = Space::new(100);
        let [a, b, c, d] = [10, 30, 20, 40].map(|len| space.take(len).unwrap());
        assert_eq!((a, b, c, d, space.take(1)), (0, 10, 40, 60, None));
        space.give_back(a, 10);
        space.give_back(c, 20);
        assert_eq!(space.take(15), Some(40), "the first has 10 bytes");
        assert_eq!(space.take(10), Some(0));
        assert_eq!(space.take(6), None, "5 are left");
        assert_eq!(space.take(5), Some(55));
        space.give_back(b, 30);
        assert_eq!((space.used(), space.end(), space.tail()), (70, 100, None));
        space.give_back(d, 40);
        assert_eq!(space.tail(), Some(60));
        space.cut_tail();
        assert_eq!((space.used(), space.end()), (30, 60));
        space.validate();
    }

    #[test]
    fn a_tail_that_was_not_cut_off_is_grown_into() {
        let mut space = Space::new(100);
        let (_, last) = (space.take(40).unwrap(), space.take(10).unwrap());
        space.give_back(last, 10);
        assert_eq!((space.take(61), space.take(60)), (None, Some(40)));
        space.validate();
    }

    #[test]
    fn a_length_that_overflows_does_not_fit() {
        let mut space = Space::new(u64::MAX);
        assert_eq!(space.take(10), Some(0));
        assert_eq!(space.take(u64::MAX), None);
        space.validate();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        /// A map of every byte of the file: no byte has two owners, none is lost, and each buffer gets the
        /// position that a search from the beginning finds.
        #[test]
        fn space_is_as_a_map_of_its_bytes(
            limit in 1_usize..200,
            steps in prop::collection::vec((0..5_u8, 1..60_usize), 1..120),
        ) {
            let mut space = Space::new(limit as u64);
            let mut owners: Vec<Option<usize>> = Vec::new();
            let mut taken: Vec<(usize, u64, usize)> = Vec::new();
            for (id, (step, len)) in steps.into_iter().enumerate() {
                if step < 3 || taken.is_empty() {
                    // The first run of free bytes that is long enough, or that reaches the end.
                    let free = |at: usize| owners[at..].iter().take_while(|owner| owner.is_none()).count();
                    let fits = |at: &usize| free(*at) >= len || at + free(*at) == owners.len();
                    let inside = (0..owners.len()).find(|at| free(*at) >= len);
                    let at = inside.or_else(|| (0..=owners.len()).find(fits)).unwrap();
                    match space.take(len as u64) {
                        None => prop_assert!(at + len > limit),
                        Some(found) => {
                            prop_assert_eq!(found, at as u64);
                            owners.resize(owners.len().max(at + len), None);
                            owners[at..at + len].fill(Some(id));
                            taken.push((id, found, len));
                        }
                    }
                } else {
                    let (id, at, len) = taken.swap_remove(len % taken.len());
                    space.give_back(at, len as u64);
                    let at = usize::try_from(at).unwrap();
                    prop_assert_eq!(&owners[at..at + len], &vec![Some(id); len]);
                    owners[at..at + len].fill(None);
                    // Like a file that cannot always be truncated.
                    if step == 3 {
                        space.cut_tail();
                        let end = owners.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                        owners.truncate(end);
                    }
                }
                space.validate();
                prop_assert_eq!(space.end(), owners.len() as u64);
                let used = owners.iter().flatten().count();
                prop_assert_eq!(space.used(), used as u64);
                prop_assert!(owners.len() <= limit);
            }
        }
    }
}
