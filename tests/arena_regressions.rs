//! Faults of other arenas, and attempts to cause undefined behaviour in these.
#![cfg(feature = "std")]

#[path = "common/asked.rs"]
mod asked;
mod common;

use asked::Asked;
use common::Awkward;
use nebula_memory::{
    Budget, Reservation,
    allocator::{
        AllocError, Allocator, BlockPool, TypedAllocator,
        bump::{Direction, Down, Up},
    },
    arena::{Arena, TypedArena},
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, RefCell, UnsafeCell},
    fmt, iter, mem,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    rc::{Rc, Weak},
    slice,
    sync::{Arc, Mutex},
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Panics without calling the panic hook, which would print a message.
fn unwind() -> ! {
    resume_unwind(Box::new("planned"))
}

fn unwinds(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn a_zeroed_block_after_a_reset_a_scope_or_a_free_is_zero() {
    fn check<D: Direction, const MIN: usize>() {
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        let mut arena = options.build().unwrap();
        let zeroed = |arena: &Arena<_, D, MIN>| {
            let block = arena.allocate_zeroed(layout(900, 1)).unwrap();
            // SAFETY: the block is zeroed, and nothing else refers to it.
            assert!(unsafe { block.as_ref() }.iter().all(|byte| *byte == 0));
        };
        arena.alloc_slice_copy(&[0xFF_u8; 900])[1] = 9;
        arena.reset();
        zeroed(&arena);
        arena.reset();
        arena.scope(|scope| scope.alloc_slice_copy(&[0xFF_u8; 900])[1] = 9);
        zeroed(&arena);
        arena.trim(1 << 10);
        let dirty = (&arena).allocate(layout(900, 1)).unwrap();
        // SAFETY: a new block of 900 bytes.
        unsafe { dirty.cast::<u8>().write_bytes(0xFF, 900) };
        // SAFETY: live, with this layout.
        unsafe { (&arena).deallocate(dirty.cast(), layout(900, 1)) };
        zeroed(&arena);
    }
    check::<Up, 1>();
    check::<Down, 16>();
}

/// A saved position lies in a chunk. The arena keeps that chunk, however it grows and goes back in between.
#[test]
fn scopes_that_each_enter_another_chunk_go_back_to_their_own() {
    let base = Awkward::new(0);
    let mut arena = Arena::options().initial_chunk_bytes(64).build_in(&base).unwrap();
    for _ in 0..2 {
        arena.scope(|one| {
            let a = one.alloc([1_u8; 40]);
            one.scope(|two| {
                let b = two.alloc([2_u8; 100]);
                two.scope(|three| {
                    three.alloc([3_u8; 1000]).fill(9);
                });
                let c = two.alloc([4_u8; 60]);
                assert!(unwinds(|| two.scope(|three| {
                    three.alloc([5_u8; 3000]).fill(9);
                    unwind();
                })));
                let d = two.alloc([6_u8; 500]);
                assert_eq!((*b, *c, *d), ([2; 100], [4; 60], [6; 500]));
            });
            let e = one.alloc([7_u8; 30]);
            assert_eq!((*a, *e), ([1; 40], [7; 30]));
        });
    }
}

#[test]
fn alignments_of_a_page_and_more_are_honoured_in_every_direction() {
    fn check<D: Direction, const MIN: usize>() {
        let base = Awkward::new(0);
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        let mut arena = options.build_in(&base).unwrap();
        for shift in [5, 12, 13, 16] {
            let bytes = arena.alloc_layout(layout(3, 1 << shift));
            assert!(bytes.as_ptr().addr().is_multiple_of(1 << shift));
            bytes[2].write(1);
            arena.scope(|scope| {
                let bytes = scope.alloc_layout(layout(1 << shift, 1 << shift));
                assert!(bytes.as_ptr().addr().is_multiple_of(1 << shift));
                bytes[(1 << shift) - 1].write(2);
            });
        }
        // This size is larger than any block of the base allocator.
        assert!(arena.try_alloc_layout(layout(1, 1 << 30)).is_err());
        assert!(arena.try_alloc_layout(layout(0, 1 << 30)).unwrap().is_empty());
    }
    check::<Up, 1>();
    check::<Up, 16>();
    check::<Down, 1>();
    check::<Down, 16>();
}

#[test]
fn an_arena_that_was_moved_goes_on_in_its_chunks() {
    let mut arenas = vec![Arena::new(), Arena::new()];
    for round in 0..3 {
        for arena in &mut arenas {
            arena.scope(|scope| scope.alloc([round; 100]).fill(0));
            assert_eq!(*arena.alloc(round), round);
        }
        let (mut one, mut other) = (arenas.remove(0), Box::new(arenas.remove(0)));
        mem::swap(&mut one, &mut other);
        arenas.extend([one, *other]);
    }
    // Arenas whose chunks lie in the chunks of another arena.
    let below = arenas.remove(0);
    let above = Arena::new_in(&below);
    let top = Arena::new_in(&above);
    assert_eq!(top.alloc_str("three deep"), "three deep");
    drop(top);
    assert_eq!(*above.alloc(7), 7);
}

/// Foreign code may panic halfway: a closure, an iterator, a clone or a drop. No partial result becomes
/// visible.
#[test]
fn foreign_code_that_panics_anywhere_leaves_the_arena_whole() {
    struct Noisy<'a>(&'a Cell<usize>, bool);
    impl<'a> Noisy<'a> {
        fn new(alive: &'a Cell<usize>, bomb: bool) -> Self {
            alive.set(alive.get() + 1);
            Self(alive, bomb)
        }
    }
    impl Clone for Noisy<'_> {
        fn clone(&self) -> Self {
            if self.1 {
                unwind();
            }
            Self::new(self.0, false)
        }
    }
    impl Drop for Noisy<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    /// Panics when it is dropped, or when its length is read.
    struct Numbers<'a>(&'a Cell<usize>, usize, &'a str);
    impl<'a> Iterator for Numbers<'a> {
        type Item = Noisy<'a>;
        fn next(&mut self) -> Option<Noisy<'a>> {
            self.1 = self.1.checked_sub(1)?;
            if self.1 == 2 && self.2 == "next" {
                unwind();
            }
            Some(Noisy::new(self.0, false))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            if self.2 == "len" {
                unwind();
            }
            (self.1, Some(self.1))
        }
    }
    impl ExactSizeIterator for Numbers<'_> {}
    impl Drop for Numbers<'_> {
        fn drop(&mut self) {
            if self.2 == "drop" {
                unwind();
            }
        }
    }

    let alive = Cell::new(0);
    let arena = Arena::options().initial_chunk_bytes(64).build().unwrap();
    let typed = TypedArena::new();
    let before = arena.alloc([7_u64; 3]);
    for when in ["next", "len", "drop"] {
        assert!(unwinds(|| {
            arena.alloc_slice_fill_iter(Numbers(&alive, 5, when));
        }));
        assert_eq!(alive.get(), 0, "{when}");
        assert!(unwinds(|| {
            typed.alloc_extend(Numbers(&alive, 5, when));
        }));
        assert_eq!((alive.get(), typed.len()), (0, 0), "{when}");
    }
    let source: Vec<_> = (0..5).map(|at| Noisy::new(&alive, at == 3)).collect();
    assert!(unwinds(|| {
        arena.alloc_slice_clone(&source);
    }));
    assert_eq!(alive.get(), 5);
    assert_eq!((*before, *arena.alloc([8_u64; 9])), ([7; 3], [8; 9]));
}

/// An iterator claims a length that no memory can hold.
#[test]
fn a_length_beyond_all_memory_is_an_error_before_anything_is_made() {
    struct Endless(usize);
    impl Iterator for Endless {
        type Item = u64;
        fn next(&mut self) -> Option<u64> {
            unwind()
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.0, Some(self.0))
        }
    }
    impl ExactSizeIterator for Endless {}
    let arena = Arena::options().max_bytes(1 << 12).build().unwrap();
    for len in [usize::MAX, usize::MAX / 8 + 2, isize::MAX.unsigned_abs() / 8, 1 << 20] {
        assert!(arena.try_alloc_slice_fill_iter(Endless(len)).is_err());
        assert!(arena.try_alloc_slice_fill_with(len, |_| -> u64 { unwind() }).is_err());
        assert!(arena.try_alloc_uninit_slice::<u64>(len).is_err());
    }
    assert_eq!(arena.used_bytes(), 0);
    // Values without bytes: their number may be huge, and the iterator ends the slice.
    let none = arena.alloc_slice_fill_iter(iter::repeat_n((), usize::MAX).take(3));
    assert_eq!(none.len(), 3);
}

/// Formatting uses the arena that it writes to, fails, or continues after a failure.
#[test]
fn formatting_that_formats_into_the_same_arena_or_ignores_errors() {
    struct Nested<'a>(&'a Arena, usize);
    impl fmt::Display for Nested<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..3 {
                f.write_str("é")?;
                if self.1 > 0 {
                    let inner = self.0.alloc_fmt(format_args!("{}", Nested(self.0, self.1 - 1)));
                    f.write_str(inner)?;
                }
            }
            Ok(())
        }
    }
    struct Deaf;
    impl fmt::Display for Deaf {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let _ = f.write_str(&"x".repeat(5000));
            let _ = f.write_str("é");
            Ok(())
        }
    }
    let arena = Arena::new();
    let text = arena.alloc_fmt(format_args!("{}", Nested(&arena, 2)));
    assert_eq!(text.chars().filter(|c| *c == 'é').count(), 3 + 3 * 3 + 9 * 3);
    let small = Arena::options().max_bytes(1000).build().unwrap();
    let kept = small.alloc_str("kept");
    assert!(small.try_alloc_fmt(format_args!("{Deaf}{Deaf}")).is_err());
    assert_eq!((&*kept, &*small.alloc_fmt(format_args!("{}", 7))), ("kept", "7"));
}

/// A base allocator that allocates from the arena above it before it returns a block.
struct Reentrant(&'static Awkward);

thread_local! {
    static ABOVE: Cell<Option<&'static Arena<Reentrant>>> = const { Cell::new(None) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static NESTED: RefCell<Vec<&'static mut [u8]>> = const { RefCell::new(Vec::new()) };
}

// SAFETY: blocks are `Awkward`'s; nothing unwinds.
unsafe impl Allocator for Reentrant {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let calls = CALLS.get();
        CALLS.set(calls + 1);
        if let Some(arena) = ABOVE.get()
            && calls % 4 < 3
        {
            let _ = arena.try_alloc_fmt(format_args!("{calls}{calls}"));
            if let Ok(bytes) = arena.try_alloc_slice_fill_with(90, |_| 0xB5_u8) {
                NESTED.with_borrow_mut(|nested| nested.push(bytes));
            }
        }
        self.0.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { self.0.deallocate(block, layout) }
    }
}

#[test]
fn a_base_allocator_may_use_the_arena_that_it_is_asked_for() {
    let owned_base = Box::into_raw(Box::new(Awkward::new(3)));
    // SAFETY: the base allocator lives until it is dropped below.
    let base: &'static Awkward = unsafe { &*owned_base };
    let options = Arena::options().initial_chunk_bytes(128).max_chunk_bytes(512).max_bytes(5000);
    let owned = Box::into_raw(Box::new(options.build_in(Reentrant(base)).unwrap()));
    // SAFETY: as above.
    let arena: &'static Arena<Reentrant> = unsafe { &*owned };
    ABOVE.set(Some(arena));
    let mut known = Vec::new();
    while let Ok(bytes) = arena.try_alloc_slice_fill_with(70, |_| 0xA7_u8) {
        known.push(bytes);
        let held = base.live().iter().map(Layout::size).sum::<usize>();
        assert_eq!(arena.used_bytes(), held);
        assert!(held <= 5000 && arena.peak_bytes() >= held);
    }
    ABOVE.set(None);
    let nested = NESTED.take();
    assert!(known.len() > 10 && nested.len() > 3);
    assert!(known.iter().all(|bytes| bytes.iter().all(|byte| *byte == 0xA7)));
    assert!(nested.iter().all(|bytes| bytes.iter().all(|byte| *byte == 0xB5)));
    // SAFETY: the arena was made above; nothing refers to it or to its values any more.
    drop(unsafe { Box::from_raw(owned) });
    assert!(base.live().is_empty());
    // SAFETY: the base allocator was made above, and the arena is gone.
    drop(unsafe { Box::from_raw(owned_base) });
}

/// The function in which a manager panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rude {
    Offer,
    Class,
    Reclaim,
    Drop,
}

/// A manager that panics, and may drop its last handle while it is asked.
struct Manager {
    rude: Rude,
    held: Mutex<Option<Reservation>>,
    itself: Arc<Mutex<Option<Arc<Manager>>>>,
}

impl MemoryUsage for Manager {
    fn used_bytes(&self) -> usize {
        0
    }
    fn peak_bytes(&self) -> usize {
        0
    }
    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Manager {
    fn name(&self) -> &str {
        "rude"
    }
    fn class(&self) -> ReclaimClass {
        if self.rude == Rude::Class {
            unwind();
        }
        ReclaimClass::Cache
    }
    fn reclaimable(&self) -> Reclaimable {
        if self.rude == Rude::Offer {
            unwind();
        }
        Reclaimable::new(4096, 0)
    }
    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        if self.rude == Rude::Reclaim {
            unwind();
        }
        drop(self.held.lock().unwrap().take());
        drop(self.itself.lock().unwrap().take());
        Progress::NOTHING
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if self.rude == Rude::Drop {
            unwind();
        }
    }
}

/// Containers rely on allocators that do not unwind. A manager is safe code and may panic.
#[test]
fn a_manager_that_panics_is_no_panic_of_the_allocator() {
    for rude in [Rude::Offer, Rude::Class, Rude::Reclaim, Rude::Drop] {
        let budget = Budget::root("run").limit(5000).build().unwrap();
        let slot = Arc::new(Mutex::new(None));
        let held = Mutex::new(Some(budget.try_reserve(4900).unwrap()));
        let manager = Arc::new(Manager { rude, held, itself: Arc::clone(&slot) });
        budget.register(&manager);
        *slot.lock().unwrap() = Some(manager);
        {
            let arena = Arena::options().budget(&budget).build().unwrap();
            let block = catch_unwind(AssertUnwindSafe(|| (&arena).allocate(layout(1000, 8))));
            let block = block.unwrap_or_else(|_| panic!("{rude:?} unwinds"));
            assert_eq!(block.is_ok(), rude == Rude::Drop, "{rude:?}");
            assert_eq!(arena.used_bytes() == 0, block.is_err());
        }
        let freed = rude == Rude::Drop;
        assert_eq!(budget.usage().used, if freed { 0 } else { 4900 });
        // Drops the remaining handle. A panic of that drop happens outside of an allocation.
        let left = slot.lock().unwrap().take();
        assert_eq!(left.is_none(), freed);
        drop(left);
        assert_eq!(budget.usage().used, 0);
    }
}

thread_local!(static TYPED: RefCell<Option<TypedArena<u64>>> = const { RefCell::new(None) });

/// A manager puts values into the arena that is being charged. If that is refused, no further reclaim begins.
#[test]
fn a_manager_may_put_values_into_the_typed_arena_being_charged() {
    let budget = Budget::root("run").limit(4000).build().unwrap();
    let held = Arc::new(Mutex::new(Some(budget.try_reserve(3000).unwrap())));
    let holder = Arc::clone(&held);
    let reclaim = move || {
        drop(holder.lock().unwrap().take());
        TYPED.with_borrow(|arena| {
            let arena = arena.as_ref().unwrap();
            let _ = arena.try_alloc(u64::MAX);
            let _ = arena.try_alloc_extend([u64::MAX; 5]);
        });
        // Exclusive access is impossible now: the result is an error, and not two owners.
        assert!(TYPED.with(|arena| arena.try_borrow_mut().is_err()));
        Progress::NOTHING
    };
    let putting = Arc::new(Asked { offer: Reclaimable::new(4096, 0), reclaim });
    budget.register(&putting);
    let options = Arena::options().budget(&budget).initial_chunk_bytes(200);
    TYPED.set(Some(options.build_typed().unwrap()));
    let mut count = 0;
    TYPED.with_borrow(|arena| {
        let arena = arena.as_ref().unwrap();
        let mut known = Vec::new();
        while let Ok(value) = arena.try_alloc(count) {
            known.push(value);
            count += 1;
            if let Ok(many) = arena.try_alloc_extend(count..count + 3) {
                known.extend(many);
                count += 3;
            }
        }
        assert!(known.iter().map(|value| **value).eq(0..count));
        assert_eq!(arena.used_bytes(), budget.usage().used);
    });
    let mut arena = TYPED.take().unwrap();
    let nested = arena.iter_mut().filter(|value| **value == u64::MAX).count();
    assert!(held.lock().unwrap().is_none() && nested > 0);
    assert!(arena.iter_mut().map(|value| *value).filter(|value| *value < u64::MAX).eq(0..count));
    drop(arena);
    assert_eq!(budget.usage().used, 0);
}

/// A value that looks for its arena, and for other values of the arena, when it is dropped.
#[test]
fn a_drop_cannot_reach_the_typed_arena_that_it_is_dropped_by() {
    struct Curious(Weak<TypedArena<Curious>>, Rc<Cell<usize>>);
    impl Drop for Curious {
        fn drop(&mut self) {
            assert!(self.0.upgrade().is_none(), "the arena is going");
            self.1.set(self.1.get() + 1);
        }
    }
    let drops = Rc::new(Cell::new(0));
    let arena = Rc::new(TypedArena::new());
    for _ in 0..50 {
        arena.alloc(Curious(Rc::downgrade(&arena), Rc::clone(&drops)));
    }
    drop(arena);
    assert_eq!(drops.get(), 50);

    thread_local!(static LOCAL: TypedArena<Local> = TypedArena::new());
    struct Local(std::sync::mpsc::Sender<bool>);
    impl Drop for Local {
        fn drop(&mut self) {
            let reached = LOCAL.try_with(TypedArena::len).is_ok();
            self.0.send(reached).unwrap();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let fill = move || LOCAL.with(|arena| arena.alloc_extend([Local(sender)]).len());
    assert_eq!(std::thread::spawn(fill).join().unwrap(), 1);
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [false]);
}

#[test]
fn an_iterator_over_a_typed_arena_that_is_left_or_forgotten_harms_nothing() {
    let mut arena = TypedArena::new();
    arena.alloc_extend((0..50).map(|at| at.to_string()));
    arena.alloc(String::from("last"));
    let mut iter = arena.iter_mut();
    let (first, second) = (iter.next().unwrap(), iter.next().unwrap());
    mem::swap(first, second);
    mem::forget(iter);
    arena.iter_mut().for_each(|name| name.push('!'));
    assert_eq!(arena.iter_mut().next().unwrap(), "1!");
    drop(mem::take(arena.iter_mut().last().unwrap()));
    assert_eq!(arena.len(), 51);
}

#[test]
fn more_values_of_no_bytes_than_can_be_counted_are_no_panic() {
    let mut arena = TypedArena::new();
    arena.alloc(());
    assert_eq!(arena.alloc_extend(vec![(); usize::MAX]).len(), usize::MAX);
    arena.alloc(());
    assert_eq!((arena.len(), arena.used_bytes()), (usize::MAX, 0));
    assert_eq!(arena.iter_mut().next(), Some(&mut ()));
    arena.reset();
    assert!(arena.is_empty());
}

#[test]
fn two_arenas_of_one_type_that_change_places_drop_every_value_once() {
    let value = Rc::new(());
    let (mut one, mut other) = (TypedArena::new(), TypedArena::new());
    one.alloc_extend(iter::repeat_n(Rc::clone(&value), 300));
    other.alloc(Rc::clone(&value));
    mem::swap(&mut one, &mut other);
    assert_eq!((one.len(), other.len(), Rc::strong_count(&value)), (1, 300, 302));
    one.reset();
    one.alloc(Rc::clone(&value));
    drop(other);
    assert_eq!(Rc::strong_count(&value), 2);
    mem::take(&mut one);
    assert_eq!(Rc::strong_count(&value), 1);
}

/// Boxes and pools drop their values before an arena takes the blocks back without dropping anything.
#[test]
fn boxes_and_pools_in_an_arena_or_in_a_scope_are_dropped_before_it() {
    let value = Rc::new(());
    let mut arena = Arena::new();
    for round in 0..3 {
        let boxed = (&arena).alloc_value(Rc::clone(&value)).unwrap();
        let pool = BlockPool::for_type::<Rc<()>>().first_slab_blocks(2).build_in(&arena).unwrap();
        let pooled: Vec<_> = (0..5).map(|_| pool.alloc_value(Rc::clone(&value)).unwrap()).collect();
        assert_eq!(Rc::strong_count(&value), 7);
        drop((boxed, pooled));
        drop(pool);
        let unwound = unwinds(|| {
            arena.scope(|scope| {
                let many = TypedAllocator::alloc_slice_fill_with(&*scope, 3, |_| Rc::clone(&value))
                    .unwrap();
                scope.alloc([0_u8; 5000]).fill(1);
                if round == 1 {
                    unwind();
                }
                drop(many);
                let left = (&*scope).alloc_value(7_u64).unwrap();
                mem::forget(left);
                scope.scope(|inner| *inner.alloc(8));
            });
        });
        assert_eq!((unwound, Rc::strong_count(&value)), (round == 1, 1));
        arena.reset();
    }
}

/// The base allocator fails after a chunk was charged, at any call. The charge is released.
#[test]
fn a_base_allocator_that_fails_at_any_call_loses_nothing() {
    for fails in 1..if cfg!(miri) { 3 } else { 6 } {
        let base = Awkward::new(0);
        let budget = Budget::root("run").limit(1 << 16).build().unwrap();
        let options = Arena::options().budget(&budget).initial_chunk_bytes(64);
        let mut arena = options.build_in(&base).unwrap();
        base.fails_in.set(fails);
        for at in 0..if cfg!(miri) { 15 } else { 40_u64 } {
            if let Ok(values) = arena.try_alloc_slice_fill_with(9, |_| at) {
                assert_eq!(*values, [at; 9]);
            }
            let live = base.live().iter().map(Layout::size).sum::<usize>();
            assert_eq!((arena.used_bytes(), budget.usage().used), (live, live));
        }
        assert_eq!(base.fails_in.get(), 0, "it did fail");
        arena.trim(0);
        assert_eq!((base.live().len(), budget.usage().used), (0, 0));
    }
}

/// The charge is released with the arena wherever a panic drops the arena, also in a scope.
#[test]
fn an_arena_that_a_panic_drops_gives_everything_back() {
    let budget = Budget::root("run").limit(1 << 16).build().unwrap();
    assert!(unwinds(|| {
        let mut arena = Arena::options().budget(&budget).build().unwrap();
        arena.scope(|outer| {
            outer.alloc([1_u8; 2000]).fill(0);
            outer.scope(|inner| {
                inner.alloc([2_u8; 2000]).fill(0);
                unwind();
            });
        });
    }));
    assert_eq!(budget.usage().used, 0);
}

/// Space for a chunk, and for a buffer that begins at the chunk's end.
#[repr(align(16))]
struct Region(UnsafeCell<[MaybeUninit<u8>; CHUNK + BUFFER]>);

const CHUNK: usize = 2032;
const BUFFER: usize = 64;

// SAFETY: one test uses it, on its own thread.
unsafe impl Sync for Region {}

static REGION: Region = Region(UnsafeCell::new([MaybeUninit::uninit(); CHUNK + BUFFER]));

thread_local!(static CHUNK_IS_NEXT: Cell<bool> = const { Cell::new(false) });

/// The system's allocator, except for one block at the start of the region. Allocators that keep blocks of
/// one size side by side, without headers, often place a block directly before another.
struct Beside;

#[global_allocator]
static GLOBAL: Beside = Beside;

// SAFETY: every block is the system's, or is the region's first bytes. These are as many and as aligned as
// requested. They are returned again only when the test asks for it, after they have come back.
unsafe impl GlobalAlloc for Beside {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let is_chunk = layout.size() == CHUNK && layout.align() <= 16;
        if is_chunk && CHUNK_IS_NEXT.replace(false) {
            return REGION.0.get().cast();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block != REGION.0.get().cast() {
            // SAFETY: the block is the system's, as it is not the region's; the caller's promise.
            unsafe { System.dealloc(block, layout) }
        }
    }
}

/// The block next to the free bytes is the newest one, unless it lies in another allocation.
#[test]
fn no_value_lies_across_a_buffer_and_a_chunk_that_ends_where_it_begins() {
    fn check<D: Direction, const MIN: usize>(fill: bool) {
        let region = REGION.0.get().cast::<MaybeUninit<u8>>();
        // SAFETY: the offset lies within the region.
        let start = unsafe { region.add(CHUNK) };
        // SAFETY: these are the rest of the region, which nothing else uses until the arena is gone.
        let buffer = unsafe { slice::from_raw_parts_mut(start, BUFFER) };
        let options = Arena::options().direction::<D>().min_align::<MIN>();
        let arena = options.initial_chunk_bytes(CHUNK).build_with_buffer(buffer).unwrap();
        let space = CHUNK - 4 * size_of::<usize>();
        // Allocates one block that fits only in the chunk, or as many as fit in the buffer and one more.
        let one = layout(if fill { 1 } else { space }, 1);
        let mut blocks = Vec::with_capacity(BUFFER + 1);
        CHUNK_IS_NEXT.set(true);
        while arena.used_bytes() == 0 {
            blocks.push((&arena).allocate(one).unwrap().cast::<u8>());
        }
        assert!(!CHUNK_IS_NEXT.get(), "the chunk is the one before the buffer");
        for block in blocks.into_iter().rev() {
            // SAFETY: live, with this layout.
            unsafe { (&arena).deallocate(block, one) };
        }

        // Neither the chunk nor the buffer has room for this block.
        let next = arena.alloc_slice_fill_with(space + 16, |_| 7_u8).as_ptr_range();
        let (low, high) = (next.start.addr(), next.end.addr());
        assert!(low >= start.addr() || high <= start.addr(), "lies in both");
    }
    for fill in [false, true] {
        check::<Up, 1>(fill);
        check::<Up, 16>(fill);
        check::<Down, 1>(fill);
        check::<Down, 16>(fill);
    }
}

/// A run of values in a chunk of its own is not next to the free bytes, which lie in another chunk. So it
/// cannot grow in place.
#[test]
fn a_run_of_a_typed_arena_in_a_chunk_of_its_own_is_allocated_once() {
    let options = Arena::options().initial_chunk_bytes(4096).max_bytes(30_000);
    let arena: TypedArena<[u8; 100]> = options.build_typed().unwrap();
    arena.alloc([1; 100]);
    let before = arena.used_bytes();
    let many = arena.try_alloc_extend((0..200).map(|_| [2_u8; 100])).expect("it fits");
    assert_eq!(many.len(), 200);
    assert!(arena.used_bytes() - before < 25_000, "{}", arena.used_bytes());
}

/// An arena drops no value, not even a child arena that owns chunks. Yet no chunk is leaked.
#[test]
fn the_chunks_of_a_child_that_lives_in_its_parent_go_with_the_parent() {
    let base = Awkward::new(0);
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let arena = Arena::options().budget(&budget).build_in(&base).unwrap();
    let child = arena.alloc(arena.child());
    assert_eq!(*child.alloc(7), 7);
    assert_eq!(base.live().len(), 2, "one for each");
    drop(arena);
    assert_eq!((base.live(), budget.usage().used), (vec![], 0));
}

/// A panic's location is the line of the caller that requested too much, not a line of this crate or of the
/// standard library.
#[test]
fn a_panic_is_the_callers() {
    use std::panic::{self, AssertUnwindSafe, Location};
    thread_local!(static WHERE: RefCell<String> = const { RefCell::new(String::new()) });
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let file = info.location().map_or("", Location::file).to_owned();
        WHERE.with_borrow_mut(|place| *place = file);
        before(info);
    }));
    let options = || Arena::options().max_bytes(4096);
    let arena = options().build().unwrap();
    let shared = options().build_shared().unwrap();
    let typed = options().build_typed::<[u8; 100]>().unwrap();
    let calls: &[(&str, &dyn Fn())] = &[
        ("alloc", &|| _ = arena.alloc([0_u8; 5000])),
        ("alloc_slice_copy", &|| _ = arena.alloc_slice_copy(&[0_u8; 5000])),
        ("alloc_slice_fill_iter", &|| _ = arena.alloc_slice_fill_iter((0..5000).map(|_| 0_u8))),
        ("alloc_str", &|| _ = arena.alloc_str(&"a".repeat(5000))),
        ("alloc_fmt", &|| _ = arena.alloc_fmt(format_args!("{:5000}", 1))),
        ("reserve", &|| arena.reserve(5000)),
        ("shared alloc", &|| _ = shared.alloc([0_u8; 5000])),
        ("shared reserve", &|| shared.reserve(5000)),
        ("handle", &|| _ = shared.handle().alloc([0_u8; 5000])),
        ("typed", &|| (0..100).for_each(|_| _ = typed.alloc([0; 100]))),
        ("typed extend", &|| _ = typed.alloc_extend(std::iter::repeat_n([0; 100], 100))),
    ];
    let wrong: Vec<_> = calls
        .iter()
        .filter_map(|(name, call)| {
            panic::catch_unwind(AssertUnwindSafe(call)).expect_err(name);
            let place = WHERE.take();
            (place != file!()).then_some((name, place))
        })
        .collect();
    let _ = panic::take_hook();
    assert!(wrong.is_empty(), "{wrong:?}");
}
