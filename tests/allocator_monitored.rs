//! Refusal by pressure, and events that are queued until the host delivers them.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    PressureLevel,
    allocator::{
        AllocError, Allocator, BlockPool, MonitoredAllocator, SystemAllocator, TypedAllocator,
    },
    core::{Label, MemoryUsage},
    integration::traits::{Event, EventKind, EventQueue},
};
use std::{
    alloc::Layout,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Returns an allocator that refuses blocks above 1000 bytes at high pressure, and above 100 bytes at
/// critical pressure.
fn monitored<A>(inner: A) -> (MonitoredAllocator<A>, Arc<EventQueue>) {
    let events = Arc::new(EventQueue::new(8));
    let allocator = MonitoredAllocator::new(inner)
        .refuse_above(PressureLevel::High, 1000)
        .refuse_above(PressureLevel::Critical, 100);
    assert!(allocator.report_to(&events, "scratch"));
    (allocator, events)
}

fn told(events: &EventQueue) -> Vec<(EventKind, PressureLevel, usize)> {
    let told = RefCell::new(Vec::new());
    let _ = events.deliver(|event: &Event| {
        assert_eq!(event.component.as_str(), "scratch");
        told.borrow_mut().push((event.kind, event.level, event.requested));
    });
    told.into_inner()
}

#[test]
fn the_largest_allowed_block_shrinks_as_pressure_rises() {
    let (allocator, _) = monitored(SystemAllocator);
    for (level, given, refused) in [
        (PressureLevel::Normal, 1_000_000, None),
        (PressureLevel::Elevated, 1_000_000, None),
        (PressureLevel::High, 1000, Some(1001)),
        (PressureLevel::Critical, 100, Some(101)),
        (PressureLevel::Normal, 1_000_000, None),
    ] {
        allocator.set_level(level);
        for zeroed in [false, true] {
            let request = |size| match zeroed {
                false => allocator.allocate(layout(size, 1)),
                true => allocator.allocate_zeroed(layout(size, 1)),
            };
            let block = request(given).expect("within the bound");
            // SAFETY: the block is allocated with this layout.
            unsafe { allocator.deallocate(block.cast(), layout(given, 1)) };
            if let Some(size) = refused {
                assert_eq!(request(size), Err(AllocError), "{level}");
            }
        }
    }
    assert_eq!(allocator.refused(), 4);
}

#[test]
fn a_shrink_or_a_free_is_never_refused() {
    let base = Awkward::new(0);
    let (allocator, events) = monitored(&base);
    let block = allocator.allocate(layout(5000, 8)).unwrap();
    allocator.set_level(PressureLevel::Critical);
    // SAFETY: the block is allocated with this layout.
    let block = unsafe { allocator.shrink(block.cast(), layout(5000, 8), layout(4000, 8)) };
    // SAFETY: as above; the new layout has as many bytes and only another alignment.
    let block = unsafe { allocator.grow(block.unwrap().cast(), layout(4000, 8), layout(4000, 64)) };
    let block = block.unwrap().cast();
    for zeroed in [false, true] {
        let new = layout(4001, 64);
        let grown = if zeroed {
            // SAFETY: as above; the block stays allocated, as growth is refused.
            unsafe { allocator.grow_zeroed(block, layout(4000, 64), new) }
        } else {
            // SAFETY: as above.
            unsafe { allocator.grow(block, layout(4000, 64), new) }
        };
        assert_eq!(grown, Err(AllocError));
    }
    assert_eq!(base.live(), [layout(4000, 64)], "refused, and as it was");
    // SAFETY: the block is allocated with this layout.
    unsafe { allocator.deallocate(block, layout(4000, 64)) };
    assert!(base.live().is_empty());
    let kinds: Vec<_> = told(&events).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [EventKind::Pressure, EventKind::Refused, EventKind::Refused]);
}

#[test]
fn events_tell_kind_level_and_requested_bytes() {
    let base = Awkward::new(0);
    let (allocator, events) = monitored(&base);
    assert!(told(&events).is_empty());
    allocator.set_level(PressureLevel::High);
    allocator.set_level(PressureLevel::High);
    for size in [1001, 1002] {
        assert!(allocator.allocate(layout(size, 1)).is_err());
    }
    base.most.set(0);
    assert!(allocator.allocate(layout(7, 1)).is_err());
    allocator.set_level(PressureLevel::Normal);
    assert!(allocator.allocate(layout(9, 1)).is_err());
    assert_eq!(
        told(&events),
        [
            (EventKind::Pressure, PressureLevel::High, 0),
            (EventKind::Refused, PressureLevel::High, 1001),
            (EventKind::Refused, PressureLevel::High, 1002),
            (EventKind::Exhausted, PressureLevel::High, 7),
            (EventKind::Pressure, PressureLevel::Normal, 0),
            (EventKind::Exhausted, PressureLevel::Normal, 9),
        ],
    );
    assert!(told(&events).is_empty(), "each is told once");
}

#[test]
fn a_level_without_a_bound_of_its_own_has_that_of_the_one_below() {
    let allocator =
        MonitoredAllocator::new(SystemAllocator).refuse_above(PressureLevel::Elevated, 50);
    let refuses = |level, size| {
        allocator.set_level(level);
        (&allocator).alloc_slice_copy(&vec![0_u8; size]).is_err()
    };
    assert!(!refuses(PressureLevel::Normal, 51));
    assert!(!refuses(PressureLevel::Critical, 50));
    assert!(refuses(PressureLevel::Critical, 51));
}

/// The smaller of two limits counts, in whichever order they are set.
#[test]
fn a_higher_level_never_allows_more() {
    for reversed in [false, true] {
        let allocator = MonitoredAllocator::new(SystemAllocator);
        let mut limits = [(PressureLevel::Elevated, 10), (PressureLevel::Critical, 11)];
        if reversed {
            limits.reverse();
        }
        let allocator = limits
            .into_iter()
            .fold(allocator, |allocator, (level, bytes)| allocator.refuse_above(level, bytes));
        allocator.set_level(PressureLevel::Critical);
        assert_eq!(allocator.level(), PressureLevel::Critical);
        assert!((&allocator).alloc_value([0_u8; 11]).is_err());
        assert!((&allocator).alloc_value([0_u8; 10]).is_ok());
    }
}

#[test]
fn its_usage_is_that_of_the_allocator_below_with_the_refusals() {
    let pool = BlockPool::for_type::<[u8; 100]>().max_blocks(3).build().unwrap();
    // A reference to the pool is an allocator. The pool itself reports its usage.
    let allocator = MonitoredAllocator::new(&pool).refuse_above(PressureLevel::Normal, 60);
    let held = (&allocator).alloc_value(7).unwrap();
    assert!((&allocator).alloc_value([0_u8; 61]).is_err());
    assert_eq!((pool.used_bytes(), allocator.refused()), (104, 1));
    drop(held);
    let measured = MonitoredAllocator::new(vec![0_u64; 4]);
    assert_eq!((measured.usage().used, measured.usage().refused), (32, 0));
}

fn event(requested: usize) -> Event {
    Event::new(Label::new("scratch"), EventKind::Refused, PressureLevel::High, requested)
}

#[test]
fn a_full_queue_drops_the_oldest_and_says_how_many() {
    let queue = EventQueue::new(3);
    (1..=5).for_each(|bytes| queue.push(event(bytes)));
    assert_eq!(queue.pop(), Some(event(3)));
    let seen = RefCell::new(Vec::new());
    let delivered = queue.deliver(|event: &Event| seen.borrow_mut().push(event.requested));
    assert_eq!((delivered, queue.dropped()), (2, 2));
    assert_eq!(seen.into_inner(), [4, 5]);
    let delivered = queue.deliver(|_: &Event| unreachable!("nothing is left"));
    assert_eq!((delivered, queue.dropped()), (0, 2), "the count goes on");
    let queue = EventQueue::new(0);
    queue.push(event(1));
    assert_eq!(queue.pop(), Some(event(1)), "one fits always");
}

#[test]
fn an_observer_may_use_the_queue_and_the_allocator_that_it_hears_of() {
    let (allocator, events) = monitored(SystemAllocator);
    allocator.set_level(PressureLevel::Critical);
    assert!((&allocator).alloc_value([0_u8; 101]).is_err());
    let delivered = events.deliver(|_: &Event| {
        // Pushes another event during a delivery. That event waits for the next delivery, so that this one
        // ends.
        assert!((&allocator).alloc_value([0_u8; 101]).is_err());
    });
    assert_eq!(delivered, 2);
    assert_eq!(told(&events).len(), 2);
}

#[test]
fn an_observer_that_panics_loses_one_event_alone() {
    let picky = |event: &Event| assert_ne!(event.requested, 2, "two is too much");
    let queue = EventQueue::new(3);
    (0..=3).for_each(|bytes| queue.push(event(bytes)));
    let panicked = catch_unwind(AssertUnwindSafe(|| queue.deliver(picky)));
    assert!(panicked.is_err());
    let delivered = queue.deliver(picky);
    assert_eq!((delivered, queue.dropped()), (1, 1), "nor is the count lost");
}

#[test]
fn threads_that_are_refused_are_all_heard() {
    const THREADS: usize = 4;
    const EACH: usize = if cfg!(miri) { 5 } else { 200 };
    let events = Arc::new(EventQueue::new(THREADS * (EACH + 1)));
    let allocator =
        MonitoredAllocator::new(SystemAllocator).refuse_above(PressureLevel::Critical, 0);
    assert!(allocator.report_to(&events, "scratch"));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                allocator.set_level(PressureLevel::Critical);
                (0..EACH).for_each(|_| assert!((&allocator).alloc_value(1).is_err()));
            });
        }
    });
    let told = told(&events);
    let changes = told.iter().filter(|(kind, ..)| *kind == EventKind::Pressure).count();
    assert_eq!((changes, told.len()), (1, THREADS * EACH + 1), "one thread has changed it");
    assert_eq!(allocator.refused(), THREADS * EACH);
}
