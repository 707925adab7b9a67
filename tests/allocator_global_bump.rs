//! A bump allocator within a `static` as the process's own, in a program of its own with one test.
#![cfg(all(feature = "std", not(miri)))]

#[path = "common/maps.rs"]
mod maps;

use maps::maps_on_threads_agree;
use nebula_memory::{
    allocator::bump::{InlineBuffer, SharedBumpAllocator},
    core::MemoryUsage,
};
use std::hint::black_box;

const BYTES: usize = 64 << 20;

#[global_allocator]
static HEAP: SharedBumpAllocator<InlineBuffer<BYTES>> =
    SharedBumpAllocator::from_region(InlineBuffer::new());

#[test]
fn a_program_runs_within_a_static() {
    assert_eq!(HEAP.capacity_bytes(), Some(BYTES));
    let before = HEAP.used_bytes();
    assert!(maps_on_threads_agree());
    assert!(HEAP.used_bytes() > before, "what is not the newest stays");

    // Bytes that come back are dirty, and zeroed again for who asks for zeroes.
    drop(black_box(vec![7_u8; 1 << 20]));
    assert!(black_box(vec![0_u8; 1 << 20]).iter().all(|byte| *byte == 0));

    // Once at least no other thread, of those that run tests, asks in between.
    assert!((0..1000).any(|_| newest_resized_in_place()));
    let mut older: Vec<u64> = (0..10).collect();
    let newer = Box::new(7_u8);
    older.reserve_exact(1000);
    assert!(older.into_iter().eq(0..10) && *newer == 7);

    assert!(Vec::<u8>::new().try_reserve_exact(BYTES).is_err(), "there is no more than that");
}

/// Whether a vector stayed where it is when it grew and shrank, and gave its bytes back.
fn newest_resized_in_place() -> bool {
    let mut vector: Vec<u64> = (0..10).collect();
    let first = vector.as_ptr();
    vector.reserve_exact(1000);
    let used = HEAP.used_bytes();
    let stayed = vector.as_ptr() == first;
    vector.shrink_to(10);
    assert!(vector.iter().copied().eq(0..10));
    stayed && vector.as_ptr() == first && HEAP.used_bytes() + 8000 == used
}
