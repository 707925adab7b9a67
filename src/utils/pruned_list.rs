//! A list whose dead elements are removed from time to time.

use core::ops::{Deref, DerefMut};
use std::collections::VecDeque;

/// The smallest length at which dead elements are removed.
const FEW: usize = 8;

/// A list that removes its dead elements when it has doubled. Adding an element takes constant time
/// on average. The list is never longer than twice the most elements that were
/// alive at once, or than 8.
#[derive(Debug)]
pub(crate) struct PrunedList<T> {
    all: VecDeque<T>,
    /// The length at which dead elements are removed.
    prune_at: usize,
}

impl<T> PrunedList<T> {
    /// Adds an element at the end. If the list has doubled, first removes the elements for which
    /// `is_there` is false.
    pub(crate) fn add(&mut self, one: T, is_there: impl FnMut(&T) -> bool) {
        if self.all.len() >= self.prune_at {
            self.all.retain(is_there);
            self.prune_at = FEW.max(2 * self.all.len());
        }
        self.all.push_back(one);
    }
}

impl<T> Default for PrunedList<T> {
    fn default() -> Self {
        Self { all: VecDeque::new(), prune_at: FEW }
    }
}

impl<T> Deref for PrunedList<T> {
    type Target = VecDeque<T>;

    fn deref(&self) -> &VecDeque<T> {
        &self.all
    }
}

impl<T> DerefMut for PrunedList<T> {
    fn deref_mut(&mut self) -> &mut VecDeque<T> {
        &mut self.all
    }
}

impl<T> IntoIterator for PrunedList<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{FEW, PrunedList};
    use core::cell::Cell;

    #[test]
    fn an_added_element_costs_a_few_looks_however_long_the_list() {
        let (looks, gone) = (Cell::new(0), Cell::new(0));
        let mut list = PrunedList::default();
        for one in 0..10_000_u32 {
            let is_there = |other: &u32| {
                looks.set(looks.get() + 1);
                *other >= gone.get()
            };
            list.add(one, is_there);
            // A thousand elements are alive at once.
            gone.set(one.saturating_sub(1000));
            assert!(list.len() <= FEW.max(2 * 1001 + 1));
        }
        assert!(looks.get() < 3 * 10_000, "{}", looks.get());
        assert!(list.iter().copied().eq(list[0]..10_000), "in their order");
    }
}
