//! Containers that live in arenas.
#![cfg(all(feature = "allocator-api2-02", feature = "allocator-api2-04"))]

use allocator_api2_04::{boxed::Box, vec::Vec as ArenaVec};
use hashbrown::{DefaultHashBuilder, HashMap};
use nebula_memory::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down, Up},
    },
    arena::Arena,
    core::MemoryUsage,
};
use std::alloc::Layout;

fn arena<D: Direction, const MIN: usize>() -> Arena<SystemAllocator, D, MIN> {
    Arena::options().direction::<D>().min_align::<MIN>().build().unwrap()
}

fn vectors_and_maps<D: Direction, const MIN: usize>() {
    let count = if cfg!(miri) { 200 } else { 10_000_u32 };
    let mut arena = arena::<D, MIN>();
    for _ in 0..2 {
        let mut first = ArenaVec::new_in(&arena);
        let mut second = ArenaVec::new_in(&arena);
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &arena);
        for i in 0..count {
            first.push(i);
            second.push(u64::from(i) << 1);
            map.insert(i, Box::new_in([i; 3], &arena));
        }
        assert!((0..count).eq(first.iter().copied()));
        assert!((0..count).all(|i| map[&i][..] == [i; 3]));
        first.truncate(1);
        first.shrink_to_fit();
        second.shrink_to_fit();
        assert_eq!((first[0], second.len()), (0, usize::try_from(count).unwrap()));
        assert!(second.iter().copied().eq((0..u64::from(count)).map(|i| i << 1)));
        drop((first, second, map));
        arena.reset();
    }
}

#[test]
fn vectors_maps_and_boxes_keep_their_contents() {
    vectors_and_maps::<Down, 1>();
    vectors_and_maps::<Down, 8>();
    vectors_and_maps::<Up, 1>();
    vectors_and_maps::<Up, 16>();
}

#[test]
fn the_newest_vector_grows_where_it_is() {
    let arena = Arena::options().initial_chunk_bytes(1 << 16).build().unwrap();
    let mut values = ArenaVec::with_capacity_in(1, &arena);
    values.push(0_u64);
    let at = values.as_ptr();
    for i in 1..4000 {
        values.push(i);
    }
    assert_eq!(values.as_ptr(), at);
    assert_eq!(arena.used_bytes(), 1 << 16, "nothing is left behind by growth");
}

#[test]
fn a_vector_that_goes_gives_its_bytes_back_if_it_is_the_newest() {
    fn check<D: Direction>() {
        let arena = arena::<D, 8>();
        let first = ArenaVec::<u64, _>::with_capacity_in(10, &arena);
        let at = first.as_ptr();
        drop(first);
        let again = ArenaVec::<u64, _>::with_capacity_in(10, &arena);
        assert_eq!(again.as_ptr(), at);
    }
    check::<Up>();
    check::<Down>();
}

/// A block grows or shrinks to a larger alignment, which its address has by chance or not at all.
#[test]
fn growth_and_shrinking_to_a_larger_alignment() {
    fn check<D: Direction>() {
        let arena = arena::<D, 1>();
        let arena = &arena;
        for shift in 0..8 {
            let old = Layout::from_size_align(24, 1).unwrap();
            let new = Layout::from_size_align(40, 1 << shift).unwrap();
            let last = Layout::from_size_align(8, 1 << (shift + 1)).unwrap();
            let block = arena.allocate(old).unwrap().cast::<u8>();
            // SAFETY: the block is 24 bytes long.
            unsafe { block.write_bytes(7, 24) };
            // SAFETY: the block is allocated here for `old`, and `new` is larger.
            let grown = unsafe { arena.grow_zeroed(block, old, new) }.unwrap();
            assert!(grown.cast::<u8>().addr().get().is_multiple_of(new.align()));
            // SAFETY: the block is 40 bytes long, of which all are initialised.
            let bytes = unsafe { grown.as_ref() };
            assert_eq!(bytes, [&[7_u8; 24][..], &[0; 16]].concat());
            // SAFETY: the block is allocated here for `new`, and `last` is smaller.
            let shrunk = unsafe { arena.shrink(grown.cast(), new, last) }.unwrap();
            assert!(shrunk.cast::<u8>().addr().get().is_multiple_of(last.align()));
            // SAFETY: the block is 8 bytes long, of which all are initialised.
            assert_eq!(unsafe { shrunk.as_ref() }, [7; 8]);
        }
    }
    check::<Up>();
    check::<Down>();
}

/// A zero-sized block between others is grown, shrunk to nothing and freed.
#[test]
fn blocks_of_no_bytes_take_no_place() {
    fn check<D: Direction>() {
        let arena = arena::<D, 1>();
        let arena = &arena;
        let nothing = Layout::from_size_align(0, 32).unwrap();
        let eight = Layout::from_size_align(8, 8).unwrap();
        let empty = arena.allocate(nothing).unwrap().cast::<u8>();
        assert!(empty.addr().get().is_multiple_of(32));
        assert_eq!(arena.used_bytes(), 0);
        let value = arena.allocate(eight).unwrap().cast::<u64>();
        // SAFETY: the block is a `u64`'s.
        unsafe { value.write(7) };
        // SAFETY: allocated here for `nothing`.
        let grown = unsafe { arena.grow(empty, nothing, eight) }.unwrap().cast::<u64>();
        // SAFETY: the block is a `u64`'s.
        unsafe { grown.write(8) };
        // SAFETY: allocated here for `eight`.
        let gone = unsafe { arena.shrink(grown.cast(), eight, nothing) }.unwrap();
        assert_eq!((gone.len(), gone.cast::<u8>().addr().get() % 32), (0, 0));
        // SAFETY: allocated here for `nothing`.
        unsafe { arena.deallocate(gone.cast(), nothing) };
        // SAFETY: written above, and still allocated.
        assert_eq!(unsafe { value.read() }, 7);
    }
    check::<Up>();
    check::<Down>();
}
