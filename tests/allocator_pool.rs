//! Blocks of one size: random use, growth, maxima, misuse.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    allocator::{Allocator, BlockPool, TypedAllocator},
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
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
                // SAFETY: the block is live, and goes unused from here on.
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
fn what_no_pool_can_be_is_refused() {
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

#[cfg(debug_assertions)]
#[test]
fn misuse_is_seen_with_debug_assertions() {
    let pool = BlockPool::for_type::<u64>().build().unwrap();
    let message = |misuse: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(misuse)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    };
    let block = pool.take_block().unwrap();
    // SAFETY: live; the second time is the misuse, which panics before anything is written.
    let free = || unsafe { pool.free_block(block) };
    free();
    assert!(message(&free).ends_with("is freed twice"));
    let other = BlockPool::for_type::<u64>().build().unwrap();
    let foreign = other.take_block().unwrap();
    // SAFETY: the misuse panics before anything is written.
    let free = || unsafe { pool.free_block(foreign) };
    assert!(message(&free).ends_with("is not a block of this pool"));
    let block = pool.take_block().unwrap();
    // SAFETY: the block is longer than a byte.
    let inside = unsafe { block.add(1) };
    // SAFETY: the misuse panics before anything is written.
    let free = || unsafe { pool.free_block(inside) };
    assert!(message(&free).ends_with("is not a block of this pool"));
    // SAFETY: live, and of this pool.
    unsafe { other.free_block(foreign) };
}
