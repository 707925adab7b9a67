//! Tests `PageAllocator` as the process's global allocator, in a program of its own.
#![cfg(all(feature = "std", not(miri)))]

#[path = "common/maps.rs"]
mod maps;

use maps::maps_on_threads_agree;
use nebula_memory::{allocator::PageAllocator, syscalls::info::page_size};
use std::{
    alloc::{GlobalAlloc, Layout},
    hint::black_box,
};

#[global_allocator]
static HEAP: PageAllocator = PageAllocator;

#[test]
fn a_program_runs_on_pages_alone() {
    assert!(maps_on_threads_agree());

    let page = page_size();
    let mut grown: Vec<usize> = black_box(Vec::new());
    for i in 0..10 * page {
        grown.push(i);
    }
    assert!(grown.as_ptr().addr().is_multiple_of(page));
    assert!(grown.iter().copied().eq(0..10 * page));
    grown.truncate(3);
    grown.shrink_to_fit();
    assert_eq!((grown.capacity(), &grown[..]), (3, &[0, 1, 2][..]));
    assert!(black_box(vec![0_u8; 5 * page]).iter().all(|byte| *byte == 0));

    let wide = Layout::from_size_align(1, 2 * page).unwrap();
    // SAFETY: the size is not zero.
    assert!(unsafe { HEAP.alloc(wide) }.is_null(), "no page is aligned to two");
    assert!(Vec::<u8>::new().try_reserve_exact(isize::MAX.unsigned_abs() - page).is_err());
}
