//! Free blocks that are no thread's.

use super::super::{Link, Slabs, slabs::Plan};
use crate::{
    allocator::{AllocError, misuse::Watch},
    utils::poison::{poison, reveal},
};
use core::{mem, ptr::NonNull};

/// Free blocks, each the next of the one before.
///
/// # Invariants
///
/// `len` of them from `head` on, of one pool, of which this is the only list.
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

    /// Takes the first block off.
    ///
    /// # Safety
    ///
    /// The blocks have as many bytes, and this is the only copy of the chain that is used from here on.
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

/// What the first block of a full chain in the depot begins with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Full {
    link: Link,
    /// The first block of the next full chain.
    next: Option<NonNull<Full>>,
}

/// Bytes of a block, at least.
pub(super) const MIN_BLOCK: usize = size_of::<Full>();
const _: () = assert!(align_of::<Full>() == align_of::<Link>());

/// What all threads share.
pub(super) struct Depot {
    /// # Invariants
    ///
    /// The first blocks of full magazines, each leading to the next one's.
    full: Option<NonNull<Full>>,
    loose: Chain,
    /// Blocks in full chains.
    in_full: usize,
    slabs: Slabs,
    /// Blocks of a full chain; known from the first one on.
    magazine: usize,
    /// Threads that ask for a slab.
    makers: usize,
}

// SAFETY: free blocks are the slabs', which are sent along.
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

    /// The slab to ask the base allocator for, without the lock. Of threads that do so at once the
    /// first doubles the pool, and the others take `few` blocks. [`end_making`](Self::end_making) follows.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where there are as many blocks as there may be; then nothing follows.
    pub(super) fn begin_making(&mut self, few: usize) -> Result<Plan, AllocError> {
        let plan = self.slabs.plan((self.makers > 0).then_some(few))?;
        self.makers += 1;
        Ok(plan)
    }

    /// The slab is there, or is not to be had.
    pub(super) const fn end_making(&mut self) {
        self.makers -= 1;
    }

    /// Blocks that nobody has.
    pub(super) const fn free(&self) -> usize {
        self.in_full + self.loose.len()
    }

    /// Takes a full magazine over.
    ///
    /// # Safety
    ///
    /// 1. A chain of free blocks of this pool, as long as every other here, and not empty.
    /// 2. No copy of it is used from here on.
    pub(super) unsafe fn put_full(&mut self, chain: Chain) {
        debug_assert!(!chain.is_empty() && (self.full.is_none() || self.magazine == chain.len()));
        let Some(head) = chain.head else { return };
        let head = head.cast::<Full>();
        reveal(head.cast(), MIN_BLOCK);
        // SAFETY: a block has room for a `Full`, and nobody uses this one (1, 2).
        let next = unsafe { &raw mut (*head.as_ptr()).next };
        // SAFETY: as above.
        unsafe { next.write(self.full) };
        poison(head.cast(), MIN_BLOCK);
        self.full = Some(head);
        self.magazine = chain.len();
        self.in_full += chain.len();
    }

    /// Takes one block over.
    ///
    /// # Safety
    ///
    /// As for [`Link::put`]; the block is of this pool.
    pub(super) unsafe fn put_loose(&mut self, block: NonNull<u8>) {
        let bytes = self.slabs.block().size();
        // SAFETY: the caller's promise, and the only list of these blocks.
        unsafe { self.loose.push(block, bytes) };
    }

    /// Gives from one block to as many as `most`, which is one or `magazine`, away; `None` where it
    /// takes another slab.
    pub(super) fn chain(&mut self, most: usize, magazine: usize, watch: &Watch) -> Option<Chain> {
        if most == magazine
            && let Some(full) = self.pop_full()
        {
            return Some(full);
        }
        let bytes = self.slabs.block().size();
        if self.loose.is_empty() {
            // Full chains that are not wanted whole, then blocks that were never used.
            self.loose = self.pop_full().unwrap_or_else(|| self.cut(most, watch));
        }
        if self.loose.len() <= most {
            let all = mem::replace(&mut self.loose, Chain::NONE);
            return (!all.is_empty()).then_some(all);
        }
        let mut chain = Chain::NONE;
        while chain.len() < most
            // SAFETY: free blocks of as many bytes, in no other list.
            && let Some(block) = unsafe { self.loose.pop(bytes) }
        {
            // SAFETY: the block was free, and is nobody's.
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

    /// At most as many blocks that were never used, as far as the newest slab has them.
    fn cut(&self, most: usize, watch: &Watch) -> Chain {
        let bytes = self.slabs.block().size();
        let mut chain = Chain::NONE;
        while chain.len() < most
            && let Some(block) = self.slabs.cut_block()
        {
            watch.shelved(block);
            // SAFETY: a new block, of as many bytes, which nobody uses.
            unsafe { chain.push(block, bytes) };
        }
        chain
    }
}
