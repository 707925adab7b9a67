//! Slabs: blocks of a base allocator, from which the blocks of a pool are cut one by one.

use crate::{
    allocator::{
        AllocError, Allocator,
        bump::{RawBump, Up},
        misuse::Watch,
    },
    core::AllocationError,
    utils::poison::{poison, reveal, unpoison},
};
use core::{alloc::Layout, cell::Cell, iter, ptr::NonNull};

/// The link at the start of a free block. The whole block is poisoned, including the link.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) next: Option<NonNull<Link>>,
}

impl Link {
    /// Returns the link of a free block, which stays free.
    ///
    /// # Safety
    ///
    /// [`put`](Self::put) has made the block a free one.
    pub(super) unsafe fn peek(block: NonNull<Self>) -> Self {
        reveal(block.cast(), size_of::<Self>());
        // SAFETY: the link was written, and nothing uses the block.
        let link = unsafe { block.read() };
        poison(block.cast(), size_of::<Self>());
        link
    }

    /// Makes `block`, of `bytes` bytes, a free block that leads to `next`.
    ///
    /// # Safety
    ///
    /// The block is one of a pool's, of `bytes` bytes, and nothing uses it.
    #[inline(always)]
    pub(super) unsafe fn put(block: NonNull<u8>, bytes: usize, next: Option<NonNull<Self>>) {
        // SAFETY: a block is at least as long as a link and aligned for one.
        unsafe { block.cast::<Self>().write(Self { next }) };
        poison(block, bytes);
    }

    /// Takes a free block, of `bytes` bytes, into use. Returns the next free block.
    ///
    /// # Safety
    ///
    /// As for [`peek`](Self::peek), and the block was put with the same `bytes`.
    #[inline(always)]
    pub(super) unsafe fn take(block: NonNull<Self>, bytes: usize) -> Option<NonNull<Self>> {
        reveal(block.cast(), bytes);
        // SAFETY: the link was written, and nothing uses the block.
        unsafe { block.read() }.next
    }
}

/// The start of a slab: the slab before it, and its number of blocks.
struct Slab {
    before: Option<NonNull<Slab>>,
    blocks: usize,
}

/// How a pool grows, in blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    pub(super) first: usize,
    pub(super) max_slab: usize,
    pub(super) max_blocks: usize,
}

/// A slab that is to be allocated.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    layout: Layout,
    blocks: usize,
}

impl Plan {
    /// Returns the layout to request from the base allocator.
    pub(super) const fn layout(self) -> Layout {
        self.layout
    }
}

/// The slabs of a pool, and the bytes that are left of the newest slab. The base allocator, which
/// the slabs come from and go back to, is in the pool.
pub(super) struct Slabs {
    /// # Invariants
    ///
    /// Cuts the newest slab, behind its link, into blocks of `block`.
    fresh: RawBump<Up, 1>,
    /// # Invariants
    ///
    /// At least the size and the alignment of a `Link`. The size is a multiple of the alignment.
    block: Layout,
    /// # Invariants
    ///
    /// The newest slab, whose link leads to all others. The pool's base allocator allocated each of
    /// them with the [layout](slab_layout) for its number of blocks.
    newest: Cell<Option<NonNull<Slab>>>,
    /// The number of blocks that were cut so far.
    cut: Cell<usize>,
    growth: Growth,
}

// SAFETY: the slabs are the value's own. Every other pointer into them borrows the pool that has
// this value, which then does not move.
unsafe impl Send for Slabs {}

/// Returns the number of bytes before a slab's first block. They have room for the slab's link, and
/// keep the blocks aligned.
fn slab_head(block: Layout) -> usize {
    block.align().max(size_of::<Slab>().next_power_of_two())
}

/// Returns the layout of a slab of `blocks` blocks, or `None` if no address space has room for it.
fn slab_layout(block: Layout, blocks: usize) -> Option<Layout> {
    let bytes = block.size().checked_mul(blocks)?.checked_add(slab_head(block))?;
    Layout::from_size_align(bytes, block.align().max(align_of::<Slab>())).ok()
}

impl Slabs {
    /// Starts without slabs, for blocks that have room for `block`.
    pub(super) fn new(
        component: &'static str,
        block: Layout,
        growth: Growth,
    ) -> Result<Self, AllocationError> {
        let Growth { first, max_slab, max_blocks } = growth;
        let growth = Growth { first: first.max(1), max_slab: max_slab.max(1), max_blocks };
        let least = Layout::new::<Link>();
        let (size, align) = (block.size().max(least.size()), block.align().max(least.align()));
        let too_large = AllocationError::capacity_overflow(component, growth.max_slab, size);
        let block = Layout::from_size_align(size, align).map_err(|_| too_large)?.pad_to_align();
        slab_layout(block, growth.first.max(growth.max_slab)).ok_or(too_large)?;
        let (fresh, newest, cut) = (RawBump::nowhere(), Cell::new(None), Cell::new(0));
        Ok(Self { fresh, block, newest, cut, growth })
    }

    pub(super) const fn block(&self) -> Layout {
        self.block
    }

    pub(super) const fn cut(&self) -> usize {
        self.cut.get()
    }

    pub(super) const fn max_blocks(&self) -> usize {
        self.growth.max_blocks
    }

    /// Returns the number of blocks that can be cut without a new slab.
    pub(super) fn uncut(&self) -> usize {
        self.fresh.free() / self.block.size()
    }

    pub(super) fn held_bytes(&self) -> usize {
        let slabs =
            self.slabs().map(|(_, blocks)| slab_head(self.block) + blocks * self.block.size());
        slabs.sum()
    }

    /// Cuts a block that was never used. Returns `None` if all blocks of the newest slab are cut.
    pub(super) fn cut_block(&self) -> Option<NonNull<u8>> {
        let block = self.fresh.alloc(self.block)?;
        self.cut.set(self.cut.get() + 1);
        unpoison(block, self.block.size());
        Some(block)
    }

    /// Plans the slab to [add](Self::add) when all blocks of the others are cut. The slab has `few`
    /// blocks if that is given, or else as many as all others together.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if the pool has its maximum of blocks.
    pub(super) fn plan(&self, few: Option<usize>) -> Result<Plan, AllocError> {
        let Growth { first, max_slab, .. } = self.growth;
        let ample = few.unwrap_or_else(|| self.cut.get().max(first));
        let blocks = ample.min(max_slab).min(self.room());
        if blocks == 0 {
            return Err(AllocError);
        }
        Ok(Plan { layout: slab_layout(self.block, blocks).ok_or(AllocError)?, blocks })
    }

    /// Returns the number of blocks that may still be cut, by the pool's maximum.
    const fn room(&self) -> usize {
        self.growth.max_blocks.saturating_sub(self.cut())
    }

    /// Adds the slab that begins at `start`, and returns whether it is still wanted.
    ///
    /// The base allocator has run since the plan was made. It may be foreign code that used this
    /// pool and made the pool grow, such as code that frees memory for a budget. Other threads may
    /// have made the pool grow too. If there are blocks to cut now, or if the maximum has no room
    /// for all blocks of the slab, the slab is not added.
    ///
    /// # Safety
    ///
    /// 1. `start` is currently allocated by the pool's base allocator, with the layout of `plan`,
    ///    which these slabs made.
    /// 2. Nothing uses it. Unless this returns `false`, it belongs to these slabs alone.
    pub(super) unsafe fn add(&self, start: NonNull<u8>, plan: Plan, watch: &Watch) -> bool {
        let Plan { blocks, .. } = plan;
        if self.uncut() > 0 || blocks > self.room() {
            return false;
        }
        let slab = start.cast::<Slab>();
        // SAFETY: the slab (1, 2) begins with room for the link, and is aligned for the link.
        unsafe { slab.write(Slab { before: self.newest.get(), blocks }) };
        self.newest.set(Some(slab));
        // SAFETY: the offset lies within the slab.
        let first = unsafe { start.add(slab_head(self.block)) };
        let bytes = self.block.size() * blocks;
        // SAFETY: 1. The bytes are the slab's, which stays until the pool is dropped. 2. They are
        // new.
        unsafe { self.fresh.enter(first, bytes) };
        watch.add(first, self.block, blocks);
        poison(first, bytes);
        true
    }

    /// Iterates over the slabs from the newest on, each with its number of blocks.
    fn slabs(&self) -> impl Iterator<Item = (NonNull<Slab>, usize)> {
        let mut next = self.newest.get();
        iter::from_fn(move || {
            let slab = next?;
            // SAFETY: `add` wrote the link, and a slab is freed after its link was read.
            let Slab { before, blocks } = unsafe { slab.read() };
            next = before;
            Some((slab, blocks))
        })
    }

    /// Returns every slab to `base`.
    ///
    /// # Safety
    ///
    /// 1. `base` is the pool's base allocator.
    /// 2. No block is in use, and neither blocks nor slabs are used from here on.
    pub(super) unsafe fn free<A: Allocator>(&mut self, base: &A) {
        for (slab, blocks) in self.slabs() {
            let layout = slab_layout(self.block, blocks).expect("as when the slab was made");
            unpoison(slab.cast(), layout.size());
            // SAFETY: allocated by `base` (1) with this layout (the invariants), and unused (2).
            unsafe { base.deallocate(slab.cast(), layout) };
        }
    }
}
