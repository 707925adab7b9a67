//! The depot: the slabs, and the free blocks that are in no thread's cache.

use super::super::{Link, Slabs, slabs::Plan};
use crate::{
    allocator::{
        AllocError,
        magazines::{self, Links},
        misuse::Watch,
    },
    utils::poison::{poison, reveal},
};
use core::ptr::NonNull;

/// Lists of free blocks of one size.
pub(super) type Chain = magazines::Chain<NonNull<Link>>;

/// The start of the first block of a full chain in the depot.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Full {
    link: Link,
    /// The first block of the next full chain.
    next: Option<NonNull<Full>>,
}

/// The smallest size of a block in bytes.
pub(super) const MIN_BLOCK: usize = size_of::<Full>();
const _: () = assert!(align_of::<Full>() == align_of::<Link>());

/// Free blocks are linked by pointers at their start.
#[derive(Clone, Copy)]
pub(super) struct BlockLinks {
    /// The bytes of a block, at least [`MIN_BLOCK`].
    pub(super) bytes: usize,
}

impl Links for BlockLinks {
    type Item = NonNull<Link>;

    /// The first block of a full chain, which leads to the first block of the next full chain.
    type Fulls = Option<NonNull<Full>>;

    #[inline(always)]
    unsafe fn take(&self, block: NonNull<Link>) -> Option<NonNull<Link>> {
        // SAFETY: the first block of a list, so `put` has made it a free one of this size.
        unsafe { Link::take(block, self.bytes) }
    }

    #[inline(always)]
    unsafe fn put(&self, block: NonNull<Link>, next: Option<NonNull<Link>>) {
        // SAFETY: the blocks of these links have this size, and nothing uses a free one.
        unsafe { Link::put(block.cast(), self.bytes, next) };
    }

    unsafe fn shelve(&self, fulls: &mut Self::Fulls, first: NonNull<Link>) {
        let first = first.cast::<Full>();
        reveal(first.cast(), MIN_BLOCK);
        // SAFETY: a block has room for a `Full`, and nothing else uses this block (the caller's promise).
        let next = unsafe { &raw mut (*first.as_ptr()).next };
        // SAFETY: as above.
        unsafe { next.write(*fulls) };
        poison(first.cast(), MIN_BLOCK);
        *fulls = Some(first);
    }

    unsafe fn unshelve(&self, fulls: &mut Self::Fulls) -> Option<NonNull<Link>> {
        let full = (*fulls)?;
        reveal(full.cast(), MIN_BLOCK);
        // SAFETY: `shelve` stored it (the caller's promise), so it is the first block of a full chain, with both links.
        let Full { next, .. } = unsafe { full.read() };
        poison(full.cast(), MIN_BLOCK);
        *fulls = next;
        Some(full.cast())
    }
}

/// The free blocks and the slabs that all threads share.
pub(super) struct Depot {
    free: magazines::Depot<BlockLinks>,
    links: BlockLinks,
    slabs: Slabs,
    /// The number of threads that are requesting a slab.
    makers: usize,
}

// SAFETY: free blocks are those of the slabs, which are sent along.
unsafe impl Send for Depot {}

impl Depot {
    /// `magazine` is the number of blocks in a full chain.
    pub(super) const fn new(slabs: Slabs, magazine: usize) -> Self {
        let links = BlockLinks { bytes: slabs.block().size() };
        Self { free: magazines::Depot::new(None, magazine), links, slabs, makers: 0 }
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
        self.free.free()
    }

    /// Takes over a full chain.
    ///
    /// # Safety
    ///
    /// 1. `chain` is a full magazine of free blocks of this pool.
    /// 2. No copy of it is used from here on.
    pub(super) unsafe fn put_full(&mut self, chain: Chain) {
        // SAFETY: 1. The links of this pool's blocks. 2. The caller's promises.
        unsafe { self.free.put_full(&self.links, chain) };
    }

    /// Takes over one block.
    ///
    /// # Safety
    ///
    /// As for [`Link::put`]; the block is of this pool.
    pub(super) unsafe fn put_loose(&mut self, block: NonNull<u8>) {
        // SAFETY: the links of this pool's blocks, and the caller's promise.
        unsafe { self.free.put_loose(&self.links, block.cast()) };
    }

    /// Takes a chain of at least one and at most `most` blocks out of the depot. `most` is one or a
    /// full magazine. Returns `None` if a new slab is needed.
    pub(super) fn chain(&mut self, most: usize, watch: &Watch) -> Option<Chain> {
        let (links, slabs) = (self.links, &self.slabs);
        // SAFETY: the links of this pool's blocks; `cut` makes a chain of new blocks.
        unsafe { self.free.chain(&links, most, |most| cut(slabs, links, most, watch)) }
    }
}

/// Cuts at most `most` blocks that were never used, as far as the newest slab has them.
fn cut(slabs: &Slabs, links: BlockLinks, most: usize, watch: &Watch) -> Chain {
    let mut chain = Chain::NONE;
    while chain.len() < most
        && let Some(block) = slabs.cut_block()
    {
        watch.shelved(block);
        // SAFETY: a new block, of this size, which nothing uses.
        unsafe { chain.push(&links, block.cast()) };
    }
    chain
}
