//! Where blocks come from: slabs of a base allocator, cut one by one.

use crate::{
    allocator::{
        AllocError, Allocator,
        bump::{RawBump, Up},
        misuse::Watch,
    },
    core::{AllocationError, CapacityOverflow},
    utils::poison::{poison, reveal, unpoison},
};
use core::{alloc::Layout, cell::Cell, iter, ptr::NonNull};

/// What a free block begins with. The rest of it is poisoned, and so is this.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) next: Option<NonNull<Link>>,
}

impl Link {
    /// The link of a free block, which stays free.
    ///
    /// # Safety
    ///
    /// The block is one that [`put`](Self::put) made a free one.
    pub(super) unsafe fn peek(block: NonNull<Self>) -> Self {
        reveal(block.cast(), size_of::<Self>());
        // SAFETY: it was written, and nobody uses the block.
        let link = unsafe { block.read() };
        poison(block.cast(), size_of::<Self>());
        link
    }

    /// Makes `block`, of as many bytes, a free one.
    ///
    /// # Safety
    ///
    /// The block is one of a pool's, of `bytes`, and nobody uses it.
    #[inline(always)]
    pub(super) unsafe fn put(block: NonNull<u8>, bytes: usize, next: Option<NonNull<Self>>) {
        // SAFETY: a block is at least as long as a link and aligned for one.
        unsafe { block.cast::<Self>().write(Self { next }) };
        poison(block, bytes);
    }

    /// Takes a free block, of as many bytes, to use it; what was the link is returned.
    ///
    /// # Safety
    ///
    /// As for [`peek`](Self::peek), and it was put with as many bytes.
    #[inline(always)]
    pub(super) unsafe fn take(block: NonNull<Self>, bytes: usize) -> Option<NonNull<Self>> {
        reveal(block.cast(), bytes);
        // SAFETY: it was written, and nobody uses the block.
        unsafe { block.read() }.next
    }
}

/// What a slab begins with: the slab before, and how many blocks it has.
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

/// A slab to be: of as many blocks.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    layout: Layout,
    blocks: usize,
}

impl Plan {
    /// What to ask the base allocator for.
    pub(super) const fn layout(self) -> Layout {
        self.layout
    }
}

/// Slabs, and what is left of the newest. Whose they are, and where they go back to, the pool knows.
pub(super) struct Slabs {
    /// # Invariants
    ///
    /// Cuts the newest slab, behind its link, into blocks of `block`.
    fresh: RawBump<Up, 1>,
    /// # Invariants
    ///
    /// Of at least a `Link`'s size and alignment; the size is a multiple of the alignment.
    block: Layout,
    /// # Invariants
    ///
    /// The newest slab and by its link all others, allocated by the pool's base allocator with the
    /// [layout](slab_layout) for their number of blocks.
    newest: Cell<Option<NonNull<Slab>>>,
    /// Blocks that were cut so far.
    cut: Cell<usize>,
    growth: Growth,
}

// SAFETY: slabs are the value's own; whatever else points into them borrows the pool that has it,
// which then does not move.
unsafe impl Send for Slabs {}

/// Bytes before the first block of a slab, for its link: as much as keeps the blocks aligned.
fn slab_head(block: Layout) -> usize {
    block.align().max(size_of::<Slab>().next_power_of_two())
}

/// A slab of as many blocks; `None` where no address space has room for it.
fn slab_layout(block: Layout, blocks: usize) -> Option<Layout> {
    let bytes = block.size().checked_mul(blocks)?.checked_add(slab_head(block))?;
    Layout::from_size_align(bytes, block.align().max(align_of::<Slab>())).ok()
}

impl Slabs {
    /// No slabs yet, for blocks that `block` fits.
    pub(super) fn new(
        component: &'static str,
        block: Layout,
        growth: Growth,
    ) -> Result<Self, AllocationError> {
        let Growth { first, max_slab, max_blocks } = growth;
        let growth = Growth { first: first.max(1), max_slab: max_slab.max(1), max_blocks };
        let least = Layout::new::<Link>();
        let (size, align) = (block.size().max(least.size()), block.align().max(least.align()));
        let too_large = CapacityOverflow::new(component, growth.max_slab, size);
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

    /// Blocks that could be cut without a new slab.
    pub(super) fn uncut(&self) -> usize {
        self.fresh.free() / self.block.size()
    }

    pub(super) fn held_bytes(&self) -> usize {
        let slabs =
            self.slabs().map(|(_, blocks)| slab_head(self.block) + blocks * self.block.size());
        slabs.sum()
    }

    /// A block that was never used; `None` where all of the newest slab are cut.
    pub(super) fn cut_block(&self) -> Option<NonNull<u8>> {
        let block = self.fresh.alloc(self.block)?;
        self.cut.set(self.cut.get() + 1);
        unpoison(block, self.block.size());
        Some(block)
    }

    /// The slab to [add](Self::add) when all blocks of the others are cut: as large as all of them, or
    /// of `few` blocks where it is not to be more.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where there are as many blocks as there may be.
    pub(super) fn plan(&self, few: Option<usize>) -> Result<Plan, AllocError> {
        let Growth { first, max_slab, .. } = self.growth;
        let ample = few.unwrap_or_else(|| self.cut.get().max(first));
        let blocks = ample.min(max_slab).min(self.room());
        if blocks == 0 {
            return Err(AllocError);
        }
        Ok(Plan { layout: slab_layout(self.block, blocks).ok_or(AllocError)?, blocks })
    }

    /// Blocks that there may be beside those that were cut.
    const fn room(&self) -> usize {
        self.growth.max_blocks.saturating_sub(self.cut())
    }

    /// Adds the slab that begins at `start`; whether it is wanted still.
    ///
    /// Between the plan and the slab the base allocator ran, which may be foreign code (what gives
    /// memory up to a budget) that came back to this pool and made it grow, and other threads may
    /// have done so. Where there are blocks to cut then, or too few more may be, the slab is not added.
    ///
    /// # Safety
    ///
    /// 1. `start` is currently allocated, with the layout of `plan`, which is of these slabs, by the
    ///    pool's base allocator.
    /// 2. Nobody uses it, and unless this returns `false` it is these slabs' alone.
    pub(super) unsafe fn add(&self, start: NonNull<u8>, plan: Plan, watch: &Watch) -> bool {
        let Plan { blocks, .. } = plan;
        if self.uncut() > 0 || blocks > self.room() {
            return false;
        }
        let slab = start.cast::<Slab>();
        // SAFETY: the slab (1, 2) begins with room for the link, and is aligned for it.
        unsafe { slab.write(Slab { before: self.newest.get(), blocks }) };
        self.newest.set(Some(slab));
        // SAFETY: the offset lies within the slab.
        let first = unsafe { start.add(slab_head(self.block)) };
        let bytes = self.block.size() * blocks;
        // SAFETY: the bytes are the slab's, which stays until the pool is dropped, and are new.
        unsafe { self.fresh.enter(first, bytes) };
        watch.add(first, self.block, blocks);
        poison(first, bytes);
        true
    }

    /// The slabs from the newest on, each with its blocks.
    fn slabs(&self) -> impl Iterator<Item = (NonNull<Slab>, usize)> {
        let mut next = self.newest.get();
        iter::from_fn(move || {
            let slab = next?;
            // SAFETY: `add` wrote the link; a slab is freed after it was read.
            let Slab { before, blocks } = unsafe { slab.read() };
            next = before;
            Some((slab, blocks))
        })
    }

    /// Gives every slab back to `base`.
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
