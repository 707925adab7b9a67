//! A list whose elements are removed by index.

use core::mem;
use std::vec::Vec;

/// A list whose elements keep their index. Adding or removing an element takes constant time. The
/// list keeps the memory of the most elements that it had at once.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    all: Vec<Slot<T>>,
    /// The first free index, or the end of the list.
    free: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Taken(T),
    /// Has the next free index, or the end of the list at the time when this slot became free.
    Free(usize),
}

impl<T> Slots<T> {
    /// Adds an element, and returns its index.
    pub(crate) fn add(&mut self, one: T) -> usize {
        let at = self.free;
        if let Some(slot) = self.all.get_mut(at) {
            if let Slot::Free(next) = mem::replace(slot, Slot::Taken(one)) {
                self.free = next;
            }
        } else {
            self.all.push(Slot::Taken(one));
            self.free = self.all.len();
        }
        at
    }

    /// Removes the element at an index that [`add`](Self::add) has returned. Returns `None` if the
    /// element was removed already.
    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let slot = self.all.get_mut(at)?;
        match mem::replace(slot, Slot::Free(self.free)) {
            Slot::Taken(one) => {
                self.free = at;
                Some(one)
            }
            free @ Slot::Free(_) => {
                *slot = free;
                None
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().filter_map(|slot| match slot {
            Slot::Taken(one) => Some(one),
            Slot::Free(_) => None,
        })
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn each_is_where_it_was_put_until_it_is_taken_out() {
        let mut slots = Slots::default();
        let places = [10, 11, 12, 13].map(|one| slots.add(one));
        assert_eq!(places, [0, 1, 2, 3]);
        assert_eq!((slots.remove(1), slots.remove(3), slots.remove(1)), (Some(11), Some(13), None));
        assert!(slots.iter().eq(&[10, 12]));
        let places = [14, 15, 16].map(|one| slots.add(one));
        assert_eq!(places, [3, 1, 4]);
        assert!(slots.iter().eq(&[10, 15, 12, 14, 16]));
        assert_eq!((slots.remove(4), slots.add(17), slots.remove(9)), (Some(16), 4, None));
    }
}
