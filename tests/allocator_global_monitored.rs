//! Tests a monitored allocator as the process's global allocator. This program has a single test, and only
//! the test allocates blocks of the sizes that it checks.
#![cfg(all(feature = "std", not(miri)))]

use nebula_memory::{
    PressureLevel,
    allocator::MonitoredAllocator,
    integration::traits::{EventKind, EventQueue},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::Arc,
};

const LARGE: usize = 64 << 20;
const TIGHT: usize = 8 << 20;

/// The threshold that is set first for a higher level stays, whatever is set later for lower levels.
#[global_allocator]
static HEAP: MonitoredAllocator<System> = MonitoredAllocator::new(System)
    .refuse_above(PressureLevel::Critical, TIGHT)
    .refuse_above(PressureLevel::High, LARGE);

fn reserve(bytes: usize) -> bool {
    black_box(Vec::<u8>::new()).try_reserve_exact(bytes).is_ok()
}

#[test]
fn the_process_is_refused_large_blocks_under_pressure() {
    assert!(reserve(LARGE + 1), "there is memory");
    HEAP.set_level(PressureLevel::High);
    assert!(!reserve(LARGE + 1) && reserve(LARGE));
    assert_eq!(HEAP.refused(), 1, "and nobody had to be told");

    let events = Arc::new(EventQueue::new(16));
    assert!(HEAP.report_to(&events, "heap"));
    assert!(!HEAP.report_to(&events, "another"), "it has a queue");
    HEAP.set_level(PressureLevel::Critical);
    assert!(!reserve(TIGHT + 1) && reserve(TIGHT));
    assert_eq!(HEAP.refused(), 2);
    let told: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
    assert!(told.iter().all(|event| event.component.as_str() == "heap"));
    let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Pressure, EventKind::Refused]);
    assert_eq!(told[1].requested, TIGHT + 1);

    // A vector grows with `realloc`. That is refused too, and the block stays unchanged.
    let mut grown = vec![7_u8; TIGHT];
    assert!(grown.try_reserve_exact(1).is_err());
    assert!(grown.iter().all(|byte| *byte == 7));
    // Shrinking a block is never refused, however large the block stays.
    HEAP.set_level(PressureLevel::Normal);
    let mut zeroed = black_box(vec![0_u8; 2 * LARGE]);
    HEAP.set_level(PressureLevel::Critical);
    zeroed.truncate(LARGE);
    zeroed.shrink_to_fit();
    assert_eq!((zeroed.capacity(), zeroed[LARGE - 1]), (LARGE, 0));
    // SAFETY: the size is not zero.
    assert!(unsafe { HEAP.alloc_zeroed(Layout::new::<[u8; TIGHT + 1]>()) }.is_null());
}
