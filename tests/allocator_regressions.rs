//! Faults of other allocators, and attempts to cause undefined behaviour in these.
#![cfg(feature = "std")]

#[path = "common/asked.rs"]
mod asked;
mod common;

use asked::Asked;
use common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        AllocBox, AllocError, Allocator, BlockPool, BumpAllocator, PageAllocator, SharedBlockPool,
        StackAllocator, SystemAllocator, TypedAllocator,
        bump::{Borrowed, Direction, Down, InlineBuffer, Owned, Up},
    },
    arena::{Arena, SharedArena},
    core::{MemoryUsage, Progress, Reclaimable},
    syscalls::{
        direct::{Mapping, Protection},
        info::page_size,
    },
};
use std::{
    alloc::Layout,
    cell::{Cell, RefCell},
    hint::black_box,
    mem,
    ops::{Bound, RangeBounds},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Returns a block whose bytes are all `byte`.
fn filled<A: Allocator>(allocator: A, layout: Layout, byte: u8) -> NonNull<u8> {
    let block = allocator.allocate(layout).unwrap().cast::<u8>();
    // SAFETY: a new block of that size.
    unsafe { block.write_bytes(byte, layout.size()) };
    block
}

fn bytes<'a>(block: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: the tests call it on blocks that are live, as long, and written.
    unsafe { std::slice::from_raw_parts(block.as_ptr(), len) }
}

/// Runs `test` with every allocator that divides a region or slabs itself, each with room for a few pages.
/// The text is the allocator's name, for messages.
fn with_each(test: impl Fn(&dyn Allocator, &str)) {
    fn bump<D: Direction, const MIN: usize>() -> BumpAllocator<Owned<SystemAllocator>, D, MIN> {
        BumpAllocator::from_region(Owned::new(1 << 17, SystemAllocator).unwrap())
    }
    test(&&bump::<Up, 1>(), "bump up");
    test(&&bump::<Up, 16>(), "bump up 16");
    test(&&bump::<Down, 1>(), "bump down");
    test(&&bump::<Down, 16>(), "bump down 16");
    test(&&StackAllocator::with_capacity(1 << 17).unwrap(), "stack");
    let options = Arena::options().max_bytes(1 << 17);
    test(&&options.clone().direction::<Up>().min_align::<1>().build().unwrap(), "arena up");
    test(&&options.build().unwrap(), "arena down");
    let pool = BlockPool::options(layout(4096, 4096)).first_slab_blocks(3).max_blocks(7);
    test(&&pool.build().unwrap(), "pool");
}

#[test]
fn a_block_of_no_bytes_is_aligned_and_takes_no_other_ones_place() {
    with_each(|allocator, name| {
        for align in [1, 8, 64, 4096] {
            let none = layout(0, align);
            let empty = allocator.allocate(none).unwrap().cast::<u8>();
            assert!(empty.addr().get().is_multiple_of(align), "{name} {align}");
            let first = filled(allocator, layout(9, 1), 1);
            let zeroed = allocator.allocate_zeroed(none).unwrap().cast::<u8>();
            // SAFETY: allocated here, with no bytes, and larger now.
            let grown = unsafe { allocator.grow_zeroed(empty, none, layout(9, align)) }.unwrap();
            assert_eq!(bytes(grown.cast(), 9), [0; 9], "{name}");
            // SAFETY: allocated here with this layout.
            unsafe { grown.cast::<u8>().write_bytes(2, 9) };
            assert_eq!(bytes(first, 9), [1; 9], "{name}");
            // SAFETY: allocated here with these layouts, once each.
            unsafe { allocator.deallocate(zeroed, none) };
            // SAFETY: as above.
            unsafe { allocator.deallocate(grown.cast(), layout(9, align)) };
            assert_eq!(bytes(first, 9), [1; 9], "{name}");
            // SAFETY: as above.
            unsafe { allocator.deallocate(first, layout(9, 1)) };
        }
    });
}

#[test]
fn a_shrink_that_moves_by_less_than_the_size_keeps_the_contents() {
    with_each(|allocator, name| {
        for (from, to) in [(64, 63), (64, 48), (100, 33)] {
            let old = layout(from, 1);
            let block = filled(allocator, old, 0);
            for at in 0..from {
                // SAFETY: the offset lies within the block.
                let byte = unsafe { block.add(at) };
                // SAFETY: as above.
                unsafe { byte.write(at.to_le_bytes()[0]) };
            }
            // SAFETY: live, with this layout, and smaller now.
            let shrunk = unsafe { allocator.shrink(block, old, layout(to, 1)) }.unwrap().cast();
            let kept = bytes(shrunk, to).iter().enumerate();
            assert!(kept.clone().all(|(at, byte)| *byte == at.to_le_bytes()[0]), "{name} {from}");
            // SAFETY: live, with this layout.
            unsafe { allocator.deallocate(shrunk, layout(to, 1)) };
        }
    });
}

#[test]
fn a_larger_alignment_is_honoured_by_grow_and_by_shrink() {
    with_each(|allocator, name| {
        for align in [2, 16, 256, 4096] {
            for other in [false, true] {
                let old = layout(40, 1);
                let block = filled(allocator, old, 5);
                // With another block on top of this one, or with this one as the newest block.
                let top = other.then(|| filled(allocator, layout(1, 1), 6));
                let new = layout(50, align);
                // SAFETY: live, with this layout, and larger now.
                let grown = unsafe { allocator.grow(block, old, new) }.unwrap().cast::<u8>();
                assert!(grown.addr().get().is_multiple_of(align), "{name} {align}");
                assert_eq!(bytes(grown, 40), [5; 40], "{name}");
                let last = layout(30, align * 2);
                // SAFETY: live, with this layout, and smaller now.
                if let Ok(shrunk) = unsafe { allocator.shrink(grown, new, last) } {
                    let shrunk = shrunk.cast::<u8>();
                    assert!(shrunk.addr().get().is_multiple_of(last.align()), "{name} {align}");
                    assert_eq!(bytes(shrunk, 30), [5; 30], "{name}");
                    // SAFETY: live, with this layout.
                    unsafe { allocator.deallocate(shrunk, last) };
                } else {
                    // SAFETY: a failed `shrink` leaves the block live, with this layout.
                    unsafe { allocator.deallocate(grown, new) };
                }
                if let Some(top) = top {
                    assert_eq!(bytes(top, 1), [6], "{name}");
                    // SAFETY: live, with this layout.
                    unsafe { allocator.deallocate(top, layout(1, 1)) };
                }
            }
        }
    });
}

/// Miri reports any read of uninitialised bytes and any reference to them.
#[test]
fn an_unwritten_block_may_grow_zeroed_and_shrink() {
    with_each(|allocator, name| {
        let block = allocator.allocate(layout(10, 2)).unwrap().cast::<u8>();
        // SAFETY: live, with this layout, and larger now.
        let grown = unsafe { allocator.grow_zeroed(block, layout(10, 2), layout(300, 2)) };
        let grown = grown.unwrap().cast::<u8>();
        // SAFETY: the offset lies within the block.
        let tail = unsafe { grown.add(10) };
        assert!(bytes(tail, 290).iter().all(|byte| *byte == 0), "{name}");
        // SAFETY: live, with this layout, and smaller now.
        let shrunk = unsafe { allocator.shrink(grown, layout(300, 2), layout(4, 2)) }.unwrap();
        // SAFETY: live, with this layout.
        unsafe { allocator.deallocate(shrunk.cast(), layout(4, 2)) };
    });
}

#[test]
fn a_zeroed_block_in_the_place_of_a_freed_one_is_zero() {
    with_each(|allocator, name| {
        let dirty = filled(allocator, layout(100, 8), 0xFF);
        // SAFETY: live, with this layout.
        unsafe { allocator.deallocate(dirty, layout(100, 8)) };
        let zeroed = allocator.allocate_zeroed(layout(100, 8)).unwrap();
        assert!(bytes(zeroed.cast(), 100).iter().all(|byte| *byte == 0), "{name}");
    });
}

#[test]
fn a_zeroed_block_after_a_reset_is_zero() {
    let mut bump = BumpAllocator::with_capacity(1000).unwrap();
    let mut stack = StackAllocator::with_capacity(1000).unwrap();
    filled(&bump, layout(900, 1), 0xFF);
    filled(&stack, layout(900, 1), 0xFF);
    bump.reset();
    stack.reset();
    for zeroed in
        [(&bump).allocate_zeroed(layout(900, 1)), (&stack).allocate_zeroed(layout(900, 1))]
    {
        assert!(bytes(zeroed.unwrap().cast(), 900).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn sizes_and_alignments_near_the_end_of_the_address_space_are_refused() {
    with_each(|allocator, name| {
        let most = isize::MAX.unsigned_abs();
        let old = layout(16, 1);
        let block = filled(allocator, old, 3);
        for shift in [0, 4, 20, 61] {
            let align = 1_usize << shift;
            for size in [most - (align - 1), most / 2, 1 << 40] {
                let Ok(huge) = Layout::from_size_align(black_box(size), align) else { continue };
                assert_eq!(allocator.allocate(huge).err(), Some(AllocError), "{name} {huge:?}");
                assert_eq!(allocator.allocate_zeroed(huge).err(), Some(AllocError), "{name}");
                // SAFETY: live, with this layout, and larger now.
                let grown = unsafe { allocator.grow(block, old, huge) };
                assert_eq!(grown.err(), Some(AllocError), "{name} {huge:?}");
                // SAFETY: as above.
                let grown = unsafe { allocator.grow_zeroed(block, old, huge) };
                assert_eq!(grown.err(), Some(AllocError), "{name} {huge:?}");
            }
        }
        for shift in [30, 47, 62] {
            assert!(allocator.allocate(layout(1, 1 << shift)).is_err(), "{name} {shift}");
        }
        assert_eq!(bytes(block, 16), [3; 16], "{name}");
    });
}

/// A block of an outer frame is freed or resized within an inner frame, which then ends.
#[test]
fn a_change_of_an_outer_block_outlasts_the_inner_frame() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let (eight, more) = (layout(8, 8), layout(64, 8));
    let kept = filled(&stack, eight, 1);
    let freed = filled(&stack, eight, 2);
    let height = stack.used_bytes();
    {
        let frame = stack.frame();
        // SAFETY: live, with this layout.
        unsafe { (&*frame).deallocate(freed, eight) };
        assert_eq!(frame.used_bytes(), height, "nothing is put in its place");
        filled(&*frame, more, 9);
        // SAFETY: live, with this layout, and smaller now.
        let shrunk = unsafe { (&*frame).shrink(kept, eight, layout(4, 8)) }.unwrap();
        assert_eq!(shrunk.cast::<u8>(), kept, "where it was");
    }
    assert_eq!(stack.used_bytes(), height - freed_bytes(), "what was freed is gone with the frame");
    let next = filled(&stack, more, 7);
    assert_eq!(bytes(kept, 4), [1; 4]);
    // SAFETY: live, with this layout.
    unsafe { (&stack).deallocate(next, more) };
    // SAFETY: live, with this layout.
    unsafe { (&stack).deallocate(kept, layout(4, 8)) };
    assert_eq!(stack.used_bytes(), 0);
}

/// Returns the size of a block of eight bytes with its header.
fn freed_bytes() -> usize {
    8 + 2 * size_of::<usize>()
}

#[cfg(debug_assertions)]
#[test]
fn a_double_free_is_seen_with_debug_assertions() {
    fn refused(misuse: impl Fn()) -> bool {
        catch_unwind(AssertUnwindSafe(misuse)).is_err()
    }
    fn check<A: Allocator + Copy>(allocator: A, name: &str) {
        let eight = layout(8, 8);
        let below = filled(allocator, eight, 1);
        let block = filled(allocator, eight, 2);
        // SAFETY: live, with this layout; the second time is the misuse, which is seen before
        // anything is written.
        let free = || unsafe { allocator.deallocate(block, eight) };
        free();
        assert!(refused(free), "{name}: the newest, twice");
        // SAFETY: the misuse is seen before anything is written.
        let grow = || assert!(unsafe { allocator.grow(block, eight, layout(16, 8)) }.is_ok());
        assert!(refused(grow), "{name}: grown after it was freed");
        assert_eq!(bytes(below, 8), [1; 8]);
    }
    check(&BumpAllocator::with_capacity(1000).unwrap(), "bump up");
    let buffer = &mut InlineBuffer::<1000>::new();
    let down = BumpAllocator::<_, Down, 8>::from_region(Borrowed::from(buffer.as_uninit()));
    check(&down, "bump down");
    check(&StackAllocator::with_capacity(1000).unwrap(), "stack");
    check(&Arena::new(), "arena down");
    check(&Arena::options().direction::<Up>().build().unwrap(), "arena up");

    let stack = &StackAllocator::with_capacity(1000).unwrap();
    let eight = layout(8, 8);
    let below = filled(stack, eight, 1);
    filled(stack, eight, 2);
    // SAFETY: live, with this layout; the second time is the misuse.
    let free = || unsafe { stack.deallocate(below, eight) };
    free();
    assert!(refused(free), "stack: one that waits, twice");
    let other = &StackAllocator::with_capacity(1000).unwrap();
    let strange = filled(other, eight, 3);
    // SAFETY: the misuse is seen before anything is read or written.
    assert!(refused(|| unsafe { stack.deallocate(strange, eight) }), "stack: another one's");
}

/// A base allocator that takes blocks of the pool above it before it returns a block.
struct Reentrant;

thread_local! {
    static POOL: RefCell<Option<&'static BlockPool<Reentrant>>> = const { RefCell::new(None) };
    static TAKEN: RefCell<Vec<NonNull<u8>>> = const { RefCell::new(Vec::new()) };
    static TAKES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: blocks are `SystemAllocator`'s; nothing unwinds.
unsafe impl Allocator for Reentrant {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let pool = POOL.with_borrow(|pool| *pool);
        for _ in 0..TAKES.take() {
            if let Some(Ok(block)) = pool.map(BlockPool::take_block) {
                TAKEN.with_borrow_mut(|taken| taken.push(block));
            }
        }
        SystemAllocator.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { SystemAllocator.deallocate(block, layout) }
    }
}

#[test]
fn a_base_allocator_that_takes_blocks_of_the_pool_gets_it_beyond_no_bound() {
    for takes in 0..7 {
        let options = BlockPool::options(layout(16, 8)).first_slab_blocks(4).max_blocks(5);
        let owned = Box::into_raw(Box::new(options.build_in(Reentrant).unwrap()));
        // SAFETY: the pool lives until it is dropped below.
        let pool: &'static BlockPool<Reentrant> = unsafe { &*owned };
        POOL.set(Some(pool));
        TAKES.set(takes);
        let mut all: Vec<_> = std::iter::from_fn(|| pool.take_block().ok()).take(20).collect();
        all.append(&mut TAKEN.take());
        assert_eq!(all.len(), 5, "{takes}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5, "each is one owner's alone");
        assert_eq!((pool.used_bytes(), pool.free_blocks()), (5 * 16, 0));
        POOL.set(None);
        // SAFETY: the pool was made above; no block is in use, and nothing refers to the pool any more.
        drop(unsafe { Box::from_raw(owned) });
    }
}

/// A value that frees a block, takes a block and panics while it is dropped.
struct Busy<'p> {
    pool: &'p BlockPool,
    inner: Option<AllocBox<u64, &'p BlockPool>>,
    panics: bool,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        drop(self.inner.take());
        let again = self.pool.alloc_value(9_u64).unwrap();
        mem::forget(self.pool.alloc_value(8_u64));
        assert_eq!(*again, 9);
        if self.panics {
            resume_unwind(Box::new(()));
        }
    }
}

#[test]
fn a_drop_may_use_the_pool_that_its_own_block_is_of() {
    let pool = BlockPool::for_type::<Busy>().first_slab_blocks(2).build().unwrap();
    for panics in [false, true] {
        let inner = pool.alloc_value(7).ok();
        let busy = pool.alloc_value(Busy { pool: &pool, inner, panics }).unwrap();
        let used = pool.used_bytes();
        assert_eq!(catch_unwind(AssertUnwindSafe(|| drop(busy))).is_err(), panics);
        let forgotten = pool.block_layout().size();
        assert_eq!(pool.used_bytes(), used - 2 * forgotten + forgotten);
    }
    let many = (&pool).alloc_slice_fill_with(0, |_| ()).unwrap();
    drop(many);
}

#[test]
fn a_slice_whose_drop_panics_half_way_is_dropped_and_freed_all_the_same() {
    struct Third<'a>(usize, &'a Cell<usize>);
    impl Drop for Third<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            if self.0 == 2 {
                resume_unwind(Box::new(()));
            }
        }
    }
    let drops = Cell::new(0);
    let base = Awkward::new(0);
    let all = (&base).alloc_slice_fill_with(5, |at| Third(at, &drops)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(all))).is_err());
    assert_eq!((drops.get(), base.live().len()), (5, 0));
}

#[test]
fn values_of_no_bytes_are_dropped_once_wherever_they_are() {
    thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
    #[repr(align(128))]
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    let pool = BlockPool::for_type::<Nothing>().build().unwrap();
    let boxed = pool.alloc_value(Nothing).unwrap();
    assert!((&raw const *boxed).addr().is_multiple_of(128));
    drop(boxed);
    drop(AllocBox::into_inner(pool.alloc_value(Nothing).unwrap()));
    drop(SystemAllocator.alloc_slice_fill_with(3, |_| Nothing).unwrap());
    AllocBox::leak(SystemAllocator.alloc_value(Nothing).unwrap());
    mem::forget(pool.alloc_value(Nothing));
    assert_eq!((DROPS.get(), pool.used_bytes()), (5, 0));
}

#[test]
fn an_allocator_may_be_moved_between_allocations() {
    let mut buffer = InlineBuffer::<512>::new();
    let mut bump = BumpAllocator::over(buffer.as_uninit());
    let mut stack = StackAllocator::with_capacity(512).unwrap();
    let mut pool = BlockPool::for_type::<[u8; 24]>().first_slab_blocks(2).build().unwrap();
    let pages = BumpAllocator::<_, Down, 16>::from_region(Owned::new(1, PageAllocator).unwrap());
    AllocBox::leak(pages.alloc_value(1_u8).unwrap());
    let pages = vec![pages];
    for round in 0..3_u8 {
        AllocBox::leak(bump.alloc_value([round; 8]).unwrap());
        AllocBox::leak(stack.alloc_value([round; 8]).unwrap());
        AllocBox::leak(pool.alloc_value([round; 24]).unwrap());
        assert_eq!(*pages[0].alloc_value(round).unwrap(), round);
        (bump, stack, pool) = *Box::new((bump, stack, pool));
    }
    assert_eq!(bump.used_bytes(), 24);
    bump.reset();
    drop((bump, stack, pool, pages));
    buffer.as_uninit()[0].write(1);
}

#[test]
fn frames_that_are_forgotten_dropped_late_or_by_a_panic_leave_a_whole_stack() {
    let mut stack = StackAllocator::with_capacity(1 << 12).unwrap();
    for how in 0..4 {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut outer = stack.frame();
            let inner = outer.frame();
            let boxed = inner.alloc_value(1).unwrap();
            match how {
                0 => mem::forget(boxed),
                1 => resume_unwind(Box::new(())),
                _ => drop(boxed),
            }
            if how == 2 {
                mem::forget(inner);
            } else {
                drop(inner);
            }
            assert_eq!(*outer.alloc_value(5).unwrap(), 5);
        }));
        assert_eq!(stack.used_bytes(), 0, "{how}");
        assert_eq!(outcome.is_err(), how == 1);
        let again = stack.alloc_value([7_u64; 9]).unwrap();
        assert_eq!(*again, [7; 9]);
    }
}

/// A range's bounds are read once and checked, whatever they say.
#[test]
fn a_range_that_lies_reaches_no_foreign_page() {
    struct Liar(Cell<usize>);
    impl RangeBounds<usize> for Liar {
        fn start_bound(&self) -> Bound<&usize> {
            self.0.set(self.0.get() + 1);
            if self.0.get() == 1 { Bound::Unbounded } else { Bound::Excluded(&usize::MAX) }
        }
        fn end_bound(&self) -> Bound<&usize> {
            self.0.set(self.0.get() + 1);
            if self.0.get() == 2 { Bound::Unbounded } else { Bound::Included(&usize::MAX) }
        }
    }
    let mut mapping = Mapping::new(2 * page_size()).unwrap();
    for asked in 0..3 {
        let _ = mapping.decommit(Liar(Cell::new(asked)));
        let _ = mapping.commit(Liar(Cell::new(asked)));
    }
    mapping.commit(..).unwrap();
    for wild in [usize::MAX, usize::MAX - page_size() + 1, 3 * page_size(), 1] {
        assert!(mapping.protect(wild.., Protection::ReadWrite).is_err());
        assert!(mapping.commit(..wild).is_err());
        assert!(mapping.decommit((Bound::Excluded(wild), Bound::Unbounded)).is_err());
    }
    // SAFETY: committed, readable and writable.
    assert_eq!(unsafe { mapping.as_ptr().read() }, 0);
}

/// A manager is asked to release bytes for the pool's slab. While it does so it allocates from the same pool.
#[test]
fn a_reclaim_for_a_slab_may_allocate_from_the_same_pool() {
    static ARENA: OnceLock<SharedArena> = OnceLock::new();
    static POOL: OnceLock<SharedBlockPool<&'static SharedArena>> = OnceLock::new();
    let (send, receive) = mpsc::channel();
    let growing = thread::spawn(move || {
        let budget = Budget::root("run").limit(10_000).build().unwrap();
        let held = Mutex::new(Some(budget.try_reserve(9_900).unwrap()));
        let arena = ARENA.get_or_init(|| Arena::options().budget(&budget).build_shared().unwrap());
        let pool = POOL.get_or_init(|| {
            let options = BlockPool::for_type::<[u64; 8]>().first_slab_blocks(4);
            options.build_shared_in(arena).unwrap()
        });
        let guest = Arc::new(Asked {
            offer: Reclaimable::new(9000, 0),
            reclaim: move || {
                assert_eq!((pool.held_bytes(), pool.used_bytes()), (0, 0));
                drop(held.lock().unwrap().take());
                // The pool grows by another slab in the meantime.
                assert_eq!(*pool.alloc_value([1_u64; 8]).unwrap(), [1; 8]);
                Progress::NOTHING
            },
        });
        budget.register(&guest);
        let first = pool.alloc_value([7_u64; 8]).unwrap();
        let others: Vec<_> = (0..20).map(|i| pool.alloc_value([i; 8]).unwrap()).collect();
        assert!(*first == [7; 8] && others.iter().zip(0..).all(|(other, i)| **other == [i; 8]));
        drop((first, others));
        send.send(()).unwrap();
    });
    assert_eq!(receive.recv_timeout(Duration::from_secs(60)), Ok(()), "it hangs, or failed");
    growing.join().unwrap();
}
