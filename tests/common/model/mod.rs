//! One oracle for property tests and fuzzing. It makes operations from bytes, runs them on every allocator
//! and arena, and checks them with a naive model.
//!
//! The model knows each allocated block: its address, its length, its depth of scopes, and every byte in it.
//! After each operation the new block must be aligned and lie apart from all others. Whenever a scope ends,
//! and at the end, all contents must be as they were written.
//!
//! The [`ledger`] has a model of its own, in plain numbers. The queues have a deque, and the stacks a vector.
//!
//! A new allocator needs a driver like [`bump`] and a line in [`TARGETS`]; a new kind of arena needs an
//! implementation of [`Face`].

mod arena_parts;
mod drop_arena;
mod ledger;
mod lockfree;
mod manager;
mod shared_arena;
mod slab;
mod stack;

pub(crate) use self::{
    drop_arena::drop_arena,
    ledger::ledger,
    lockfree::{free_list, index_queue, queue, spsc_ring},
    manager::manager,
    shared_arena::shared_arena,
    slab::{epoch_slab, local_slab, shared_slab},
    stack::{bounded_stack, unbounded_stack},
};

use crate::common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        AllocError, Allocator, BlockPool, BumpAllocator, SharedBlockPool, StackAllocator,
        SystemAllocator,
        bump::{Borrowed, Direction, Down, InlineBuffer, Up},
        pool::BlockPoolOptions,
        stack::Frame,
    },
    arena::{Arena, Scope, SharedArena, SharedArenaHandle, TypedArena},
    core::{AllocationError, MemoryUsage},
};
use std::{
    alloc::Layout,
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt, iter, mem,
    mem::MaybeUninit,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    rc::Rc,
    slice, thread,
};

/// One operation, as bytes that a fuzzer may change at will.
pub(crate) type Code = [u8; 4];

/// A target's name, and the function that runs it.
pub(crate) type Target = (&'static str, fn(&[Code]));

/// All models.
pub(crate) const TARGETS: &[Target] = &[
    ("arena", arena),
    ("typed_arena", typed_arena),
    ("drop_arena", drop_arena),
    ("shared_arena", shared_arena),
    ("bump", bump),
    ("stack", stack),
    ("block_pool", block_pool),
    ("shared_block_pool", shared_block_pool),
    ("manager", manager),
    ("system", system),
    ("ledger", ledger),
    ("queue", queue),
    ("index_queue", index_queue),
    ("spsc_ring", spsc_ring),
    ("local_slab", local_slab),
    ("shared_slab", shared_slab),
    ("epoch_slab", epoch_slab),
    ("bounded_stack", bounded_stack),
    ("unbounded_stack", unbounded_stack),
    ("free_list", free_list),
];

/// An operation. An allocator skips the operations that it does not have.
#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate {
        layout: Layout,
        zeroed: bool,
    },
    /// Frees the block with this index, modulo their number.
    Free(usize),
    Resize {
        which: usize,
        layout: Layout,
        zeroed: bool,
    },
    /// One of the typed methods.
    Typed {
        which: u8,
        len: usize,
    },
    /// The base allocator's call with this number fails.
    FailIn(usize),
    /// From now on the base allocator refuses blocks of more bytes.
    Most(usize),
    Enter,
    Leave {
        panics: bool,
        forgotten: bool,
    },
    Reset,
    Trim(usize),
    Mark,
    Release(usize),
    /// Begins a part of the subject that runs beside it: a cursor, a child, a thread.
    Part(u8),
    /// Reserves so many bytes ahead.
    Reserve(usize),
}

/// Returns a size: often a small one, and now and then one that no chunk has room for.
fn size(code: u8, fine: u8) -> usize {
    let fine = usize::from(fine);
    match code % 16 {
        0 => 0,
        1..8 => fine % 40,
        8..12 => fine,
        12..14 => fine * 5,
        14 => fine * 24,
        _ => usize::MAX >> (fine % 64).max(1),
    }
}

/// Returns a layout from any bytes. Alignments go up to a page.
fn layout(code: u8, fine: u8, shift: u8) -> Layout {
    let align = 1 << [0, 0, 1, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 8, 10, 12][usize::from(shift % 16)];
    let most = isize::MAX.unsigned_abs() - (align - 1);
    Layout::from_size_align(size(code, fine).min(most), align).unwrap()
}

impl Op {
    fn of([op, a, b, c]: Code) -> Self {
        let zeroed = c >= 128;
        match op % 36 {
            0..8 => Self::Allocate { layout: layout(a, b, c), zeroed },
            8..12 => Self::Free(a.into()),
            12..18 => Self::Resize { which: a.into(), layout: layout(b, b ^ c, c), zeroed },
            18..24 => Self::Typed { which: a, len: size(b % 14, c) },
            24 => Self::FailIn((a % 8).into()),
            25 => Self::Most(if a < 128 { 1 << 20 } else { size(b, c) }),
            26 | 27 => Self::Enter,
            28 => Self::Leave { panics: a < 64, forgotten: a > 192 },
            29 => Self::Reset,
            30 => Self::Trim(size(a, b)),
            31 if a < 128 => Self::Mark,
            31 => Self::Release(b.into()),
            32..35 => Self::Part(a),
            _ => Self::Reserve(size(a, b)),
        }
    }
}

/// The remaining operations.
struct Ops<'a> {
    codes: slice::Iter<'a, Code>,
}

impl Iterator for Ops<'_> {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        self.codes.next().copied().map(Op::of)
    }
}

/// Returns the first operation, which describes the subject, and the operations to run on it.
fn begin(codes: &[Code]) -> Option<(Code, Ops<'_>)> {
    let (first, rest) = codes.split_first()?;
    Some((*first, Ops { codes: rest.iter() }))
}

/// An allocated block.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    /// The block's contents, as many bytes as the allocator returned.
    contents: Vec<u8>,
    /// The number of open scopes around the block.
    depth: usize,
    /// Whether the block came from an [`Allocator`] method, so that one may free it.
    raw: bool,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is allocated and as long, and all its bytes were written.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.contents.len()) }
    }

    fn check(&self) {
        assert!(self.bytes() == self.contents, "the contents of {:?} changed", self.layout);
    }

    fn range(&self) -> (usize, usize) {
        let start = self.start.addr().get();
        (start, start + self.contents.len())
    }
}

/// Contents that differ from block to block and from byte to byte.
fn pattern(seed: u8, len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(move |at| seed ^ at.to_le_bytes()[0].wrapping_mul(29))
}

/// All allocated blocks of one subject.
#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    /// The ranges of values whose contents are not known.
    occupied: Vec<(usize, usize)>,
    depth: usize,
    seed: u8,
}

impl Model {
    fn seed(&mut self) -> u8 {
        self.seed = self.seed.wrapping_add(37);
        self.seed
    }

    /// Adds a new block, which must be apart from all others.
    fn add(&mut self, new: Block) {
        let (start, end) = new.range();
        assert!(start.is_multiple_of(new.layout.align()), "{:?} is not aligned", new.layout);
        for known in self.blocks.iter().filter(|_| start < end) {
            let (known_start, known_end) = known.range();
            let apart = end <= known_start || known_end <= start || known_start == known_end;
            assert!(apart, "{:?} lies over {:?}", new.layout, known.layout);
        }
        for (known_start, known_end) in self.occupied.iter().filter(|_| start < end) {
            assert!(
                end <= *known_start || *known_end <= start,
                "{:?} lies over a value",
                new.layout
            );
        }
        self.blocks.push(new);
    }

    /// Adds a block that an allocator returned, and writes all its bytes.
    fn adopt(&mut self, block: NonNull<[u8]>, layout: Layout, depth: usize) {
        assert!(block.len() >= layout.size());
        let start = block.cast::<u8>();
        let contents: Vec<u8> = pattern(self.seed(), block.len()).collect();
        // SAFETY: the block is allocated and as long, and nothing else has it.
        unsafe { start.as_ptr().copy_from_nonoverlapping(contents.as_ptr(), contents.len()) };
        self.add(Block { start, layout, contents, depth, raw: true });
    }

    fn check(&self) {
        self.blocks.iter().for_each(Block::check);
    }

    /// The blocks that an allocator's methods may be called on. With `outer` these include blocks from before
    /// the innermost scope.
    fn pick(&self, which: usize, outer: bool) -> Option<usize> {
        let may = |block: &Block| block.raw && (outer || block.depth == self.depth);
        let count = self.blocks.iter().filter(|block| may(block)).count();
        let at = which.checked_rem(count)?;
        self.blocks.iter().enumerate().filter(|(_, block)| may(block)).nth(at).map(|(at, _)| at)
    }

    /// Runs an operation that every allocator has, and skips any other.
    fn step<A: Allocator>(&mut self, allocator: &A, op: Op, outer: bool) {
        match op {
            Op::Allocate { layout, zeroed } => {
                let block = if zeroed {
                    allocator.allocate_zeroed(layout)
                } else {
                    allocator.allocate(layout)
                };
                if let Ok(block) = block {
                    if zeroed {
                        assert_zero(block, 0);
                    }
                    self.adopt(block, layout, self.depth);
                }
            }
            Op::Free(which) => {
                if let Some(at) = self.pick(which, outer) {
                    let block = self.blocks.swap_remove(at);
                    block.check();
                    // SAFETY: the block is allocated, with this layout, and is not used from here on.
                    unsafe { allocator.deallocate(block.start, block.layout) };
                }
            }
            Op::Resize { which, layout, zeroed } => {
                if let Some(at) = self.pick(which, outer) {
                    let block = self.blocks.swap_remove(at);
                    self.resize(allocator, block, layout, zeroed);
                }
            }
            _ => {}
        }
    }

    fn resize<A: Allocator>(&mut self, allocator: &A, block: Block, new: Layout, zeroed: bool) {
        block.check();
        let old = block.layout;
        let resized = if new.size() < old.size() {
            // SAFETY: the block is allocated, with this layout, and the new one is smaller.
            unsafe { allocator.shrink(block.start, old, new) }
        } else if zeroed {
            // SAFETY: the block is allocated, with this layout, and the new one is not smaller.
            unsafe { allocator.grow_zeroed(block.start, old, new) }
        } else {
            // SAFETY: as above.
            unsafe { allocator.grow(block.start, old, new) }
        };
        let Ok(resized) = resized else {
            block.check();
            self.add(block);
            return;
        };
        let kept = old.size().min(new.size());
        let start = resized.cast::<u8>();
        // SAFETY: as many bytes were written, or copied from the old block.
        let found = unsafe { slice::from_raw_parts(start.as_ptr(), kept) };
        assert!(found == &block.contents[..kept], "{old:?} lost its contents as {new:?}");
        if zeroed && new.size() >= old.size() {
            assert_zero(resized, kept);
        }
        // A block that was moved in a scope ends with that scope.
        let depth = if start == block.start { block.depth } else { self.depth };
        self.adopt(resized, new, depth);
    }

    fn enter(&mut self) {
        self.depth += 1;
    }

    /// The innermost scope has ended: its blocks are gone, and all others unchanged.
    fn leave(&mut self) {
        self.depth -= 1;
        let depth = self.depth;
        self.blocks.retain(|block| block.depth <= depth);
        self.check();
    }

    /// The innermost scope was forgotten: its blocks belong to the outer one.
    fn merge(&mut self) {
        self.depth -= 1;
        let depth = self.depth;
        self.blocks.iter_mut().for_each(|block| block.depth = block.depth.min(depth));
        self.check();
    }

    /// All blocks are gone.
    fn clear(&mut self) {
        self.check();
        self.blocks.clear();
        self.occupied.clear();
    }
}

/// Asserts that every byte from `from` on is zero.
fn assert_zero(block: NonNull<[u8]>, from: usize) {
    // SAFETY: the contract makes the bytes zero, so initialised, and the block is new.
    let bytes = unsafe { block.as_ref() };
    assert!(bytes[from..].iter().all(|byte| *byte == 0), "not zero");
}

/// The payload of a planned panic. It bypasses the panic hook, in which fuzzers end the process.
struct Planned;

fn panic_as_planned() -> ! {
    resume_unwind(Box::new(Planned))
}

/// Runs code that may panic as planned. Any other panic continues.
fn survive(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run))
        && !payload.is::<Planned>()
    {
        resume_unwind(payload);
    }
}

/// Makes a single-threaded value usable by several threads, one at a time. A thread that sends it to another
/// thread waits for that thread to end.
struct OneAtATime<T>(T);

// SAFETY: the threads are ordered, as the sending thread waits. None leaves anything of the value behind.
unsafe impl<T> Send for OneAtATime<T> {}
// SAFETY: as above; so no two threads use it at once.
unsafe impl<T> Sync for OneAtATime<T> {}

impl<T> OneAtATime<T> {
    /// A method, so that a closure captures all of it and not the field.
    fn into_inner(self) -> T {
        self.0
    }
}

// SAFETY: every block is the inner allocator's.
unsafe impl<A: Deref<Target: Allocator>> Allocator for OneAtATime<A> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.0.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { self.0.deallocate(block, layout) };
    }
}

/// Runs the closure on another thread, which has ended when this function returns.
fn on_a_thread(run: impl FnOnce()) {
    let run = OneAtATime(run);
    thread::scope(|threads| {
        if let Err(panic) = threads.spawn(|| run.into_inner()()).join() {
            resume_unwind(panic);
        }
    });
}

/// Counts its live instances.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self(Rc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The bytes that a typed method returned, and their expected contents.
type Found = Result<(NonNull<u8>, Layout, Vec<u8>), AllocationError>;

fn found<T: ?Sized>(value: &mut T, contents: Vec<u8>) -> Found {
    let layout = Layout::for_value(value);
    assert_eq!(layout.size(), contents.len());
    Ok((NonNull::from(value).cast(), layout, contents))
}

/// The typed methods of an arena or of a scope.
trait Face {
    /// Calls one of the typed methods.
    fn typed(&self, which: u8, len: usize, seed: u8) -> Found;
}

/// A text in parts. Formatting it runs `between` between the parts.
struct Parts<F: Fn()> {
    part: String,
    between: F,
}

impl<F: Fn()> fmt::Display for Parts<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..3 {
            f.write_str(&self.part)?;
            (self.between)();
        }
        Ok(())
    }
}

/// An iterator that yields another number of values than it claims.
struct Liar {
    says: usize,
    yields: usize,
    seed: u8,
}

impl Iterator for Liar {
    type Item = u16;
    fn next(&mut self) -> Option<u16> {
        self.yields = self.yields.checked_sub(1)?;
        Some(self.seed.into())
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.says, Some(self.says))
    }
}

impl ExactSizeIterator for Liar {}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Aligned(#[expect(dead_code, reason = "read as bytes")] [u8; 128]);

macro_rules! face {
    ($type:ty) => {
        impl<A: Allocator, D: Direction, const MIN: usize> Face for $type {
            fn typed(&self, which: u8, len: usize, seed: u8) -> Found {
                let bytes: Vec<u8> = pattern(seed, len).collect();
                let words: Vec<u64> = pattern(seed, len).map(u64::from).collect();
                let of_words = |words: &[u64]| words.iter().flat_map(|w| w.to_ne_bytes()).collect();
                let of_shorts = |shorts: &[u16]| {
                    shorts.iter().flat_map(|short| short.to_ne_bytes()).collect::<Vec<_>>()
                };
                // Allocations that a closure, an iterator or a formatter makes in between.
                let meanwhile = || drop(self.try_alloc_slice_copy(&[seed; 3]));
                match which % 16 {
                    0 if len == 0 => {
                        let failed = self.try_alloc_try_with(|| {
                            meanwhile();
                            Err::<[u64; 3], u8>(seed)
                        })?;
                        assert_eq!(failed, Err(seed));
                        found(self.try_alloc(seed)?, vec![seed])
                    }
                    0 => found(self.try_alloc(u64::from(seed))?, of_words(&[seed.into()])),
                    1 if len.is_multiple_of(2) => {
                        let values = words.iter().copied().inspect(|word| {
                            if word % 5 == 0 {
                                meanwhile();
                            }
                        });
                        found(self.try_alloc_iter(values)?, of_words(&words))
                    }
                    1 => {
                        let (mut string, text) = (self.string(), "é".repeat(len.min(300)));
                        for part in text.split_inclusive('é') {
                            string.try_push_str(part)?;
                            if len.is_multiple_of(3) {
                                meanwhile();
                            }
                        }
                        found(string.into_str(), text.into())
                    }
                    2 => {
                        let make = || {
                            meanwhile();
                            [seed; 300]
                        };
                        found(self.try_alloc_with(make)?, vec![seed; 300])
                    }
                    3 => {
                        let text: String = bytes.iter().map(|b| char::from(b % 128)).collect();
                        found(self.try_alloc_str(&text)?, text.clone().into_bytes())
                    }
                    4 => found(self.try_alloc_slice_copy(&words)?, of_words(&words)),
                    5 => {
                        let make = |at: usize| {
                            meanwhile();
                            words[at]
                        };
                        found(self.try_alloc_slice_fill_with(len, make)?, of_words(&words))
                    }
                    6 => {
                        let liar = Liar { says: len, yields: seed.into(), seed };
                        let shorts = vec![seed.into(); len.min(seed.into())];
                        found(self.try_alloc_slice_fill_iter(liar)?, of_shorts(&shorts))
                    }
                    7 => found(self.try_alloc_slice_clone(&words)?, of_words(&words)),
                    8 => {
                        let part = "é".repeat(len.min(300));
                        let text = format!("{part}{part}{part}{seed}");
                        let parts = Parts { part, between: meanwhile };
                        found(self.try_alloc_fmt(format_args!("{parts}{seed}"))?, text.into())
                    }
                    9 => found(self.try_alloc(Aligned([seed; 128]))?, vec![seed; 128]),
                    10 => {
                        let slots = self.try_alloc_uninit_slice::<u64>(len)?;
                        for (slot, word) in slots.iter_mut().zip(&words) {
                            slot.write(*word);
                        }
                        found(slots, of_words(&words))
                    }
                    11 => found(self.try_alloc([0_u64; 0])?, vec![]),
                    12 => {
                        let slot = self.try_alloc_uninit::<u64>()?;
                        found(slot.write(seed.into()), of_words(&[seed.into()]))
                    }
                    13 => {
                        survive(|| {
                            drop(self.try_alloc_with(|| -> [u64; 9] { panic_as_planned() }))
                        });
                        found(self.try_alloc(seed)?, vec![seed])
                    }
                    14 => {
                        let alive = Rc::default();
                        survive(|| {
                            let made = self.try_alloc_slice_fill_with(len + 1, |at| {
                                meanwhile();
                                if at == len / 2 {
                                    panic_as_planned();
                                }
                                Counted::new(&alive)
                            });
                            assert!(made.is_err(), "the closure panics");
                        });
                        assert_eq!(alive.get(), 0, "what was made is dropped");
                        found(self.try_alloc(seed)?, vec![seed])
                    }
                    _ => {
                        let part = "x".repeat(len.min(300));
                        let parts = Parts { part, between: || panic_as_planned() };
                        survive(|| drop(self.try_alloc_fmt(format_args!("{parts}{seed}"))));
                        found(self.try_alloc(seed)?, vec![seed])
                    }
                }
            }
        }
    };
}

face!(Arena<A, D, MIN>);
face!(Scope<'_, A, D, MIN>);
face!(SharedArena<A, D, MIN>);
face!(SharedArenaHandle<'_, A, D, MIN>);

impl Model {
    fn typed(&mut self, face: &impl Face, which: u8, len: usize) {
        let seed = self.seed();
        if let Ok(found) = face.typed(which, len, seed) {
            self.find(found);
        }
    }

    /// Adds the result of a typed method.
    fn find(&mut self, (start, layout, contents): (NonNull<u8>, Layout, Vec<u8>)) {
        let depth = self.depth;
        let block = Block { start, layout, contents, depth, raw: false };
        block.check();
        self.add(block);
    }
}

/// The base allocator and the budget of an arena.
struct Ground {
    base: Awkward,
    budget: Budget,
    limit: usize,
    max_bytes: usize,
}

impl Ground {
    fn new([_, a, b, c]: Code) -> Self {
        let limit = if a < 100 { 100 + usize::from(a) * 400 } else { 1 << 20 };
        let max_bytes = if b < 100 { 48 + usize::from(b) * 300 } else { 1 << 20 };
        let budget = Budget::root("run").limit(limit).build().unwrap();
        Self { base: Awkward::new((c % 9).into()), budget, limit, max_bytes }
    }

    /// Checks that the ledger and the base allocator agree. Returns the allocated bytes.
    fn check_ledger(&self) -> usize {
        let bytes = self.base.live().iter().map(Layout::size).sum::<usize>();
        assert_eq!(self.budget.usage().used, bytes);
        assert!(bytes <= self.limit.min(self.max_bytes));
        bytes
    }

    /// Checks that the arena agrees with them.
    fn check(&self, held: usize, peak: usize) {
        assert_eq!(held, self.check_ledger());
        assert!(peak >= held);
    }

    /// Runs an operation of the base allocator, and skips any other.
    fn step(&self, op: Op) {
        match op {
            Op::FailIn(calls) => self.base.fails_in.set(calls),
            Op::Most(bytes) => self.base.most.set(bytes),
            _ => {}
        }
    }

    fn finish(&self) {
        assert_eq!((self.base.live().len(), self.budget.usage().used), (0, 0));
    }
}

/// Runs an arena in either direction, with one of the minimum alignments.
pub(crate) fn arena(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    match first[0] % 6 {
        0 => run_arena::<Down, 1>(first, ops),
        1 => run_arena::<Down, 8>(first, ops),
        2 => run_arena::<Down, 16>(first, ops),
        3 => run_arena::<Up, 1>(first, ops),
        4 => run_arena::<Up, 8>(first, ops),
        _ => run_arena::<Up, 16>(first, ops),
    }
}

fn run_arena<D: Direction, const MIN: usize>(first: Code, mut ops: Ops<'_>) {
    let ground = Ground::new(first);
    let options = Arena::options().budget(&ground.budget).max_bytes(ground.max_bytes);
    let options = options.initial_chunk_bytes(48 + usize::from(first[3]) * 8);
    let options = options.direction::<D>().min_align::<MIN>();
    let mut arena = options.build_in(&ground.base).unwrap();
    let mut model = Model::default();
    while let Some(op) = ops.next() {
        let before = arena.used_bytes();
        match op {
            Op::Enter => {
                model.enter();
                survive(|| arena.scope(|scope| in_scope(scope, &mut model, &ground, &mut ops)));
                model.leave();
            }
            Op::Reset => {
                model.clear();
                arena.reset();
                assert_eq!(arena.used_bytes(), before);
            }
            Op::Trim(keep) => {
                model.clear();
                let freed =
                    if keep % 2 == 0 { arena.trim(keep) } else { arena.trim_to_high_water() };
                assert_eq!(arena.used_bytes(), before - freed);
                assert!(arena.used_bytes() <= keep || keep % 2 == 1);
            }
            Op::Typed { which, len } => model.typed(&arena, which, len),
            Op::Part(which) if which < 128 => {
                survive(|| model.in_cursor(arena.cursor(), &&arena, &ground, &mut ops));
                model.check();
            }
            Op::Part(_) => model.beside_a_child(arena.child(), &&arena, &ground, &mut ops),
            Op::Reserve(bytes) => {
                model.reserve(&&arena, |bytes| arena.try_reserve(bytes), bytes, &ground);
            }
            _ => {
                ground.step(op);
                model.step(&&arena, op, false);
            }
        }
        ground.check(arena.used_bytes(), arena.peak_bytes());
        assert!(arena.filled_bytes() <= arena.used_bytes());
    }
    model.check();
    drop(arena);
    ground.finish();
}

/// Runs until the scope ends, in any way.
fn in_scope<D: Direction, const MIN: usize>(
    scope: &mut Scope<'_, &Awkward, D, MIN>,
    model: &mut Model,
    ground: &Ground,
    ops: &mut Ops<'_>,
) {
    while let Some(op) = ops.next() {
        match op {
            Op::Enter => {
                model.enter();
                survive(|| scope.scope(|inner| in_scope(inner, model, ground, ops)));
                model.leave();
            }
            Op::Leave { panics, .. } => {
                model.check();
                if panics {
                    panic_as_planned();
                }
                return;
            }
            Op::Typed { which, len } => model.typed(scope, which, len),
            Op::Part(which) if which < 128 => {
                survive(|| model.in_cursor(scope.cursor(), &&*scope, ground, ops));
                model.check();
            }
            Op::Part(_) => model.beside_a_child(scope.child(), &&*scope, ground, ops),
            _ => {
                ground.step(op);
                model.step(&&*scope, op, false);
            }
        }
        ground.check_ledger();
    }
}

/// Records its number when it is dropped, and panics then if that is planned.
struct Noted {
    number: usize,
    panics: bool,
    log: Rc<RefCell<VecDeque<usize>>>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.log.borrow_mut().push_back(self.number);
        if self.panics && !std::thread::panicking() {
            panic_as_planned();
        }
    }
}

/// Runs an arena of one type: every value is dropped once and in order, whatever panics.
pub(crate) fn typed_arena(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    let ground = Ground::new(first);
    let options = Arena::options().budget(&ground.budget).max_bytes(ground.max_bytes);
    let mut arena: TypedArena<Noted> = options.build_typed().unwrap();
    let log = Rc::new(RefCell::new(VecDeque::new()));
    let (mut alive, mut next) = (VecDeque::new(), 0..);
    // At most one value panics at a time: a second panic would end the process.
    let mut bomb = false;
    for op in ops {
        let mut new = |panics| Noted { number: next.next().unwrap(), panics, log: Rc::clone(&log) };
        match op {
            Op::Allocate { layout, zeroed } => {
                let panics = zeroed && layout.size() == 7 && !bomb;
                let value = new(panics);
                let number = value.number;
                survive(|| {
                    if let Ok(value) = arena.try_alloc(value) {
                        assert_eq!(value.number, number);
                        alive.push_back(number);
                        bomb |= panics;
                    }
                });
                log.borrow_mut().retain(|dropped| *dropped != number);
            }
            Op::Typed { len, which } => {
                let numbers: Vec<_> = {
                    let values: Vec<_> = iter::repeat_with(|| new(false)).take(len % 64).collect();
                    let numbers = values.iter().map(|value| value.number).collect();
                    let whole = which < 200;
                    let values = values.into_iter().inspect(|_| {
                        if !whole {
                            panic_as_planned();
                        }
                    });
                    survive(|| {
                        if let Ok(values) = arena.try_alloc_extend(values) {
                            alive.extend(values.iter().map(|value| value.number));
                        }
                    });
                    numbers
                };
                log.borrow_mut().retain(|dropped| !numbers.contains(dropped));
            }
            Op::Reset | Op::Trim(_) => {
                survive(|| match op {
                    Op::Trim(keep) => {
                        arena.trim(keep);
                    }
                    _ => arena.reset(),
                });
                bomb = false;
                assert_eq!(log.take(), mem::take(&mut alive), "once, and in order");
            }
            _ => {}
        }
        assert!(arena.iter_mut().map(|value| value.number).eq(alive.iter().copied()));
        assert_eq!((arena.len(), arena.used_bytes()), (alive.len(), ground.budget.usage().used));
        assert!(arena.used_bytes() <= ground.limit.min(ground.max_bytes));
    }
    survive(|| drop(arena));
    assert_eq!(log.take(), alive, "once, and in order");
    ground.finish();
}

/// Runs an allocator over a fixed region in both directions.
pub(crate) fn bump(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    match first[0] % 4 {
        0 => run_bump::<Up, 1>(first, ops),
        1 => run_bump::<Up, 8>(first, ops),
        2 => run_bump::<Down, 1>(first, ops),
        _ => run_bump::<Down, 16>(first, ops),
    }
}

fn run_bump<D: Direction, const MIN: usize>([_, from, to, _]: Code, ops: Ops<'_>) {
    let mut buffer = InlineBuffer::<4096>::new();
    let bytes = buffer.as_uninit().len();
    let region: &mut [MaybeUninit<u8>] =
        &mut buffer.as_uninit()[from.into()..bytes - usize::from(to)];
    let bytes = region.len();
    let mut bump = BumpAllocator::<_, D, MIN>::from_region(Borrowed::from(region));
    let mut model = Model::default();
    for op in ops {
        if let Op::Reset = op {
            model.clear();
            bump.reset();
            assert!(bump.used_bytes() < 2 * MIN);
        } else {
            model.step(&&bump, op, false);
        }
        let out = model.blocks.iter().map(|block| block.layout.size()).sum::<usize>();
        assert!(out <= bump.used_bytes() && bump.used_bytes() <= bytes);
        assert_eq!(bump.used_bytes() + bump.free_bytes(), bytes);
        assert!(bump.peak_bytes() >= bump.used_bytes());
    }
    model.check();
}

/// Runs a stack with frames and frees in any order.
pub(crate) fn stack(codes: &[Code]) {
    let Some((first, mut ops)) = begin(codes) else { return };
    let mut buffer = InlineBuffer::<4096>::new();
    let mut stack = StackAllocator::over(&mut buffer.as_uninit()[(first[1] % 32).into()..]);
    let mut model = Model::default();
    let mut whole = true;
    while let Some(op) = ops.next() {
        match op {
            Op::Enter => {
                let before = stack.used_bytes();
                let end = run_frame(stack.frame(), &mut model, &mut ops);
                whole &= end == FrameEnd::Dropped;
                assert!(end != FrameEnd::Dropped || stack.used_bytes() <= before);
            }
            Op::Reset => {
                model.clear();
                stack.reset();
                whole = true;
                assert_eq!(stack.used_bytes(), 0);
            }
            _ => model.step(&&stack, op, true),
        }
        let out = model.blocks.iter().map(|block| block.contents.len()).sum::<usize>();
        assert!(out <= stack.used_bytes() && stack.peak_bytes() >= stack.used_bytes());
    }
    while let Some(at) = model.pick(first[2].into(), true) {
        model.step(&&stack, Op::Free(at), true);
    }
    if whole {
        assert_eq!(stack.used_bytes(), 0, "mixed alignments return to zero, in any order");
    }
}

/// The end of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FrameEnd {
    Dropped,
    Forgotten,
}

/// Runs a frame, and tells the model how the frame ended.
fn run_frame(frame: Frame<'_, Borrowed<'_>>, model: &mut Model, ops: &mut Ops<'_>) -> FrameEnd {
    let mut end = FrameEnd::Dropped;
    model.enter();
    survive(|| end = in_frame(frame, model, ops));
    match end {
        FrameEnd::Dropped => model.leave(),
        FrameEnd::Forgotten => model.merge(),
    }
    end
}

fn in_frame(mut frame: Frame<'_, Borrowed<'_>>, model: &mut Model, ops: &mut Ops<'_>) -> FrameEnd {
    while let Some(op) = ops.next() {
        match op {
            Op::Enter => {
                run_frame(frame.frame(), model, ops);
            }
            Op::Leave { panics: true, .. } => panic_as_planned(),
            Op::Leave { forgotten: true, .. } => {
                mem::forget(frame);
                return FrameEnd::Forgotten;
            }
            Op::Leave { .. } => break,
            _ => model.step(&&*frame, op, true),
        }
    }
    FrameEnd::Dropped
}

/// The methods that only a pool of blocks has.
trait Pool: MemoryUsage {
    /// Whether the pool is shared. A shared pool counts the blocks in use exactly only with a bound.
    const SHARED: bool;
    fn take(&self) -> Result<NonNull<u8>, AllocError>;
    fn block(&self) -> Layout;
    fn held(&self) -> usize;
}

macro_rules! pool {
    ($type:ident, shared: $shared:literal) => {
        impl<A: Allocator> Pool for $type<A> {
            const SHARED: bool = $shared;
            fn take(&self) -> Result<NonNull<u8>, AllocError> {
                self.take_block()
            }
            fn block(&self) -> Layout {
                self.block_layout()
            }
            fn held(&self) -> usize {
                self.held_bytes()
            }
        }
    };
}

pool!(BlockPool, shared: false);
pool!(SharedBlockPool, shared: true);

/// Runs a pool of blocks, and the layouts that fit them.
pub(crate) fn block_pool(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    let base = Awkward::new((first[0] % 9).into());
    let (options, max_blocks) = pool_options(first);
    let pool = options.build_in(&base).unwrap();
    run_pool(&pool, &base, max_blocks, ops, |pool, model, op| model.step(&pool, op, false));
    assert!(pool.held_bytes() >= pool.free_blocks() * pool.block_layout().size());
    drop(pool);
    assert_eq!(base.live().len(), 0);
}

/// Runs a pool that threads share. Some operations run on a thread that ends with them, and leaves its cache
/// to the next thread.
pub(crate) fn shared_block_pool(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    let base = Awkward::new((first[0] % 9).into());
    let (options, max_blocks) = pool_options(first);
    let pool = options.build_shared_in(OneAtATime(&base)).unwrap();
    run_pool(&pool, &base, max_blocks, ops, |pool, model, op| {
        if let Op::Free(which) | Op::Resize { which, .. } = op
            && which % 16 == 15
        {
            on_a_thread(|| model.step(&pool, op, false));
        } else {
            model.step(&pool, op, false);
        }
    });
    drop(pool);
    assert_eq!(base.live().len(), 0);
}

fn pool_options([first, a, b, c]: Code) -> (BlockPoolOptions, usize) {
    let block = Layout::from_size_align(a.into(), 1 << (b % 13)).unwrap();
    let max_blocks = if c < 128 { c.into() } else { usize::MAX };
    let options = BlockPool::options(block)
        .first_slab_blocks((first % 16).into())
        .max_slab_blocks((b / 13).into())
        .max_blocks(max_blocks);
    (options, max_blocks)
}

fn run_pool<P: Pool>(
    pool: &P,
    base: &Awkward,
    max_blocks: usize,
    ops: Ops<'_>,
    step: impl Fn(&P, &mut Model, Op),
) where
    for<'p> &'p P: Allocator,
{
    let block = pool.block();
    let take = |model: &mut Model| {
        let taken = pool.take();
        if let Ok(start) = taken {
            model.adopt(NonNull::slice_from_raw_parts(start, block.size()), block, 0);
        }
        taken.is_ok()
    };
    let exact = !P::SHARED || max_blocks < usize::MAX;
    let mut model = Model::default();
    let mut peak = 0;
    let mut check = |model: &Model| {
        let out = model.blocks.iter().filter(|block| block.layout.size() > 0).count();
        peak = peak.max(out);
        assert!(out <= max_blocks);
        if exact {
            assert_eq!(pool.used_bytes(), out * block.size());
            assert_eq!(pool.peak_bytes(), peak * block.size());
        }
        assert!(pool.used_bytes() >= out * block.size() && pool.peak_bytes() <= pool.held());
        assert_eq!(pool.held(), base.live().iter().map(Layout::size).sum::<usize>());
    };
    for op in ops {
        match op {
            Op::FailIn(calls) => base.fails_in.set(calls),
            Op::Typed { .. } => {
                take(&mut model);
            }
            _ => step(pool, &mut model, op),
        }
        check(&model);
    }
    model.check();
    // Takes exactly as many blocks as the bound permits.
    base.fails_in.set(0);
    base.most.set(usize::MAX);
    while max_blocks < usize::MAX && take(&mut model) {}
    check(&model);
    if max_blocks < usize::MAX {
        assert_eq!(pool.used_bytes(), max_blocks * block.size());
    }
    // All blocks are freed. Then as many can be taken again without a further slab.
    let out = model.blocks.iter().filter(|block| block.layout.size() > 0).count();
    while model.pick(0, false).is_some() {
        step(pool, &mut model, Op::Free(0));
    }
    check(&model);
    let held = pool.held();
    while model.blocks.len() < out && take(&mut model) {}
    assert_eq!(pool.held(), held, "a block that was freed is not found again");
    model.check();
    while model.pick(0, false).is_some() {
        step(pool, &mut model, Op::Free(0));
    }
}

/// Runs the process's allocator, or the trait's default methods.
pub(crate) fn system(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    // These blocks are really allocated. A size that no machine has would take too long.
    let ops = ops.filter(|op| match op {
        Op::Allocate { layout, .. } | Op::Resize { layout, .. } => layout.size() <= 1 << 16,
        _ => true,
    });
    if first[0] % 2 == 0 {
        run_system(&SystemAllocator, ops);
    } else {
        let base = Awkward::new((first[1] % 9).into());
        run_system(
            &base,
            ops.inspect(|op| {
                if let Op::FailIn(calls) = op {
                    base.fails_in.set(*calls);
                }
            }),
        );
        assert_eq!(base.live().len(), 0);
    }
}

fn run_system<A: Allocator>(allocator: &A, ops: impl Iterator<Item = Op>) {
    let mut model = Model::default();
    ops.for_each(|op| model.step(allocator, op, false));
    model.check();
    while model.pick(0, false).is_some() {
        model.step(allocator, Op::Free(0), false);
    }
}
