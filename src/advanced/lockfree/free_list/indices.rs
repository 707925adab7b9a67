//! Indices as items of lists.

use super::links::{FREE, Item, index_of, item_of, link_to, next_of};
use crate::{
    allocator::magazines::Links,
    utils::sync::{AtomicU32, Ordering},
};
use alloc::{boxed::Box, vec::Vec};

/// The link of each index.
///
/// Relaxed throughout: a list is passed on by a lock or by the gate, which order its links. The links are atomic
/// because an index that is given twice may be in two lists.
///
/// # Invariants
///
/// Each item, also in a link, stands for an index that has a link here. Only [`item`](Self::item) makes items.
pub(super) struct Indices(Box<[AtomicU32]>);

impl Indices {
    /// At most [`MAX_CAPACITY`](super::FreeList::MAX_CAPACITY) links, each free.
    pub(super) const fn new(links: Box<[AtomicU32]>) -> Self {
        Self(links)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the item of an index, if there is one.
    #[inline(always)]
    pub(super) fn item(&self, index: usize) -> Option<Item> {
        if index < self.0.len() { item_of(index) } else { None }
    }

    /// Returns the item of an index that is out.
    #[inline(always)]
    pub(super) fn out(&self, index: usize) -> Option<Item> {
        let link = self.0.get(index)?.load(Ordering::Relaxed);
        if link & FREE == 0 { item_of(index) } else { None }
    }

    /// Marks an index as out.
    #[inline(always)]
    pub(super) fn mark_out(&self, item: Item) {
        self.link(item).store(0, Ordering::Relaxed);
    }

    /// Marks an index as free, and as in no list: a thread keeps it.
    #[inline(always)]
    pub(super) fn mark_kept(&self, item: Item) {
        self.link(item).store(FREE, Ordering::Relaxed);
    }

    #[inline(always)]
    fn link(&self, item: Item) -> &AtomicU32 {
        // SAFETY: items have links (the invariants).
        unsafe { self.0.get_unchecked(index_of(item)) }
    }
}

/// These functions are sound even if a caller breaks its promises: an index that is in two lists is then taken twice.
impl Links for Indices {
    type Item = Item;

    /// Has room for the first items of as many full chains as there can be.
    type Fulls = Vec<Item>;

    #[inline(always)]
    unsafe fn take(&self, item: Item) -> Option<Item> {
        let link = self.link(item);
        let next = next_of(link.load(Ordering::Relaxed));
        link.store(0, Ordering::Relaxed);
        next
    }

    #[inline(always)]
    unsafe fn put(&self, item: Item, next: Option<Item>) {
        self.link(item).store(link_to(next), Ordering::Relaxed);
    }

    unsafe fn shelve(&self, fulls: &mut Vec<Item>, first: Item) {
        fulls.push(first);
    }

    unsafe fn unshelve(&self, fulls: &mut Vec<Item>) -> Option<Item> {
        fulls.pop()
    }
}
