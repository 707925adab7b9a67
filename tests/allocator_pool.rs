//! Blocks of one size: random use, growth, maxima, misuse.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    allocator::{
        AllocError, Allocator, BlockPool, SharedBlockPool, SystemAllocator, TypedAllocator,
        pool::BlockPoolOptions,
    },
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    cell::Cell,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    rc::Rc,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_stay_apart_and_slabs_go(
        steps in proptest::collection::vec(any::<(bool, usize)>(), 0..if cfg!(miri) { 60 } else { 400 }),
        size in 0..200_usize,
        shift in 0..13_u32,
        first in 0..9_usize,
        max_slab in 0..20_usize,
        max_blocks in 0..120_usize,
        most in prop_oneof![Just(usize::MAX), 0..20_000_usize],
    ) {
        let base = Awkward::new(3);
        base.most.set(most);
        let layout = Layout::from_size_align(size, 1 << shift).unwrap();
        let options = BlockPool::options(layout)
            .first_slab_blocks(first)
            .max_slab_blocks(max_slab)
            .max_blocks(max_blocks);
        let pool = options.build_in(&base).unwrap();
        let size = pool.block_layout().size();
        prop_assert!(size >= layout.size() && pool.block_layout().align() >= layout.align());
        let mut live: Vec<(NonNull<u8>, u8)> = Vec::new();
        let mut peak = 0;
        for ((take, which), seed) in steps.into_iter().zip((0..=u8::MAX).cycle()) {
            if take {
                let block = pool.take_block();
                prop_assert!(block.is_ok() || live.len() == max_blocks || most < usize::MAX);
                if let Ok(block) = block {
                    prop_assert!(block.addr().get().is_multiple_of(layout.align()));
                    // SAFETY: the block is live and of this size.
                    unsafe { block.write_bytes(seed, size) };
                    live.push((block, seed));
                }
            } else if !live.is_empty() {
                let (block, seed) = live.remove(which % live.len());
                // SAFETY: the block is live, and was written.
                let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), size) };
                prop_assert!(bytes.iter().all(|byte| *byte == seed), "overwritten");
                // SAFETY: the block is live, and is not used from here on.
                unsafe { pool.free_block(block) };
            }
            peak = peak.max(live.len());
            prop_assert!(live.len() <= max_blocks);
            prop_assert_eq!(pool.used_bytes(), live.len() * size);
            prop_assert_eq!(pool.peak_bytes(), peak * size);
            prop_assert_eq!(pool.held_bytes(), base.live().iter().map(Layout::size).sum::<usize>());
            prop_assert!(pool.held_bytes() >= (live.len() + pool.free_blocks()) * size);
        }
        let distinct: HashSet<_> = live.iter().map(|(block, _)| *block).collect();
        prop_assert_eq!(distinct.len(), live.len());
        drop(pool);
        prop_assert_eq!(base.live().len(), 0);
    }
}

#[test]
fn layouts_that_fit_a_block_are_served_and_others_refused() {
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    let pool = BlockPool::options(layout(96, 32)).build().unwrap();
    let pool = &pool;
    for (size, align) in [(97, 1), (1, 64), (128, 32)] {
        assert!(pool.allocate(layout(size, align)).is_err(), "{size} aligned to {align}");
    }
    let block = pool.allocate_zeroed(layout(10, 2)).unwrap();
    assert_eq!(block.len(), 96);
    // SAFETY: zeroed as a whole.
    assert_eq!(unsafe { block.as_ref() }, [0; 96]);
    let block = block.cast::<u8>();
    // SAFETY: the block is 96 bytes long.
    unsafe { block.write_bytes(5, 96) };
    // SAFETY: live, with this layout, and the new one is larger.
    let grown = unsafe { pool.grow_zeroed(block, layout(10, 2), layout(96, 32)) }.unwrap();
    assert_eq!(grown.cast(), block, "in place");
    // SAFETY: live, and all bytes are initialised.
    assert_eq!(unsafe { grown.as_ref() }, [&[5; 10][..], &[0; 86]].concat());
    // SAFETY: live, with this layout, and the new one is larger.
    assert!(unsafe { pool.grow(block, layout(96, 32), layout(97, 32)) }.is_err());
    // SAFETY: live, with this layout, and the new one is smaller.
    let empty = unsafe { pool.shrink(block, layout(96, 32), layout(0, 1)) }.unwrap();
    assert_eq!((empty.len(), pool.used_bytes()), (0, 0));
    // SAFETY: allocated here, with no bytes.
    unsafe { pool.deallocate(empty.cast(), layout(0, 1)) };
    assert_eq!(pool.used_bytes(), 0);
}

#[test]
fn a_slab_too_large_and_a_block_beyond_the_maximum_are_refused() {
    let huge = Layout::from_size_align(1 << 40, 8).unwrap();
    assert!(BlockPool::options(huge).max_slab_blocks(usize::MAX).build().is_err());
    let none = BlockPool::for_type::<u8>().max_blocks(0).build().unwrap();
    assert!(none.take_block().is_err());
}

#[test]
fn a_pool_goes_to_another_thread_and_its_values_are_dropped() {
    let value = std::rc::Rc::new(());
    {
        let pool = BlockPool::for_type::<std::rc::Rc<()>>().build().unwrap();
        let boxed = pool.alloc_value(value.clone()).unwrap();
        assert_eq!(std::rc::Rc::strong_count(&boxed), 2);
    }
    assert_eq!(std::rc::Rc::strong_count(&value), 1);
    let pool = BlockPool::for_type::<u64>().build().unwrap();
    let pool = std::thread::spawn(move || {
        assert_eq!(*pool.alloc_value(7_u64).unwrap(), 7);
        pool
    });
    assert_eq!(pool.join().unwrap().free_blocks(), 64);
}

/// Misuse. Each kind is detected before anything is written.
#[cfg(debug_assertions)]
mod misuse {
    use super::*;

    fn message(misuse: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(misuse)).unwrap_err().downcast::<String>().unwrap()
    }

    /// Runs every test below with the single-threaded pool and with the shared pool.
    macro_rules! for_both_pools {
        ($($test:ident)+) => {
            mod of_one_thread {
                $(#[test] fn $test() { super::$test(|options| options.build().unwrap()); })+
            }
            mod of_many_threads {
                $(#[test] fn $test() { super::$test(|options| options.build_shared().unwrap()); })+
            }
        };
    }

    for_both_pools! {
        a_double_free_is_seen_however_long_ago_the_first_was
        a_block_of_another_pool_is_seen
        a_pointer_into_a_block_is_seen
        a_layout_that_does_not_fit_is_seen
        a_write_to_a_freed_block_is_seen_when_it_is_given_out
    }

    trait Pool {
        fn take(&self) -> NonNull<u8>;
        /// Safety: as for `free_block`, or misuse that the pool detects.
        unsafe fn free(&self, block: NonNull<u8>);
        /// Safety: as for `deallocate`, or misuse that the pool detects.
        unsafe fn free_with(&self, block: NonNull<u8>, layout: Layout);
    }

    macro_rules! pool {
        ($pool:ty) => {
            impl Pool for $pool {
                fn take(&self) -> NonNull<u8> {
                    self.take_block().unwrap()
                }
                unsafe fn free(&self, block: NonNull<u8>) {
                    // SAFETY: as the caller says.
                    unsafe { self.free_block(block) }
                }
                unsafe fn free_with(&self, block: NonNull<u8>, layout: Layout) {
                    // SAFETY: as the caller says.
                    unsafe { (&self).deallocate(block, layout) }
                }
            }
        };
    }
    pool!(BlockPool);
    pool!(SharedBlockPool);

    fn options() -> BlockPoolOptions {
        BlockPool::for_type::<[u64; 4]>()
    }

    fn a_double_free_is_seen_however_long_ago_the_first_was<P: Pool>(
        make: fn(BlockPoolOptions) -> P,
    ) {
        let pool = make(options());
        let blocks: Vec<_> = (0..200).map(|_| pool.take()).collect();
        for block in &blocks {
            // SAFETY: in use, and freed once here.
            unsafe { pool.free(*block) };
        }
        for block in [blocks[0], blocks[100], blocks[199]] {
            // SAFETY: this is the misuse, which the pool detects.
            let message = message(|| unsafe { pool.free(block) });
            assert!(message.contains("is freed twice to this "), "{message}");
        }
        let all: HashSet<_> = blocks.iter().map(|_| pool.take()).collect();
        assert_eq!(all.len(), 200, "none was destroyed");
    }

    fn a_block_of_another_pool_is_seen<P: Pool>(make: fn(BlockPoolOptions) -> P) {
        let (pool, other) = (make(options()), make(options()));
        let (_own, foreign) = (pool.take(), other.take());
        // SAFETY: this is the misuse, which the pool detects.
        let message = message(|| unsafe { pool.free(foreign) });
        assert!(message.contains("is not a block of this "), "{message}");
        // SAFETY: in use, and freed once.
        unsafe { other.free(foreign) };
    }

    fn a_pointer_into_a_block_is_seen<P: Pool>(make: fn(BlockPoolOptions) -> P) {
        let pool = make(options());
        // SAFETY: a block is longer than eight bytes.
        let inside = unsafe { pool.take().add(8) };
        // SAFETY: this is the misuse, which the pool detects.
        let message = message(|| unsafe { pool.free(inside) });
        assert!(message.ends_with("but leads into one"), "{message}");
    }

    fn a_layout_that_does_not_fit_is_seen<P: Pool>(make: fn(BlockPoolOptions) -> P) {
        let pool = make(options());
        let block = pool.take();
        for (size, align) in [(33, 8), (32, 16)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: this is the misuse, which the pool detects.
            let message = message(|| unsafe { pool.free_with(block, layout) });
            assert!(message.contains("does not fit a block of this "), "{message}");
        }
        // SAFETY: in use, with a layout that fits.
        unsafe { pool.free_with(block, Layout::new::<[u64; 3]>()) };
    }

    fn a_write_to_a_freed_block_is_seen_when_it_is_given_out<P: Pool>(
        make: fn(BlockPoolOptions) -> P,
    ) {
        if cfg!(feature = "sanitize") {
            return; // The write is forbidden.
        }
        let pool = make(options());
        let block = pool.take();
        // SAFETY: in use, and freed once.
        unsafe { pool.free(block) };
        // SAFETY: a block is longer than 24 bytes.
        let inside = unsafe { block.add(24) };
        // SAFETY: the slab is allocated: the write is misuse of the pool alone.
        unsafe { inside.write(7) };
        let message = message(|| {
            pool.take();
        });
        assert!(message.contains("was written to after it was freed to this "), "{message}");
    }
}

/// A base allocator that calls the hook once, at the next request. The hook returns whether there is memory.
#[derive(Clone, Default)]
struct Hooked(Rc<Cell<Option<Hook>>>);

type Hook = Box<dyn FnOnce() -> bool>;

// SAFETY: every block is `SystemAllocator`'s.
unsafe impl Allocator for Hooked {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if self.0.take().is_some_and(|hook| !hook()) {
            return Err(AllocError);
        }
        SystemAllocator.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

fn free<A: Allocator>(pool: &BlockPool<A>, block: NonNull<u8>) {
    // SAFETY: the callers took it from this pool, and do not use it again.
    unsafe { pool.free_block(block) };
}

#[test]
fn a_block_that_is_there_once_the_base_allocator_was_asked_is_given_out() {
    let base = Hooked::default();
    let pool = |options: BlockPoolOptions| Rc::new(options.build_in(base.clone()).unwrap());
    // A block is freed in the meantime, and the base allocator has no memory.
    let one = pool(BlockPool::for_type::<u64>().first_slab_blocks(1));
    let block = one.take_block().unwrap();
    let theirs = Rc::clone(&one);
    base.0.set(Some(Box::new(move || {
        free(&theirs, block);
        false
    })));
    assert_eq!(one.take_block(), Ok(block));
    base.0.set(Some(Box::new(|| false)));
    assert_eq!(one.take_block(), Err(AllocError));
    free(&one, block);

    // The pool has a block that was never used, and the base allocator has no memory.
    let other = pool(BlockPool::for_type::<u64>().first_slab_blocks(4));
    let theirs = Rc::clone(&other);
    base.0.set(Some(Box::new(move || {
        free(&theirs, theirs.take_block().unwrap());
        let _ = theirs.take_block().unwrap();
        false
    })));
    assert!(other.take_block().is_ok());
    assert_eq!(other.free_blocks(), 2);

    // The pool has reached its maximum, and the base allocator's slab would be one too many.
    let last = pool(BlockPool::for_type::<u64>().first_slab_blocks(1).max_blocks(1));
    let theirs = Rc::clone(&last);
    base.0.set(Some(Box::new(move || {
        free(&theirs, theirs.take_block().unwrap());
        true
    })));
    assert!(last.take_block().is_ok());
    assert_eq!(last.take_block(), Err(AllocError));
}
