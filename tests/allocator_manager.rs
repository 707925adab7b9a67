//! Named allocators: routes, scopes, and blocks that return to their own allocator.
#![cfg(feature = "std")]

use nebula_memory::allocator::{
    AllocError, Allocator, AllocatorHandle, AllocatorManager, SystemAllocator, TrackedAllocator,
    TypedAllocator, stats::SharedCounters,
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// An allocator for tests. It records its live blocks, refuses blocks beyond a size, and reports its drop.
struct Known {
    blocks: Mutex<Vec<(usize, Layout)>>,
    most: usize,
    gone: Arc<AtomicUsize>,
}

impl Known {
    fn up_to(most: usize) -> (Arc<Self>, Arc<AtomicUsize>) {
        let gone = Arc::default();
        (Arc::new(Self { blocks: Mutex::default(), most, gone: Arc::clone(&gone) }), gone)
    }

    fn live(&self) -> usize {
        self.blocks.lock().unwrap().len()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let left = self.live();
        self.gone.fetch_add(1, Relaxed);
        assert_eq!(left, 0, "dropped before its blocks");
    }
}

// SAFETY: blocks are `SystemAllocator`'s. The panics are failed assertions, which end a test that has
// shown a contract to be broken.
unsafe impl Allocator for Known {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() > self.most {
            return Err(AllocError);
        }
        let block = SystemAllocator.allocate(layout)?;
        self.blocks.lock().unwrap().push((block.addr().get(), layout));
        Ok(block)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        let mut blocks = self.blocks.lock().unwrap();
        let at = blocks.iter().position(|known| *known == (block.addr().get(), layout));
        blocks.swap_remove(at.expect("a block of this allocator, with its layout"));
        drop(blocks);
        // SAFETY: it came from there with this layout.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

/// Returns a manager of three allocators. The first is the default.
fn three() -> (AllocatorManager, [Arc<Known>; 3], [AllocatorHandle; 3]) {
    let known = [(); 3].map(|()| Known::up_to(1 << 20).0);
    let manager = AllocatorManager::new("a", Arc::clone(&known[0])).unwrap();
    let handles = [
        manager.get("a").unwrap(),
        manager.register("b", Arc::clone(&known[1])).unwrap(),
        manager.register("c", Arc::clone(&known[2])).unwrap(),
    ];
    (manager, known, handles)
}

/// Runs `work` while `allocator` is the default.
fn with<R>(manager: &AllocatorManager, allocator: &AllocatorHandle, work: impl FnOnce() -> R) -> R {
    let before = manager.default_allocator();
    manager.set_default(allocator.name()).unwrap();
    let outcome = work();
    manager.set_default(before.name()).unwrap();
    outcome
}

fn live(known: &[Arc<Known>; 3]) -> [usize; 3] {
    known.each_ref().map(|known| known.live())
}

#[test]
fn a_free_goes_to_the_allocator_that_made_the_block_whatever_the_default_is() {
    let (manager, known, [_, b, c]) = three();
    let in_b = with(&manager, &b, || (&manager).alloc_value(1).unwrap());
    let in_a = (&manager).alloc_value(2).unwrap();
    assert_eq!(live(&known), [1, 1, 0]);
    with(&manager, &c, || drop(in_b));
    assert_eq!(live(&known), [1, 0, 0]);
    manager.set_default("c").unwrap();
    drop(in_a);
    assert_eq!(live(&known), [0, 0, 0]);
}

#[test]
fn a_block_that_changes_its_size_stays_with_its_allocator() {
    let (manager, known, [_, b, _]) = three();
    let block = with(&manager, &b, || manager.allocate(layout(10, 1))).unwrap().cast();
    // SAFETY: the block is allocated with this layout.
    let block = unsafe { manager.grow(block, layout(10, 1), layout(500, 1)) }.unwrap().cast();
    assert_eq!(live(&known), [0, 1, 0]);
    // SAFETY: as above.
    let block = unsafe { manager.shrink(block, layout(500, 1), layout(0, 1)) }.unwrap().cast();
    assert_eq!(live(&known), [0, 1, 0]);
    // SAFETY: as above.
    unsafe { manager.deallocate(block, layout(0, 1)) };
    assert_eq!(live(&known), [0; 3]);
}

#[test]
fn a_block_that_outgrows_its_allocator_moves_with_its_bytes() {
    let (small, _) = Known::up_to(100);
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let handle = manager.register("small", Arc::clone(&small)).unwrap();
    for zeroed in [false, true] {
        let block = with(&manager, &handle, || manager.allocate(layout(64, 1)));
        let block = block.unwrap().cast::<u8>();
        assert_eq!(small.live(), 1);
        // SAFETY: the block is valid for 64 bytes.
        unsafe { block.write_bytes(0xAB, 64) };
        let new = layout(1000, 1);
        let block = if zeroed {
            // SAFETY: the block is allocated with this layout.
            unsafe { manager.grow_zeroed(block, layout(64, 1), new) }
        } else {
            // SAFETY: as above.
            unsafe { manager.grow(block, layout(64, 1), new) }
        };
        let block = block.unwrap().cast::<u8>();
        assert_eq!(small.live(), 0);
        let written = if zeroed { 1000 } else { 64 };
        // SAFETY: as many bytes were written, or are zero.
        let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), written) };
        assert!(bytes[..64].iter().all(|byte| *byte == 0xAB));
        assert!(bytes[64..].iter().all(|byte| *byte == 0));
        // SAFETY: the block is allocated with this layout.
        unsafe { manager.deallocate(block, new) };
    }
}

#[test]
fn a_block_that_cannot_grow_stays_unchanged() {
    let (small, _) = Known::up_to(100);
    let manager = AllocatorManager::new("small", Arc::clone(&small)).unwrap();
    let (other, _) = Known::up_to(50);
    let other = manager.register("other", other).unwrap();
    let block = manager.allocate(layout(64, 1)).unwrap().cast::<u8>();
    // SAFETY: the block is valid for 64 bytes.
    unsafe { block.write_bytes(0xAB, 64) };
    let grow = || {
        // SAFETY: the block is allocated with this layout, and stays so on an error.
        unsafe { manager.grow(block, layout(64, 1), layout(1000, 1)) }
    };
    assert_eq!(grow(), Err(AllocError));
    assert_eq!(with(&manager, &other, grow), Err(AllocError));
    // SAFETY: the bytes were written.
    let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), 64) };
    assert!(bytes.iter().all(|byte| *byte == 0xAB));
    // SAFETY: the block is allocated with this layout.
    unsafe { manager.deallocate(block, layout(64, 1)) };
    assert_eq!(small.live(), 0);
}

#[test]
fn an_unregistered_allocator_stays_until_its_last_block_is_freed() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let (known, gone) = Known::up_to(1000);
    let handle = manager.register("known", known).unwrap();
    let [first, second] =
        with(&manager, &handle, || [1, 2].map(|value| (&manager).alloc_value(value).unwrap()));
    drop((handle, manager.unregister("known").unwrap()));
    assert!(manager.get("known").is_none());
    drop(first);
    assert_eq!((gone.load(Relaxed), *second), (0, 2));
    drop(second);
    assert_eq!(gone.load(Relaxed), 1);
}

#[test]
fn an_allocator_that_panics_when_it_is_dropped_does_not_unwind_out_of_a_free() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    // SAFETY: every method is `SystemAllocator`'s own.
    unsafe impl Allocator for Bomb {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            SystemAllocator.allocate(layout)
        }

        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: the caller's promises.
            unsafe { SystemAllocator.deallocate(block, layout) }
        }
    }
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let bomb = manager.register("bomb", Bomb).unwrap();
    let value = with(&manager, &bomb, || (&manager).alloc_value(1).unwrap());
    drop((bomb, manager.unregister("bomb").unwrap()));
    drop(value);
}

#[test]
fn a_manager_that_leads_back_to_itself_refuses() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    manager.register("self", manager.clone()).unwrap();
    // The manager is registered with another manager, and within a wrapper.
    let outer = AllocatorManager::new(
        "inner",
        TrackedAllocator::with_counters(manager.clone(), SharedCounters::new()),
    )
    .unwrap();
    assert!((&outer).alloc_value(1).is_ok());
    manager.set_default("self").unwrap();
    assert_eq!(manager.allocate(layout(10, 1)), Err(AllocError));
    assert_eq!(outer.allocate_zeroed(layout(10, 1)), Err(AllocError));
    manager.set_default("system").unwrap();
    assert!((&outer).alloc_value(1).is_ok());
    // Otherwise the manager holds itself.
    drop(manager.unregister("self").unwrap());
}

#[test]
fn names_are_unique_known_and_not_empty() {
    let (manager, _, _) = three();
    assert_eq!(manager.names(), ["a", "b", "c"]);
    let allowed =
        |result: Result<(), nebula_memory::core::ConfigError>| result.unwrap_err().allowed;
    assert_eq!(
        allowed(manager.register("b", SystemAllocator).map(drop)),
        "a name that is not taken"
    );
    assert_eq!(
        allowed(manager.register("", SystemAllocator).map(drop)),
        "a name that is not empty"
    );
    assert_eq!(allowed(manager.unregister("a").map(drop)), "an allocator that is not the default");
    for unknown in [manager.unregister("x").map(drop), manager.set_default("x")] {
        assert_eq!(allowed(unknown), "a registered allocator's name");
    }
    manager.set_default("b").unwrap();
    manager.unregister("a").unwrap();
    manager.register("a", SystemAllocator).unwrap();
    assert_eq!(manager.names(), ["b", "c", "a"]);
}

#[test]
fn a_handles_blocks_cost_nothing_and_go_back_through_it() {
    let (manager, known, [_, b, _]) = three();
    let block = b.allocate(layout(100, 1)).unwrap();
    assert_eq!(known[1].blocks.lock().unwrap()[0].1, layout(100, 1));
    drop(manager);
    // SAFETY: the block is allocated with this layout; a clone is the same allocator.
    unsafe { b.clone().deallocate(block.cast(), layout(100, 1)) };
    assert_eq!(live(&known), [0; 3]);
}

#[test]
fn a_routed_block_costs_eight_bytes_at_any_alignment() {
    let (manager, known, _) = three();
    for align in [1, 8, 64, 4096] {
        let block = manager.allocate(layout(100, align)).unwrap();
        assert_eq!(block.addr().get() % align, 0);
        let below = known[0].blocks.lock().unwrap()[0].1;
        assert_eq!(below, layout(100 + size_of::<usize>(), align));
        // SAFETY: the block is allocated with this layout.
        unsafe { manager.deallocate(block.cast(), layout(100, align)) };
    }
    let huge = layout(isize::MAX as usize, 1);
    assert_eq!(manager.allocate(huge), Err(AllocError), "eight bytes more cannot be");
}

#[test]
fn blocks_cross_threads_while_allocators_come_and_go() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let (threads, rounds) = if cfg!(miri) { (2, 6) } else { (4, 300) };
    let gone: Arc<AtomicUsize> = Arc::default();
    let handed = Mutex::new(Vec::new());
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for id in 0..threads {
            let (manager, gone, handed, start) = (&manager, &gone, &handed, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..rounds {
                    let name = format!("{id}/{round}");
                    let known =
                        Known { blocks: Mutex::default(), most: 5000, gone: Arc::clone(gone) };
                    let handle = manager.register(&name, known).unwrap();
                    manager.set_default(&name).unwrap();
                    // Allocates from the default allocator, which any thread may have set.
                    (&manager.clone()).alloc_slice_fill_with(3, |i| i).map(drop).unwrap();
                    let mut mine = manager.alloc_slice_fill_with(200, |i| i + round).unwrap();
                    mine[0] += 1;
                    let other = manager.alloc_value(round).unwrap();
                    drop(handle);
                    while manager.unregister(&name).is_err() {
                        manager.set_default("system").unwrap();
                    }
                    let mut handed = handed.lock().unwrap();
                    handed.push((mine, other));
                    let other = (handed.len() > 3).then(|| handed.swap_remove(0));
                    drop(handed);
                    if let Some((values, other)) = other {
                        assert_eq!(values[0], values[1]);
                        assert_eq!(*other + 1, values[0]);
                    }
                }
            });
        }
    });
    handed.into_inner().unwrap().clear();
    assert_eq!(gone.load(Relaxed), threads * rounds, "each went with its last block");
    assert_eq!(manager.names(), ["system"]);
}

/// One step. An index is taken modulo the number of live blocks.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { size: usize, shift: u32, zeroed: bool },
    Free(usize),
    Resize { which: usize, size: usize, zeroed: bool },
    Switch(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..20_usize, 0..600_usize];
    prop_oneof![
        (size(), 0..8_u32, any::<bool>()).prop_map(|(size, shift, zeroed)| Step::Allocate {
            size,
            shift,
            zeroed
        }),
        any::<usize>().prop_map(Step::Free),
        (any::<usize>(), size(), any::<bool>()).prop_map(|(which, size, zeroed)| Step::Resize {
            which,
            size,
            zeroed
        }),
        (0..3_usize).prop_map(Step::Switch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_keep_their_bytes_and_their_allocators(
        steps in proptest::collection::vec(any_step(), 0..if cfg!(miri) { 25 } else { 150 }),
    ) {
        let limits = [usize::MAX, 100, 300];
        let tracked = limits.map(|most| {
            let known = Known { blocks: Mutex::default(), most, gone: Arc::default() };
            Arc::new(TrackedAllocator::with_counters(known, SharedCounters::new()))
        });
        let manager = AllocatorManager::new("0", Arc::clone(&tracked[0])).unwrap();
        for (i, tracked) in tracked.iter().enumerate().skip(1) {
            manager.register(&i.to_string(), Arc::clone(tracked)).unwrap();
        }
        let mut blocks: Vec<(NonNull<u8>, Layout, Vec<u8>)> = Vec::new();
        for (step, seed) in steps.into_iter().zip((0..=u8::MAX).cycle()) {
            let made = match step {
                Step::Switch(to) => {
                    manager.set_default(&to.to_string()).unwrap();
                    None
                }
                Step::Free(which) if !blocks.is_empty() => {
                    let (block, layout, bytes) = blocks.swap_remove(which % blocks.len());
                    // SAFETY: the block is live and was filled.
                    let found = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes.len()) };
                    prop_assert_eq!(found, &*bytes);
                    // SAFETY: the block is live, with this layout.
                    unsafe { manager.deallocate(block, layout) };
                    None
                }
                Step::Allocate { size, shift, zeroed } => {
                    let layout = layout(size, 1 << shift);
                    let made = if zeroed {
                        manager.allocate_zeroed(layout)
                    } else {
                        manager.allocate(layout)
                    };
                    made.ok().map(|made| (made, layout, Vec::new(), zeroed))
                }
                Step::Resize { which, size, zeroed } if !blocks.is_empty() => {
                    let at = which % blocks.len();
                    let (block, old, _) = &blocks[at];
                    let (block, old) = (*block, *old);
                    let new = layout(size, old.align());
                    let grows = new.size() >= old.size();
                    let resized = if !grows {
                        // SAFETY: the block is live, with this layout, and the size is smaller.
                        unsafe { manager.shrink(block, old, new) }
                    } else if zeroed {
                        // SAFETY: as above, and the size is not smaller.
                        unsafe { manager.grow_zeroed(block, old, new) }
                    } else {
                        // SAFETY: as above.
                        unsafe { manager.grow(block, old, new) }
                    };
                    resized.ok().map(|resized| {
                        let (_, _, mut bytes) = blocks.swap_remove(at);
                        bytes.truncate(size);
                        (resized, new, bytes, grows && zeroed)
                    })
                }
                Step::Free(_) | Step::Resize { .. } => None,
            };
            let Some((made, layout, mut bytes, zero)) = made else { continue };
            let block = made.cast::<u8>();
            prop_assert_eq!((made.len(), block.addr().get() % layout.align()), (layout.size(), 0));
            if zero {
                bytes.resize(layout.size(), 0);
            }
            // SAFETY: the block is live; as many bytes were written or are zero.
            let found = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes.len()) };
            prop_assert_eq!(found, &*bytes);
            // SAFETY: the block is valid for writes of its length.
            unsafe { block.write_bytes(seed, layout.size()) };
            blocks.push((block, layout, vec![seed; layout.size()]));
            let live: usize = tracked.iter().map(|tracked| tracked.stats().live_blocks()).sum();
            prop_assert_eq!(live, blocks.len());
        }
        for (block, layout, _) in blocks {
            // SAFETY: the block is live, with this layout.
            unsafe { manager.deallocate(block, layout) };
        }
        prop_assert!(tracked.iter().all(|tracked| tracked.leaks().is_none()));
    }
}
