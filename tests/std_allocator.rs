//! The allocators as those of the standard library's own containers, with its unstable trait in place of this
//! crate's: `ci/std_allocator.sh`.
#![cfg(nebula_std_allocator)]
#![feature(allocator_api, btreemap_alloc)]

use nebula_memory::{
    Budget,
    allocator::{
        AllocError, AllocatorManager, BlockPool, BumpAllocator, PageAllocator, StackAllocator,
        SystemAllocator, TrackedAllocator, TypedAllocator,
    },
    arena::{ArcArena, Arena, SharedArena},
};
use std::{
    alloc::{Allocator, Layout},
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Fills containers of the standard library that allocate from `allocator`.
fn fill<A: Allocator + Clone>(allocator: A) {
    let mut numbers = Vec::new_in(allocator.clone());
    numbers.extend(0..1000_u64);
    numbers.shrink_to_fit();
    let mut queue = VecDeque::new_in(allocator.clone());
    queue.extend(numbers.iter().copied().filter(|number| number % 3 == 0));
    let mut squares = BTreeMap::new_in(allocator.clone());
    squares.extend(
        queue.iter().map(|number| (*number, Box::new_in(number * number, allocator.clone()))),
    );
    assert_eq!(squares.iter().map(|(number, _)| *number).sum::<u64>(), queue.iter().sum());
    assert_eq!(squares.pop_last().map(|(_, square)| *square), Some(999 * 999));
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
}

#[test]
fn containers_of_the_standard_library_live_in_any_allocator() {
    let mut arena = Arena::new();
    fill(&arena);
    arena.reset();
    fill(&arena);
    let shared = SharedArena::new();
    fill(&shared);
    fill(&shared.handle());
    fill(ArcArena::from(shared));
    fill(SystemAllocator);
    fill(PageAllocator);
    fill(&BumpAllocator::with_capacity(1 << 20).unwrap());
    fill(&StackAllocator::with_capacity(1 << 20).unwrap());
    fill(&TrackedAllocator::new(SystemAllocator));
    fill(Arc::new(TrackedAllocator::new(SystemAllocator)));
    fill(&AllocatorManager::new("system", SystemAllocator).unwrap());
}

#[test]
fn a_pool_serves_boxes_of_its_layout_and_an_error_otherwise() {
    let layout = Layout::new::<[u64; 8]>();
    let pool = BlockPool::options(layout).build().unwrap();
    let shared = BlockPool::options(layout).build_shared().unwrap();
    assert_eq!(*Box::new_in([1_u64; 8], &pool), [1; 8]);
    assert_eq!(*Box::new_in([2_u64; 8], &shared), [2; 8]);
    assert_eq!((&pool).allocate(Layout::new::<[u64; 9]>()), Err(AllocError));
}

#[test]
fn boxes_of_this_crate_and_of_the_standard_library_share_an_allocator() {
    let run = Budget::root("run").limit(1 << 20).build().unwrap();
    let arena = Arena::options().budget(&run).build().unwrap();
    let (ours, theirs) = ((&arena).alloc_value(1).unwrap(), Box::new_in(2, &arena));
    assert_eq!((*ours, *theirs), (1, 2));
    assert!(run.usage().used > 0);
}
