//! Magazines: the free items of one thread, and the depot that all threads share.
//!
//! ```text
//!   thread 1          thread 2
//!   loaded  spare     loaded  spare
//!   ┌────┐  ┌────┐    ┌────┐  ┌────┐
//!   │ 17 │  │ 32 │    │  4 │  │  0 │      Magazines, each one thread's
//!   └──┬─┘  └──┬─┘    └────┘  └────┘
//!      └───────┴ 32 at a time
//!   ┌─────────────▼──────────────────────────┐
//!   │ full chains ─► ─► ─►  loose items ─► ─►│   Depot, behind a lock
//!   └────────────────────────────────────────┘
//! ```
//!
//! After J. Bonwick and J. Adams, *Magazines and Vmem*, 2001. A thread takes items from its loaded magazine and frees
//! items to it. It goes to the depot once for a whole magazine of items, in whatever order it takes and frees them. As
//! a thread has two magazines, it does not go there each time that it takes and frees one item at the end of a
//! magazine.
//!
//! An item is whatever [`Links`] can link: a block of memory, or an index.
//! [`SharedBlockPool`](crate::allocator::SharedBlockPool) has magazines and a depot of blocks.
//! [`FreeList`](crate::advanced::lockfree::FreeList) has a depot of indices, and keeps the indices of each thread in an
//! array.
//!
//! No list is ever changed by two threads at once, so there is no compare-and-swap and no ABA problem. The structure
//! that owns the magazines and the depot ensures that: a thread number selects the magazines, and a lock protects the
//! depot.

mod depot;

pub(crate) use self::depot::Depot;

use crate::utils::sync::Cell;

/// Links the items of a list.
pub(crate) trait Links {
    type Item: Copy;

    /// The first items of full chains in a depot.
    type Fulls;

    /// Takes an item off the front of its list, and returns the next item of the list.
    ///
    /// # Safety
    ///
    /// `item` is the first item of a list, and nothing uses the list from here on but its rest, from the item returned.
    unsafe fn take(&self, item: Self::Item) -> Option<Self::Item>;

    /// Puts an item in front of `next`.
    ///
    /// # Safety
    ///
    /// `item` is free, and is in no list.
    unsafe fn put(&self, item: Self::Item, next: Option<Self::Item>);

    /// Stores the first item of a full chain.
    ///
    /// # Safety
    ///
    /// `first` is the first item of a list, and is in no `Fulls`.
    unsafe fn shelve(&self, fulls: &mut Self::Fulls, first: Self::Item);

    /// Removes the first item of the full chain that was stored last.
    ///
    /// # Safety
    ///
    /// `fulls` was changed only by [`shelve`](Self::shelve) and this function, and the chains were not changed since.
    unsafe fn unshelve(&self, fulls: &mut Self::Fulls) -> Option<Self::Item>;
}

/// A list of free items, each leading to the next one.
///
/// # Invariants
///
/// It has `len` items of one owner, from `head` on, which are in no other list. Where items are not memory, these
/// functions tolerate that the invariants are violated: they end, and return items that were put.
#[derive(Clone, Copy)]
pub(crate) struct Chain<I> {
    head: Option<I>,
    len: usize,
}

impl<I: Copy> Chain<I> {
    pub(crate) const NONE: Self = Self { head: None, len: 0 };

    pub(crate) const fn is_empty(self) -> bool {
        self.head.is_none()
    }

    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// Takes the first item off the chain.
    ///
    /// # Safety
    ///
    /// The links are those of the items, and only this copy of the chain is used from here on.
    #[inline(always)]
    pub(crate) unsafe fn pop(&mut self, links: &impl Links<Item = I>) -> Option<I> {
        let item = self.head?;
        // SAFETY: the first item (the invariants), and the caller's promise.
        self.head = unsafe { links.take(item) };
        // Does not wrap by the invariants; without them it must not panic.
        self.len = self.len.wrapping_sub(1);
        Some(item)
    }

    /// Puts an item in front.
    ///
    /// # Safety
    ///
    /// As for [`Links::put`], and as for [`pop`](Self::pop).
    #[inline(always)]
    pub(crate) unsafe fn push(&mut self, links: &impl Links<Item = I>, item: I) {
        // SAFETY: the caller's promises.
        unsafe { links.put(item, self.head) };
        self.head = Some(item);
        self.len = self.len.wrapping_add(1);
    }
}

/// The free items of one thread.
///
/// Only one thread at a time may call the functions. The owner of the magazines ensures that; its implementation of
/// `Sync` states how. Each caller passes the `links` of the items and the same `size` of a full magazine.
///
/// # Invariants
///
/// `loaded` has at most a full magazine of items. `spare` is empty or a full magazine.
pub(crate) struct Magazines<I: Copy> {
    loaded: Cell<Chain<I>>,
    spare: Cell<Chain<I>>,
}

impl<I: Copy> Magazines<I> {
    pub(crate) fn new() -> Self {
        Self { loaded: Cell::new(Chain::NONE), spare: Cell::new(Chain::NONE) }
    }

    /// Takes an item from the loaded magazine.
    ///
    /// # Safety
    ///
    /// The links are those of the items.
    #[inline(always)]
    pub(crate) unsafe fn take(&self, links: &impl Links<Item = I>) -> Option<I> {
        let mut loaded = self.loaded.get();
        // SAFETY: only this copy is used from here on; and the caller's promise.
        let item = unsafe { loaded.pop(links) }?;
        self.loaded.set(loaded);
        Some(item)
    }

    /// Loads the spare magazine if the loaded one is empty. Returns whether the loaded one has items now.
    pub(crate) fn load_spare(&self) -> bool {
        if self.loaded.get().is_empty() {
            self.loaded.set(self.spare.replace(Chain::NONE));
        }
        !self.loaded.get().is_empty()
    }

    /// Makes a chain of at most a full magazine the loaded one. The loaded one is empty.
    pub(crate) fn load(&self, chain: Chain<I>) {
        debug_assert!(self.loaded.get().is_empty());
        self.loaded.set(chain);
    }

    /// Returns whether the loaded magazine is full.
    #[inline(always)]
    pub(crate) fn is_full(&self, size: usize) -> bool {
        self.loaded.get().len() == size
    }

    /// Puts an item into the loaded magazine, which is not full.
    ///
    /// # Safety
    ///
    /// As for [`Links::put`]; the links are those of the items.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, links: &impl Links<Item = I>, item: I) {
        let mut loaded = self.loaded.get();
        // SAFETY: only this copy is used from here on; and the caller's promises.
        unsafe { loaded.push(links, item) };
        self.loaded.set(loaded);
    }

    /// Makes the full magazine the spare one. Returns the spare one before.
    pub(crate) fn replace_spare(&self) -> Chain<I> {
        self.spare.replace(self.loaded.replace(Chain::NONE))
    }
}
