//! The depot: the free blocks that are in no thread's cache.

use super::super::{Link, Slabs, slabs::Plan};
use crate::{
    allocator::{AllocError, misuse::Watch},
    utils::poison::{poison, reveal},
};
use core::{mem, ptr::NonNull};

/// A list of free blocks, each leading to the next one.
///
/// # Invariants
///
/// It has `len` blocks of one pool, from `head` on, which are in no other list.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    head: Option<NonNull<Link>>,
    len: usize,
}

impl Chain {
    pub(super) const NONE: Self = Self { head: None, len: 0 };

    pub(super) const fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(super) const fn len(self) -> usize {
        self.len
    }

    /// Takes the first block off the chain.
    ///
    /// # Safety
    ///
    /// The blocks have `bytes` bytes, and only this copy of the chain is used from here on.
    #[inline(always)]
    pub(super) unsafe fn pop(&mut self, bytes: usize) -> Option<NonNull<Link>> {
        let block = self.head?;
        // SAFETY: a free block (the invariants), and the caller's promise.
        self.head = unsafe { Link::take(block, bytes) };
        self.len -= 1;
        Some(block)
    }

    /// Puts a block in front.
    ///
    /// # Safety
    ///
    /// As for [`Link::put`], and as for [`pop`](Self::pop).
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, block: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promises.
        unsafe { Link::put(block, bytes, self.head) };
        self.head = Some(block.cast());
        self.len += 1;
    }
}

/// The start of the first block of a full chain in the depot.
#[derive(Clone, Copy)]
#[repr(C)]
struct Full {
    link: Link,
    /// The first block of the next full chain.
    next: Option<NonNull<Full>>,
}

/// The smallest size of a block in bytes.
pub(super) const MIN_BLOCK: usize = size_of::<Full>();
const _: () = assert!(align_of::<Full>() == align_of::<Link>());

/// The free blocks and the slabs that all threads share.
pub(super) struct Depot {
    /// # Invariants
    ///
    /// The first block of a full chain, which leads to the first block of the next full chain.
    full: Option<NonNull<Full>>,
    loose: Chain,
    /// The number of blocks in full chains.
    in_full: usize,
    slabs: Slabs,
    /// The number of blocks in a full chain, known from the first chain on.
    magazine: usize,
    /// The number of threads that are requesting a slab.
    makers: usize,
}

// SAFETY: free blocks are those of the slabs, which are sent along.
unsafe impl Send for Depot {}

impl Depot {
    pub(super) const fn new(slabs: Slabs) -> Self {
        Self { full: None, loose: Chain::NONE, in_full: 0, slabs, magazine: 0, makers: 0 }
    }

    pub(super) const fn slabs(&self) -> &Slabs {
        &self.slabs
    }

    pub(super) const fn slabs_mut(&mut self) -> &mut Slabs {
        &mut self.slabs
    }

    /// Plans the slab that the caller then requests from the base allocator, without the lock. If
    /// several threads do so at once, the first doubles the pool, and the others get `few` blocks.
    /// The caller calls [`end_making`](Self::end_making) afterwards.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if the pool has its maximum of blocks. Then the caller does not call
    /// `end_making`.
    pub(super) fn begin_making(&mut self, few: usize) -> Result<Plan, AllocError> {
        let plan = self.slabs.plan((self.makers > 0).then_some(few))?;
        self.makers += 1;
        Ok(plan)
    }

    /// Ends a request that [`begin_making`](Self::begin_making) began, with or without a slab.
    pub(super) const fn end_making(&mut self) {
        self.makers -= 1;
    }

    /// Returns the number of free blocks in the depot.
    pub(super) const fn free(&self) -> usize {
        self.in_full + self.loose.len()
    }

    /// Takes over a full chain.
    ///
    /// # Safety
    ///
    /// 1. `chain` has free blocks of this pool, as many as every other full chain here, and is not
    ///    empty.
    /// 2. No copy of it is used from here on.
    pub(super) unsafe fn put_full(&mut self, chain: Chain) {
        debug_assert!(!chain.is_empty() && (self.full.is_none() || self.magazine == chain.len()));
        let Some(head) = chain.head else { return };
        let head = head.cast::<Full>();
        reveal(head.cast(), MIN_BLOCK);
        // SAFETY: a block has room for a `Full`, and nothing else uses this block (1, 2).
        let next = unsafe { &raw mut (*head.as_ptr()).next };
        // SAFETY: as above.
        unsafe { next.write(self.full) };
        poison(head.cast(), MIN_BLOCK);
        self.full = Some(head);
        self.magazine = chain.len();
        self.in_full += chain.len();
    }

    /// Takes over one block.
    ///
    /// # Safety
    ///
    /// As for [`Link::put`]; the block is of this pool.
    pub(super) unsafe fn put_loose(&mut self, block: NonNull<u8>) {
        let bytes = self.slabs.block().size();
        // SAFETY: the caller's promise; this chain is the only list of these blocks.
        unsafe { self.loose.push(block, bytes) };
    }

    /// Takes a chain of at least one and at most `most` blocks out of the depot. `most` is one or
    /// `magazine`. Returns `None` if a new slab is needed.
    pub(super) fn chain(&mut self, most: usize, magazine: usize, watch: &Watch) -> Option<Chain> {
        if most == magazine
            && let Some(full) = self.pop_full()
        {
            return Some(full);
        }
        let bytes = self.slabs.block().size();
        if self.loose.is_empty() {
            // Splits a full chain that is not wanted as a whole, or else cuts blocks that were
            // never used.
            self.loose = self.pop_full().unwrap_or_else(|| self.cut(most, watch));
        }
        if self.loose.len() <= most {
            let all = mem::replace(&mut self.loose, Chain::NONE);
            return (!all.is_empty()).then_some(all);
        }
        let mut chain = Chain::NONE;
        while chain.len() < most
            // SAFETY: free blocks of this size, in no other list.
            && let Some(block) = unsafe { self.loose.pop(bytes) }
        {
            // SAFETY: the block was free, and is in no list.
            unsafe { chain.push(block.cast(), bytes) };
        }
        Some(chain)
    }

    fn pop_full(&mut self) -> Option<Chain> {
        let full = self.full?;
        reveal(full.cast(), MIN_BLOCK);
        // SAFETY: the first block of a full chain (the invariants), with both its links.
        let Full { next, .. } = unsafe { full.read() };
        poison(full.cast(), MIN_BLOCK);
        self.full = next;
        self.in_full -= self.magazine;
        Some(Chain { head: Some(full.cast()), len: self.magazine })
    }

    /// Cuts at most `most` blocks that were never used, as far as the newest slab has them.
    fn cut(&self, most: usize, watch: &Watch) -> Chain {
        let bytes = self.slabs.block().size();
        let mut chain = Chain::NONE;
        while chain.len() < most
            && let Some(block) = self.slabs.cut_block()
        {
            watch.shelved(block);
            // SAFETY: a new block, of this size, which nothing uses.
            unsafe { chain.push(block, bytes) };
        }
        chain
    }
}
