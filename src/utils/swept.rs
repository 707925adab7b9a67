//! Lists whose dead elements are swept out now and then.

use core::ops::{Deref, DerefMut};
use std::collections::VecDeque;

/// Lists this short are not swept.
const FEW: usize = 8;

/// A list that is swept when it has doubled: adding an element takes constant time on average, and the list is never
/// longer than twice the most elements that were alive at once.
#[derive(Debug)]
pub(crate) struct Swept<T> {
    all: VecDeque<T>,
    /// The length at which dead elements are removed.
    sweep_at: usize,
}

impl<T> Swept<T> {
    /// Adds an element at the end. If the list has doubled, it keeps the elements that are alive.
    pub(crate) fn add(&mut self, one: T, is_there: impl FnMut(&T) -> bool) {
        if self.all.len() >= self.sweep_at {
            self.all.retain(is_there);
            self.sweep_at = FEW.max(2 * self.all.len());
        }
        self.all.push_back(one);
    }
}

impl<T> Default for Swept<T> {
    fn default() -> Self {
        Self { all: VecDeque::new(), sweep_at: FEW }
    }
}

impl<T> Deref for Swept<T> {
    type Target = VecDeque<T>;

    fn deref(&self) -> &VecDeque<T> {
        &self.all
    }
}

impl<T> DerefMut for Swept<T> {
    fn deref_mut(&mut self) -> &mut VecDeque<T> {
        &mut self.all
    }
}

impl<T> IntoIterator for Swept<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{FEW, Swept};
    use core::cell::Cell;

    #[test]
    fn one_that_is_added_costs_a_few_looks_however_many_are_there() {
        let (looks, gone) = (Cell::new(0), Cell::new(0));
        let mut list = Swept::default();
        for one in 0..10_000_u32 {
            let is_there = |other: &u32| {
                looks.set(looks.get() + 1);
                *other >= gone.get()
            };
            list.add(one, is_there);
            // A thousand are there at once.
            gone.set(one.saturating_sub(1000));
            assert!(list.len() <= FEW.max(2 * 1001 + 1));
        }
        assert!(looks.get() < 3 * 10_000, "{}", looks.get());
        assert!(list.iter().copied().eq(list[0]..10_000), "in their order");
    }
}
