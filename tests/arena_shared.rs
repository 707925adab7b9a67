//! One arena for many threads. Blocks are disjoint and keep their contents, whichever threads start and end.
#![cfg(feature = "std")]

#[path = "common/asked.rs"]
mod asked;
mod common;

use asked::Asked;
use common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        AllocError, Allocator, SystemAllocator,
        bump::{Direction, Down, Up},
    },
    arena::{ArcArena, Arena, SharedArena},
    core::{MemoryManager, MemoryUsage, Progress, Reclaimable},
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    cell::RefCell,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

const THREADS: usize = 3;

/// A request of a thread to the arena.
#[derive(Clone, Debug)]
enum Step {
    Layout(Layout),
    Text(String),
    Words(Vec<u16>),
    Format(usize),
    /// The same request from a new handle.
    Handle(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..300_usize, 0..8_u32)
            .prop_map(|(size, shift)| Step::Layout(Layout::from_size_align(size, 1 << shift).unwrap())),
        1 => (1000..6000_usize)
            .prop_map(|size| Step::Layout(Layout::from_size_align(size, 1).unwrap())),
        2 => "[a-z]{0,40}".prop_map(Step::Text),
        2 => proptest::collection::vec(any::<u16>(), 0..20).prop_map(Step::Words),
        1 => (0..80_usize).prop_map(Step::Format),
        1 => (0..40_usize).prop_map(Step::Handle),
    ]
}

/// The bytes of a result, and their expected contents.
type Kept<'a> = (&'a mut [u8], Vec<u8>);

fn bytes<T: Copy>(values: &mut [T]) -> &mut [u8] {
    let len = size_of_val(values);
    // SAFETY: the values are initialised, have no padding, and are borrowed as long.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), len) }
}

fn fill(block: &mut [MaybeUninit<u8>], layout: Layout, seed: u8) -> Kept<'_> {
    assert_eq!(block.as_ptr().addr() % layout.align(), 0);
    assert_eq!(block.len(), layout.size());
    for slot in block.iter_mut() {
        slot.write(seed);
    }
    // SAFETY: every byte was just written.
    let block = unsafe { &mut *(std::ptr::from_mut(block) as *mut [u8]) };
    let copy = block.to_vec();
    (block, copy)
}

fn run<'a, A: Allocator, D: Direction, const MIN: usize>(
    arena: &'a SharedArena<A, D, MIN>,
    steps: &[Step],
    seed: u8,
) -> Vec<Kept<'a>> {
    let mut kept = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let seed = seed ^ u8::try_from(at).unwrap();
        let done = match step {
            Step::Layout(layout) => {
                arena.try_alloc_layout(*layout).map(|block| fill(block, *layout, seed))
            }
            Step::Text(text) => arena.try_alloc_str(text).map(|copy| {
                assert_eq!(copy, text);
                // SAFETY: the bytes are not changed.
                (unsafe { copy.as_bytes_mut() }, text.clone().into_bytes())
            }),
            Step::Words(words) => arena.try_alloc_slice_copy(words).map(|copy| {
                let mut words = words.clone();
                (bytes(copy), bytes(&mut words).to_vec())
            }),
            Step::Format(width) => arena.try_alloc_fmt(format_args!("{at:width$}")).map(|text| {
                let expected = format!("{at:width$}").into_bytes();
                // SAFETY: the bytes are not changed.
                (unsafe { text.as_bytes_mut() }, expected)
            }),
            Step::Handle(len) => {
                let handle = arena.handle();
                handle.try_alloc_slice_fill_with(*len, |_| seed).map(|slice| {
                    let copy = slice.to_vec();
                    (slice, copy)
                })
            }
        };
        kept.extend(done);
    }
    kept
}

fn check(kept: &[Kept<'_>]) {
    for (bytes, expected) in kept {
        assert_eq!(bytes, expected);
    }
    let mut ranges: Vec<_> = kept
        .iter()
        .filter(|(bytes, _)| !bytes.is_empty())
        .map(|(bytes, _)| (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len()))
        .collect();
    ranges.sort_unstable();
    assert!(ranges.is_sorted_by(|(_, end), (start, _)| end <= start), "two blocks overlap");
}

fn threads_against_the_model<D: Direction, const MIN: usize>(
    rounds: &[(Vec<Vec<Step>>, usize)],
    limit: usize,
) {
    let budget = Budget::root("run").limit(limit).build().unwrap();
    let options = Arena::options().direction::<D>().min_align::<MIN>().budget(&budget);
    let mut arena = options.max_bytes(20_000).build_shared().unwrap();
    let mut peak = 0;
    for (steps, keep) in rounds {
        let kept: Vec<_> = thread::scope(|scope| {
            let (arena, seed) = (&arena, 17 * u8::try_from(steps.len()).unwrap());
            let workers: Vec<_> = steps
                .iter()
                .enumerate()
                .map(|(at, steps)| {
                    let seed = seed.wrapping_add(64 * u8::try_from(at).unwrap());
                    scope.spawn(move || run(arena, steps, seed))
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        check(&kept);
        let taken = kept.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
        assert!(taken <= arena.used_bytes());
        assert!(arena.used_bytes() <= limit.min(20_000));
        assert_eq!(budget.usage().used, arena.used_bytes());
        peak = peak.max(arena.used_bytes());
        assert!(arena.peak_bytes() >= peak);
        if *keep == 0 {
            let held = arena.used_bytes();
            arena.reset();
            assert_eq!(arena.used_bytes(), held);
        } else {
            let held = arena.used_bytes();
            assert_eq!(arena.trim(*keep), held - arena.used_bytes());
            assert!(arena.used_bytes() <= *keep);
        }
        assert_eq!(budget.usage().used, arena.used_bytes());
    }
    drop(arena);
    assert_eq!(budget.usage().used, 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_of_all_threads_are_disjoint_and_the_ledger_agrees(
        rounds in proptest::collection::vec((
            proptest::collection::vec(
                proptest::collection::vec(step(), 0..if cfg!(miri) { 6 } else { 40 }),
                1..=THREADS,
            ),
            prop_oneof![Just(0_usize), 1..10_000_usize],
        ), 1..4),
        limit in prop_oneof![Just(usize::MAX), 1..10_000_usize],
    ) {
        threads_against_the_model::<Down, 1>(&rounds, limit);
        threads_against_the_model::<Down, 8>(&rounds, limit);
        threads_against_the_model::<Up, 1>(&rounds, limit);
        threads_against_the_model::<Up, 16>(&rounds, limit);
    }
}

#[test]
fn ten_thousand_short_threads_strand_nothing() {
    let arena = SharedArena::new();
    let (rounds, at_once) = if cfg!(miri) { (6, 2) } else { (2500, 4) };
    let mut values: Vec<&mut u64> = Vec::new();
    let next = AtomicUsize::new(0);
    for _ in 0..rounds {
        thread::scope(|scope| {
            let one = || arena.alloc(next.fetch_add(1, Ordering::Relaxed) as u64);
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
            // The threads are joined one by one: only `join` waits for the destructors of thread-locals.
            values.extend(workers.into_iter().map(|worker| worker.join().unwrap()));
        });
    }
    let mut numbers: Vec<_> = values.iter().map(|value| **value).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..rounds * at_once));
    let taken = usize::try_from(rounds * at_once).unwrap() * 8;
    // Up to half of a thread's lease may be idle, and up to half of the arena's bytes may not be leased.
    assert!(arena.used_bytes() <= 4 * taken + 8192, "{} for {taken}", arena.used_bytes());
}

/// A base allocator that returns blocks only when all threads have asked.
struct Together(Barrier);

// SAFETY: the blocks are the system's, unchanged.
unsafe impl Allocator for &Together {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.0.wait();
        SystemAllocator.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the block is the system's, as the caller says.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

#[test]
fn threads_that_ask_at_once_do_not_each_double_the_arena() {
    let base = Together(Barrier::new(THREADS));
    let arena = SharedArena::options().build_shared_in(&base).unwrap();
    let large = if cfg!(miri) { 10_000 } else { 300_000 };
    for bytes in [large, 8] {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| arena.handle().alloc_slice_fill_with(bytes, |_| 0_u8).len());
            }
        });
    }
    let held = arena.used_bytes();
    assert!(held > 2 * THREADS * large, "the first doubles it: {held}");
    assert!(held < 2 * THREADS * large + 4096, "and the others do not: {held}");
}

#[test]
fn unused_bytes_of_a_handle_go_to_the_next_handle() {
    let arena = SharedArena::new();
    let count = if cfg!(miri) { 50 } else { 1000 };
    let values: Vec<_> = (0..count).map(|i| arena.handle().alloc(i)).collect();
    assert!(values.iter().map(|value| **value).eq(0..count));
    // Each value takes 8 bytes and a gap of 8. Chunks double, so up to half of them may be free.
    assert!(arena.used_bytes() <= usize::try_from(count).unwrap() * 32 + 2048);
}

/// A thread that runs longer than its lease must not use the lease again.
#[test]
fn a_thread_that_waits_allocates_anew_after_a_reset_and_after_a_trim() {
    let arena = RwLock::new(SharedArena::new());
    thread::scope(|scope| {
        let (ask, asked) = mpsc::channel::<u64>();
        let (answer, answered) = mpsc::channel();
        let arena = &arena;
        scope.spawn(move || {
            for number in asked {
                let arena = arena.read().unwrap();
                let values: Vec<_> = (0..20).map(|i| arena.alloc(number + i)).collect();
                let whole = values.iter().map(|value| **value).eq(number..number + 20);
                answer.send(whole).unwrap();
            }
        });
        for round in 0..20 {
            let mine: Vec<_> = {
                let arena = arena.read().unwrap();
                let mine: Vec<_> = (0..30).map(|i| arena.alloc(i + round)).collect();
                ask.send(round * 100).unwrap();
                assert!(answered.recv().unwrap(), "overwritten");
                mine.iter().map(|value| **value).collect()
            };
            assert!(mine.into_iter().eq(round..round + 30));
            let mut arena = arena.write().unwrap();
            if round % 2 == 0 {
                arena.reset();
            } else {
                arena.trim(usize::try_from(round).unwrap() * 200);
            }
        }
    });
}

#[test]
fn arenas_that_come_and_go_at_one_address_are_not_taken_for_each_other() {
    for round in 0..20_u64 {
        let arena = SharedArena::new();
        assert_eq!(arena.used_bytes(), 0);
        let value = arena.alloc(round);
        assert!(arena.used_bytes() > 0, "taken from memory that is gone");
        assert_eq!(*value, round);
    }
    // Values of another type from the same arena.
    let arena = Arena::options().direction::<Up>().min_align::<1>().build_shared().unwrap();
    let (a, b) = (arena.alloc(1_u8), arena.alloc(2_u8));
    assert_eq!((&raw const *a).addr() + 1, (&raw const *b).addr());
}

#[test]
fn more_arenas_in_turn_than_a_thread_remembers() {
    let arenas: Vec<_> = (0..40).map(|_| SharedArena::new()).collect();
    let mut values = Vec::new();
    for i in 0..20_u64 {
        for arena in &arenas {
            values.push(arena.alloc(i));
        }
    }
    assert!(values.iter().enumerate().all(|(at, value)| **value == at as u64 / 40));
    assert!(arenas.iter().all(|arena| arena.used_bytes() == 1024), "one lease in each");
}

/// Allocates while its thread ends, beside another thread that would take over the lease.
struct AtExit(RefCell<Option<Ending>>);

struct Ending {
    arena: Arc<SharedArena>,
    threads: usize,
    tell: mpsc::Sender<Vec<Parcel>>,
}

/// The number of values that each thread allocates as another thread ends.
const AT_EXIT: usize = if cfg!(miri) { 10 } else { 100_000 };

impl Drop for AtExit {
    fn drop(&mut self) {
        let Ending { arena, threads, tell } = self.0.take().unwrap();
        let start = Barrier::new(threads);
        let allocate = |mark: u8| {
            let layout = Layout::new::<[u8; 8]>();
            start.wait();
            let blocks = (0..AT_EXIT).map(|_| NonNull::from(arena.alloc([mark; 8])).cast());
            tell.send(blocks.map(|block| Parcel { block, layout, mark }).collect()).unwrap();
        };
        thread::scope(|scope| {
            let allocate = &allocate;
            for mark in 1..u8::try_from(threads).unwrap() {
                scope.spawn(move || allocate(mark));
            }
            allocate(0);
        });
    }
}

#[test]
fn destructors_of_thread_locals_allocate_also_after_the_lease_is_given_up() {
    // The platform may run these destructors in either order.
    thread_local! {
        static EARLIER: AtExit = const { AtExit(RefCell::new(None)) };
        static LATER: AtExit = const { AtExit(RefCell::new(None)) };
    }
    for later in [1, 2] {
        let arena = Arc::new(SharedArena::new());
        let (tell, told) = mpsc::channel();
        let worker = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || {
                let ending = |threads| {
                    Some(Ending { arena: Arc::clone(&arena), threads, tell: tell.clone() })
                };
                EARLIER.with(|it| *it.0.borrow_mut() = ending(3 - later));
                arena.alloc(77_u64);
                LATER.with(|it| *it.0.borrow_mut() = ending(later));
            })
        };
        worker.join().unwrap();
        let parcels: Vec<_> = told.into_iter().flatten().collect();
        assert_eq!(parcels.len(), 3 * AT_EXIT);
        parcels.iter().for_each(Parcel::verify);
    }
}

#[test]
fn a_value_for_a_thread_that_is_about_to_end_wastes_less_than_a_line_of_the_cache() {
    struct Last(RefCell<Option<Arc<SharedArena>>>);

    impl Drop for Last {
        fn drop(&mut self) {
            let arena = self.0.take().unwrap();
            (0..COUNT).for_each(|i| _ = arena.alloc(i));
        }
    }

    // One of them is dropped after the lease is released, in either order.
    thread_local! {
        static EARLIER: Last = const { Last(RefCell::new(None)) };
        static LATER: Last = const { Last(RefCell::new(None)) };
    }
    const COUNT: usize = if cfg!(miri) { 20 } else { 1000 };
    let arena = Arc::new(Arena::options().max_chunk_bytes(4096).build_shared().unwrap());
    let shared = Arc::clone(&arena);
    let worker = thread::spawn(move || {
        EARLIER.with(|it| *it.0.borrow_mut() = Some(Arc::clone(&shared)));
        shared.alloc(0_usize);
        LATER.with(|it| *it.0.borrow_mut() = Some(shared));
    });
    worker.join().unwrap();
    let (held, least) = (arena.used_bytes(), 2 * COUNT * 8);
    assert!(held > least && held < (COUNT * (8 + 8 + 64)) * 9 / 8 + 3 * 4096, "{held}");
}

#[test]
fn a_bound_is_exact_whoever_allocates() {
    let arena = Arena::options().max_bytes(10_000).build_shared().unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while arena.try_alloc([0_u8; 40]).is_ok() {
                    assert!(arena.used_bytes() <= 10_000);
                }
            });
        }
    });
    // Bytes that were refused while other threads made chunks are available now.
    let mut left = 0;
    while arena.try_alloc([0_u8; 40]).is_ok() {
        left += 1;
    }
    assert!(arena.used_bytes() > 10_000 - 32 - 48, "{} of 10000, {left}", arena.used_bytes());
    assert_eq!(arena.capacity_bytes(), Some(10_000));
    let error = Arena::options().max_bytes(127).build_shared().unwrap_err();
    assert!(error.to_string().contains("arena.max_bytes"), "{error}");
    assert!(Arena::options().max_bytes(128).build_shared().unwrap().try_alloc(1_u64).is_ok());
}

/// Returns a manager that allocates from the same arena that asks it for bytes. Also returns its number of
/// calls.
fn re_entrant(arena: &Arc<SharedArena>) -> (Arc<impl MemoryManager + use<>>, Arc<AtomicUsize>) {
    let (arena, calls) = (Arc::downgrade(arena), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&calls);
    let reclaim = move || {
        let arena = arena.upgrade().unwrap();
        // Allocates from another thread as well. The manager is asked again, and does not repeat this.
        if counter.fetch_add(1, Ordering::Relaxed) == 0 {
            thread::scope(|scope| {
                scope.spawn(|| drop(arena.try_alloc([1_u8; 16])));
            });
        }
        while arena.try_alloc([1_u8; 16]).is_ok() {}
        Progress::NOTHING
    };
    (Arc::new(Asked { offer: Reclaimable::new(1000, 1), reclaim }), calls)
}

#[test]
fn no_lock_is_held_while_the_ledger_takes_memory_back() {
    let budget = Budget::root("run").limit(4000).build().unwrap();
    let arena = Arc::new(Arena::options().budget(&budget).build_shared().unwrap());
    let (manager, calls) = re_entrant(&arena);
    budget.register(&manager);
    let mut values = Vec::new();
    while let Ok(value) = arena.try_alloc([7_u8; 200]) {
        values.push(value);
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert!(values.len() >= 10 && values.iter().all(|value| **value == [7; 200]));
    assert!(budget.usage().used <= 4000);
    // The thread allocates its first value while its lease is being made.
    let fresh = Arc::new(Arena::options().budget(&budget).build_shared().unwrap());
    let (manager, _) = re_entrant(&fresh);
    budget.register(&manager);
    fresh.try_alloc([0_u8; 2000]).unwrap_err();
}

#[test]
fn a_base_that_fails_leaves_the_arena_as_it_was() {
    let base = Awkward::new(5);
    let mut arena = Arena::options().build_shared_in(&base).unwrap();
    base.most.set(0);
    arena.try_alloc(1_u64).unwrap_err();
    assert_eq!((arena.used_bytes(), arena.peak_bytes()), (0, 0));
    base.most.set(1 << 20);
    let kept: Vec<_> = (0..200_u64).map(|i| arena.alloc(i)).collect();
    base.most.set(0);
    let held = arena.used_bytes();
    arena.try_alloc([0_u8; 5000]).unwrap_err();
    assert_eq!(arena.used_bytes(), held);
    assert_eq!(base.live().iter().map(Layout::size).sum::<usize>(), held);
    assert!(kept.iter().map(|value| **value).eq(0..200));
    arena.trim(0);
    assert!(base.live().is_empty());
}

#[test]
fn a_reset_arena_makes_no_chunk_for_the_same_again() {
    fn check(options: nebula_memory::arena::ArenaOptions) {
        let base = Awkward::new(0);
        base.most.set(8 << 20);
        let mut arena = options.build_shared_in(&base).unwrap();
        let mut held = Vec::new();
        for _ in 0..5 {
            for i in 0..if cfg!(miri) { 8_usize } else { 200 } {
                arena.alloc([0_u64; 3]);
                arena.alloc_uninit_slice::<u8>(i * 37 % 5000);
            }
            arena.alloc_uninit::<[u64; 3 << 14]>();
            held.push(arena.used_bytes());
            arena.reset();
        }
        assert!(held[1..].iter().all(|bytes| *bytes == held[1]), "{held:?}");
    }
    check(SharedArena::options());
    check(SharedArena::options().initial_chunk_bytes(48).max_chunk_bytes(64));
    check(SharedArena::options().initial_chunk_bytes(1 << 18));
}

#[test]
fn reserved_bytes_stay_with_their_thread_until_a_reset() {
    fn check<D: Direction, const MIN: usize>() {
        let base = Awkward::new(3);
        base.most.set(1 << 20);
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        let mut arena = options.build_shared_in(&base).unwrap();
        for bytes in [0, 1, 47, 64, 1000, 1024, 5000, 4096] {
            let handle = arena.handle();
            base.most.set(1 << 20);
            arena.reserve(bytes);
            handle.reserve(bytes / 2);
            base.most.set(0);
            let held = arena.used_bytes();
            arena.try_reserve(bytes).unwrap();
            assert!(handle.chunk_capacity() >= bytes / 2);
            for _ in 0..bytes / 16 {
                arena.alloc([1_u8; 16]);
            }
            for _ in 0..bytes / 32 {
                handle.alloc([2_u8; 16]);
            }
            assert_eq!(arena.used_bytes(), held);
            drop(handle);
            // Every second time this is the thread's first value.
            if bytes % 2 == 0 {
                arena.reset();
            }
        }
        let held = arena.used_bytes();
        for bytes in [1 << 20, usize::MAX / 2, usize::MAX - 50, usize::MAX] {
            arena.try_reserve(bytes).unwrap_err();
            arena.handle().try_reserve(bytes).unwrap_err();
        }
        assert_eq!(arena.used_bytes(), held);
    }
    check::<Down, 1>();
    check::<Down, 16>();
    check::<Up, 1>();
    check::<Up, 16>();
}

#[test]
fn other_threads_do_not_use_reserved_bytes() {
    let arena = Arena::options().max_bytes(10_000).build_shared().unwrap();
    arena.reserve(4000);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| while arena.try_alloc([0_u8; 40]).is_ok() {});
        }
    });
    arena.try_reserve(10_000).unwrap_err();
    for i in 0..500_u64 {
        assert_eq!(*arena.try_alloc(i).unwrap(), i);
    }
}

#[test]
fn trimming_to_the_high_water_mark_frees_unused_chunks() {
    let budget = Budget::root("run").build().unwrap();
    let options = Arena::options().max_chunk_bytes(4096).budget(&budget);
    let mut arena = options.build_shared().unwrap();
    // Each handle stands for a thread, as the number of threads that run at once is unknown.
    let work = |arena: &SharedArena, values: u64| {
        let handles = [(); THREADS].map(|()| arena.handle());
        let kept: Vec<_> = (0..values)
            .flat_map(|i| handles.each_ref().map(|handle| (i, handle.alloc([i; 8]))))
            .collect();
        assert!(kept.iter().all(|(i, value)| **value == [*i; 8]));
        arena.alloc(values);
    };
    assert_eq!(arena.trim_to_high_water(), 0, "there is none");
    work(&arena, 200);
    let peak = arena.used_bytes();
    assert_eq!(arena.trim_to_high_water(), 0, "all was needed");
    for round in 0..3 {
        work(&arena, 10);
        let (held, freed) = (arena.used_bytes(), arena.trim_to_high_water());
        assert!(freed > 0 || round > 0);
        assert!(held - freed < peak / 2, "{} of {peak}", held - freed);
        assert_eq!((budget.usage().used, arena.used_bytes()), (held - freed, held - freed));
    }
    // The chunks that a reset or a trim emptied in the meantime are needed again. The cut of the bytes
    // depends on the chunks' addresses, so one of the two may not have needed them.
    for empty in
        [|arena: &mut SharedArena| arena.reset(), |arena: &mut SharedArena| _ = arena.trim(20_000)]
    {
        work(&arena, 200);
        empty(&mut arena);
        let held = arena.used_bytes();
        let freed = arena.trim_to_high_water();
        assert!(held > 10_000 && freed < held / 2, "{freed} of {held}");
    }
    let left = arena.used_bytes();
    assert_eq!((arena.trim_to_high_water(), arena.used_bytes()), (left, 0));
    assert_eq!((arena.peak_bytes() >= peak, budget.usage().used), (true, 0));
}

#[test]
fn a_value_whose_making_panics_takes_nothing_with_it() {
    let arena = SharedArena::new();
    let before = arena.alloc(1);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        arena.alloc_with(|| -> u64 {
            arena.alloc(2);
            panic!("planned")
        })
    }));
    assert!(failed.is_err());
    assert_eq!((*before, *arena.alloc(3)), (1, 3));
}

/// A block with its expected contents, to be sent to another thread.
struct Parcel {
    block: NonNull<u8>,
    layout: Layout,
    mark: u8,
}

// SAFETY: the block belongs to the parcel alone.
unsafe impl Send for Parcel {}

impl Parcel {
    /// Checks the block's alignment and contents.
    fn verify(&self) {
        assert_eq!(self.block.addr().get() % self.layout.align(), 0);
        for at in 0..self.layout.size() {
            // SAFETY: the offset lies within the block.
            let byte = unsafe { self.block.add(at) };
            // SAFETY: the block is allocated, and was written as a whole.
            assert_eq!(unsafe { byte.read() }, self.mark);
        }
    }
}

/// Threads pass blocks to each other. They grow, shrink and free blocks of other threads, also blocks next to
/// their own free bytes.
#[test]
fn blocks_that_change_hands_keep_their_contents() {
    fn check<D: Direction, const MIN: usize>() {
        let arena = Arena::options().direction::<D>().min_align::<MIN>().build_shared().unwrap();
        let arena = &arena;
        let pile = Mutex::new(Vec::<Parcel>::new());
        let rounds = if cfg!(miri) { 15 } else { 3000 };
        thread::scope(|scope| {
            for worker in 0..THREADS {
                let pile = &pile;
                scope.spawn(move || {
                    let mut random = worker + 1;
                    for round in 0..rounds {
                        random =
                            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(worker + 1);
                        let dice = random >> 40;
                        let taken = (dice % 8 > 2).then(|| pile.lock().unwrap().pop()).flatten();
                        let size = 1 + dice / 8 % 100;
                        let layout = Layout::from_size_align(size, 1 << (dice % 5)).unwrap();
                        let mark = u8::try_from(round % 250).unwrap();
                        let parcel = taken.map_or_else(
                            || Some(fresh(arena, layout, mark)),
                            |old| handled(arena, old, layout, dice % 8),
                        );
                        pile.lock().unwrap().extend(parcel);
                    }
                });
            }
        });
        pile.into_inner().unwrap().iter().for_each(Parcel::verify);
    }

    fn fresh<A: Allocator>(arena: A, layout: Layout, mark: u8) -> Parcel {
        let block = arena.allocate(layout).unwrap().cast::<u8>();
        // SAFETY: the block is as long.
        unsafe { block.write_bytes(mark, layout.size()) };
        Parcel { block, layout, mark }
    }

    fn handled<A: Allocator>(arena: A, mut old: Parcel, new: Layout, how: usize) -> Option<Parcel> {
        old.verify();
        if how == 7 {
            // SAFETY: the block is allocated there for this layout, and belongs to the parcel alone.
            unsafe { arena.deallocate(old.block, old.layout) };
            return None;
        }
        let block = if new.size() >= old.layout.size() {
            // SAFETY: as above, and it is no smaller.
            unsafe { arena.grow(old.block, old.layout, new) }
        } else {
            // SAFETY: as above, and it is smaller.
            unsafe { arena.shrink(old.block, old.layout, new) }
        };
        let len = old.layout.size().min(new.size());
        old.block = block.unwrap().cast();
        old.layout = Layout::from_size_align(len, new.align()).unwrap();
        old.verify();
        old.layout = new;
        // SAFETY: the block is as long.
        unsafe { old.block.write_bytes(old.mark, new.size()) };
        Some(old)
    }

    check::<Down, 1>();
    check::<Down, 16>();
    check::<Up, 1>();
    check::<Up, 8>();
}

/// Another thread's block lies where this thread's free bytes begin.
#[test]
fn a_neighbours_block_that_is_freed_here_extends_these_free_bytes_alone() {
    let layout = Layout::new::<u64>();
    let arena = SharedArena::new();
    let (arena, first) = (&arena, arena.handle());
    let blocks: Vec<_> =
        (0..200).map(|_| (&first).allocate(layout).unwrap().cast::<u64>()).collect();
    for block in &blocks {
        // SAFETY: the block is for a `u64`.
        unsafe { block.write(5) };
    }
    drop(first);
    let second = arena.handle();
    (&second).allocate(layout).unwrap();
    for block in &blocks {
        // SAFETY: allocated in the arena with this layout, and not used again.
        unsafe { (&second).deallocate(block.cast(), layout) };
    }
    let third = arena.handle();
    let again: Vec<_> =
        (0..300_u64).map(|i| if i % 2 == 0 { second.alloc(i) } else { third.alloc(i) }).collect();
    assert!(again.iter().map(|value| **value).eq(0..300));
}

#[test]
fn the_newest_block_of_a_thread_grows_and_shrinks_where_it_is() {
    let options = SharedArena::options().direction::<Up>().initial_chunk_bytes(4096);
    let arena = options.build_shared().unwrap();
    let arena = &arena;
    let (small, large) = (Layout::new::<[u64; 2]>(), Layout::new::<[u64; 64]>());
    arena.alloc(1_u8);
    let block = arena.allocate(small).unwrap().cast::<u8>();
    // SAFETY: allocated there with this layout, and the new one is larger.
    let grown = unsafe { arena.grow(block, small, large) }.unwrap();
    assert_eq!(grown.cast::<u8>().addr(), block.addr());
    // SAFETY: likewise, and the new one is smaller.
    let shrunk = unsafe { arena.shrink(grown.cast(), large, small) }.unwrap();
    assert_eq!(shrunk.cast::<u8>().addr(), block.addr());
    // SAFETY: allocated there with this layout.
    unsafe { arena.deallocate(shrunk.cast(), small) };
    assert_eq!(arena.allocate(large).unwrap().cast::<u8>().addr(), block.addr());
}

#[test]
fn an_arena_behind_an_arc_lives_as_long_as_its_last_block() {
    fn check<A: Allocator + Clone + Send + 'static>(arena: A) {
        let layout = Layout::new::<[u64; 10]>();
        let other = arena.clone();
        let worker = thread::spawn(move || {
            let block = other.allocate_zeroed(layout).unwrap().cast::<u8>();
            let parcel = Parcel { block, layout, mark: 0 };
            (other, parcel)
        });
        drop(arena);
        let (arena, parcel) = worker.join().unwrap();
        parcel.verify();
        // SAFETY: allocated there with this layout.
        unsafe { arena.deallocate(parcel.block, parcel.layout) };
    }
    check(ArcArena::from(SharedArena::new()));
    let shared = ArcArena::from(Arc::new(SharedArena::<SystemAllocator>::default()));
    assert_eq!(shared.alloc_str("x"), "x");
    assert!(format!("{shared:?} {:?}", shared.handle()).contains("held"));
}

#[cfg(all(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
#[test]
fn containers_live_in_a_shared_arena() {
    use allocator_api2_04::vec::Vec as ArenaVec;
    use hashbrown::{DefaultHashBuilder, HashMap};
    let count = if cfg!(miri) { 20 } else { 5000_u32 };
    let arena = SharedArena::new();
    let filled: Vec<_> = thread::scope(|scope| {
        let work = |offset: u32| {
            let handle = arena.handle();
            let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &handle);
            let mut values = ArenaVec::new_in(&arena);
            for i in 0..count {
                map.insert(i, i + offset);
                values.push(map[&(i / 2)]);
            }
            values
        };
        let workers: Vec<_> = (0..2).map(|at| scope.spawn(move || work(at))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for (mut values, offset) in filled.into_iter().zip(0..) {
        values.push(0); // grown by another thread than made it
        assert!(values[..values.len() - 1].iter().copied().eq((0..count).map(|i| i / 2 + offset)));
    }
    let mut owner = ArenaVec::new_in(ArcArena::from(arena));
    owner.extend(0..count);
    assert!(thread::spawn(move || owner.iter().copied().eq(0..count)).join().unwrap());
}

#[test]
fn an_arena_moves_between_threads_and_a_thread_finds_its_lease_again() {
    let base = Awkward::new(0);
    assert!(base.live().is_empty());
    let arena = SharedArena::new();
    arena.alloc(1_u64);
    let arena = thread::spawn(move || {
        arena.alloc(2_u64);
        arena
    });
    let arena = arena.join().unwrap();
    arena.alloc(3_u64);
    assert!(arena.used_bytes() <= 2048);
}
