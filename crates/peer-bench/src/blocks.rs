//! Blocks of one size: h1, h2, h3, h4.

use crate::{harness::Bench, heaps::Malloc};
use nebula_memory::allocator::{BlockPool, SharedBlockPool};
use std::{
    alloc::{Layout, System},
    hint::black_box,
    ptr::NonNull,
};

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

/// The number of blocks that are allocated at the same time.
const OUT: usize = 64;

/// Takes and frees blocks of 64 bytes. The whole block is written when it is taken, and its first word is read
/// when it is freed: a slab cannot do less.
trait Blocks: 'static {
    const NAME: &'static str;
    type Block: Copy;
    fn make() -> Self;
    fn take(&mut self) -> Self::Block;
    fn free(&mut self, block: Self::Block);
}

#[inline(always)]
fn fill(block: NonNull<u8>) -> NonNull<u8> {
    // SAFETY: the block was just taken; it is 64 bytes long and aligned.
    unsafe { block.cast::<[u64; 8]>().write([1; 8]) };
    block
}

#[inline(always)]
fn read(block: NonNull<u8>) {
    // SAFETY: the block was filled when it was taken, and is not freed yet.
    black_box(unsafe { block.cast::<u64>().read() });
}

impl Blocks for BlockPool {
    const NAME: &'static str = "nebula";
    type Block = NonNull<u8>;
    fn make() -> Self {
        BlockPool::options(LAYOUT).build().expect("a pool")
    }
    #[inline(always)]
    fn take(&mut self) -> NonNull<u8> {
        let block = self.take_block().expect("there is memory");
        fill(block)
    }
    #[inline(always)]
    fn free(&mut self, block: NonNull<u8>) {
        read(block);
        // SAFETY: the block was taken from here, and is freed once.
        unsafe { self.free_block(block) }
    }
}

/// One thread uses the pool that threads may share.
impl Blocks for SharedBlockPool {
    const NAME: &'static str = "nebula (shared)";
    type Block = NonNull<u8>;
    fn make() -> Self {
        BlockPool::options(LAYOUT).build_shared().expect("a pool")
    }
    #[inline(always)]
    fn take(&mut self) -> NonNull<u8> {
        let block = self.take_block().expect("there is memory");
        fill(block)
    }
    #[inline(always)]
    fn free(&mut self, block: NonNull<u8>) {
        read(block);
        // SAFETY: the block was taken from here, and is freed once.
        unsafe { self.free_block(block) }
    }
}

struct Slab(slab::Slab<[u64; 8]>);
impl Blocks for Slab {
    const NAME: &'static str = "slab";
    type Block = usize;
    fn make() -> Self {
        Self(slab::Slab::new())
    }
    #[inline(always)]
    fn take(&mut self) -> usize {
        self.0.insert([1; 8])
    }
    #[inline(always)]
    fn free(&mut self, block: usize) {
        black_box(self.0.remove(block)[0]);
    }
}

impl<A: Malloc> Blocks for A {
    const NAME: &'static str = <A as Malloc>::NAME;
    type Block = NonNull<u8>;
    fn make() -> Self {
        A::IT
    }
    #[inline(always)]
    fn take(&mut self) -> NonNull<u8> {
        let block = self.block(LAYOUT);
        fill(block)
    }
    #[inline(always)]
    fn free(&mut self, block: NonNull<u8>) {
        read(block);
        // SAFETY: the block was taken from here with this layout, and is freed once.
        unsafe { self.dealloc(block.as_ptr(), LAYOUT) }
    }
}

struct Stalloc(Box<stalloc::UnsafeStalloc<4096, 64>>);
impl Blocks for Stalloc {
    const NAME: &'static str = "stalloc";
    type Block = NonNull<u8>;
    fn make() -> Self {
        // SAFETY: the allocator is used by this thread alone.
        Self(Box::new(unsafe { stalloc::UnsafeStalloc::new() }))
    }
    #[inline(always)]
    fn take(&mut self) -> NonNull<u8> {
        // SAFETY: this is one block of 64 bytes, aligned to as many.
        let block = unsafe { self.0.allocate_blocks(1, 1) }.expect("there is memory");
        fill(block)
    }
    #[inline(always)]
    fn free(&mut self, block: NonNull<u8>) {
        read(block);
        // SAFETY: the block was taken from here, and is freed once.
        unsafe { self.0.deallocate_blocks(block, 1) }
    }
}

/// A list of the free blocks, all of which exist from the beginning. The first word of a free block points to the
/// next one.
struct Floor {
    head: Option<NonNull<u8>>,
}

impl Blocks for Floor {
    const NAME: &'static str = "floor";
    type Block = NonNull<u8>;
    fn make() -> Self {
        #[repr(align(64))]
        struct Bytes([u64; 8]);
        let mut floor = Self { head: None };
        for _ in 0..2048 {
            floor.free(NonNull::from(&mut Box::leak(Box::new(Bytes([1; 8]))).0).cast());
        }
        floor
    }
    #[inline(always)]
    fn take(&mut self) -> Self::Block {
        let block = self.head.expect("there are enough");
        // SAFETY: the block is free, so its first word is the link.
        self.head = unsafe { block.cast::<Option<NonNull<u8>>>().read() };
        fill(block)
    }
    #[inline(always)]
    fn free(&mut self, block: Self::Block) {
        read(block);
        // SAFETY: the block is 64 bytes long and aligned, and no longer in use.
        unsafe { block.cast().write(self.head) };
        self.head = Some(block);
    }
}

fn cases<B: Blocks>(bench: &mut Bench) {
    bench.add(
        ("h1", "64-byte blocks, 64 taken, freed in the opposite order"),
        OUT,
        B::NAME,
        || {
            let mut pool = B::make();
            let mut out = Vec::with_capacity(OUT);
            move || {
                for _ in 0..OUT {
                    out.push(black_box(pool.take()));
                }
                while let Some(block) = out.pop() {
                    pool.free(block);
                }
            }
        },
    );
    bench.add(("h2", "64-byte blocks, one taken and freed"), OUT, B::NAME, || {
        let mut pool = B::make();
        move || {
            for _ in 0..OUT {
                let block = black_box(pool.take());
                pool.free(block);
            }
        }
    });
    bench.add(("h3", "64-byte blocks, one of 1024 replaced at random"), 1024, B::NAME, || {
        let mut pool = B::make();
        let mut out: Vec<_> = (0..1024).map(|_| pool.take()).collect();
        let mut state = 1_u32;
        move || {
            for _ in 0..1024 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let slot = &mut out[(state >> 22) as usize];
                pool.free(*slot);
                // Keeps the free and the allocation apart, so that the compiler does not combine them.
                black_box(&mut pool);
                *slot = black_box(pool.take());
            }
        }
    });
    bench.add(
        ("h4", "64-byte blocks, 64 of 1024 at random freed, then taken again"),
        1024,
        B::NAME,
        || {
            let mut pool = B::make();
            let mut out: Vec<_> = (0..1024).map(|_| pool.take()).collect();
            // A permutation: an even factor of the square, an odd factor of the number itself (Rivest 1999).
            let order: Vec<_> =
                (0..1024_usize).map(|at| (at * at * 2 + at * 389 + 7) % 1024).collect();
            move || {
                for some in order.chunks(OUT) {
                    for &at in some {
                        pool.free(out[at]);
                    }
                    for &at in some {
                        out[at] = black_box(pool.take());
                    }
                }
            }
        },
    );
}

pub fn register(bench: &mut Bench) {
    cases::<BlockPool>(bench);
    cases::<SharedBlockPool>(bench);
    cases::<Slab>(bench);
    cases::<System>(bench);
    cases::<mimalloc::MiMalloc>(bench);
    cases::<tikv_jemallocator::Jemalloc>(bench);
    cases::<Stalloc>(bench);
    cases::<Floor>(bench);
}
