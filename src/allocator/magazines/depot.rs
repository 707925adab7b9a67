//! The depot: the free items that are in no thread's magazines.

use super::{Chain, Links};
use core::mem;

/// Free items in full chains and loose ones. The owner keeps it behind a lock.
pub(crate) struct Depot<L: Links> {
    /// The first items of chains of `magazine` items.
    fulls: L::Fulls,
    loose: Chain<L::Item>,
    /// The number of items in full chains.
    in_full: usize,
    /// The number of items in a full chain.
    magazine: usize,
}

impl<L: Links> Depot<L> {
    pub(crate) const fn new(fulls: L::Fulls, magazine: usize) -> Self {
        Self { fulls, loose: Chain::NONE, in_full: 0, magazine }
    }

    /// Returns the number of free items in the depot.
    pub(crate) const fn free(&self) -> usize {
        self.in_full.wrapping_add(self.loose.len())
    }

    /// Takes over a full chain.
    ///
    /// # Safety
    ///
    /// 1. The links are those of the items, for this and each other call.
    /// 2. `chain` has a full magazine of free items, and no copy of it is used from here on.
    pub(crate) unsafe fn put_full(&mut self, links: &L, chain: Chain<L::Item>) {
        let Some(head) = chain.head else { return };
        // SAFETY: the first item of a chain that is in no list (1, 2).
        unsafe { links.shelve(&mut self.fulls, head) };
        self.in_full += self.magazine;
    }

    /// Takes over one item.
    ///
    /// # Safety
    ///
    /// As for [`Links::put`], and as for [`put_full`](Self::put_full), 1.
    pub(crate) unsafe fn put_loose(&mut self, links: &L, item: L::Item) {
        // SAFETY: the caller's promises; this chain is the only list of these items.
        unsafe { self.loose.push(links, item) };
    }

    /// Takes a chain of at least one and at most `most` items out of the depot. `most` is one or a full magazine. If the
    /// depot is empty, `cut` makes a chain of at most so many items that were never used. Returns `None` if it makes none.
    ///
    /// # Safety
    ///
    /// As for [`put_full`](Self::put_full), 1; and `cut` makes a chain of free items that are in no other list.
    pub(crate) unsafe fn chain(
        &mut self,
        links: &L,
        most: usize,
        cut: impl FnOnce(usize) -> Chain<L::Item>,
    ) -> Option<Chain<L::Item>> {
        if most == self.magazine
            // SAFETY: the caller's promise.
            && let Some(full) = unsafe { self.pop_full(links) }
        {
            return Some(full);
        }
        if self.loose.is_empty() {
            // Splits a full chain that is not wanted as a whole, or else cuts items that were never used.
            // SAFETY: the caller's promise.
            self.loose = unsafe { self.pop_full(links) }.unwrap_or_else(|| cut(most));
        }
        if self.loose.len() <= most {
            let all = mem::replace(&mut self.loose, Chain::NONE);
            return (!all.is_empty()).then_some(all);
        }
        let mut chain = Chain::NONE;
        while chain.len() < most
            // SAFETY: the links of the items (the caller's promise); the depot has the only copy.
            && let Some(item) = unsafe { self.loose.pop(links) }
        {
            // SAFETY: the item was free, and is in no list.
            unsafe { chain.push(links, item) };
        }
        Some(chain)
    }

    /// # Safety
    ///
    /// As for [`put_full`](Self::put_full), 1.
    unsafe fn pop_full(&mut self, links: &L) -> Option<Chain<L::Item>> {
        // SAFETY: only `put_full` and this function change `fulls`.
        let head = unsafe { links.unshelve(&mut self.fulls) }?;
        self.in_full -= self.magazine;
        Some(Chain { head: Some(head), len: self.magazine })
    }
}
