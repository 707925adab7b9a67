//! The arena: random steps against a model, and typical faults of arenas.
#![cfg(feature = "std")]

#[path = "common/asked.rs"]
mod asked;
mod common;

use asked::Asked;
use common::Awkward;
use nebula_memory::{
    Budget,
    allocator::{
        SystemAllocator,
        bump::{Direction, Down, Up},
    },
    arena::{Arena, Scope},
    core::{AllocationError, MemoryUsage, RefusedReason, Resettable},
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    cell::{Cell, RefCell},
    fmt, iter, mem,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    slice, thread,
};

/// One step in a scope.
#[derive(Clone, Debug)]
enum Step {
    Bytes {
        size: usize,
        shift: u32,
    },
    Words {
        len: usize,
    },
    Text {
        len: usize,
    },
    Format {
        parts: usize,
        len: usize,
    },
    /// From now on the base allocator refuses blocks of more bytes.
    Most(usize),
    /// Allocates values with a cursor, some values beside the cursor, and some in a child arena.
    Cursor {
        len: usize,
        beside: usize,
    },
    Scope {
        steps: Vec<Step>,
        panics: bool,
    },
}

/// The action after a round of steps.
#[derive(Clone, Copy, Debug)]
enum End {
    Nothing,
    Reset,
    Trim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        4 => (prop_oneof![0..40_usize, 0..6000_usize], 0..9_u32)
            .prop_map(|(size, shift)| Step::Bytes { size, shift }),
        2 => (0..200_usize).prop_map(|len| Step::Words { len }),
        2 => (0..300_usize).prop_map(|len| Step::Text { len }),
        2 => (0..9_usize, 0..150_usize).prop_map(|(parts, len)| Step::Format { parts, len }),
        2 => (0..if cfg!(miri) { 40_usize } else { 300 }, 0..9_usize)
            .prop_map(|(len, beside)| Step::Cursor { len, beside }),
        1 => prop_oneof![Just(1 << 20), 0..9000_usize].prop_map(Step::Most),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        let steps = || proptest::collection::vec(inner.clone(), 0..8);
        prop_oneof![
            (steps(), any::<bool>()).prop_map(|(steps, panics)| Step::Scope { steps, panics }),
        ]
    })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Nothing), Just(End::Reset), (0..20_000_usize).prop_map(End::Trim)]
}

/// Allocated values, with their expected contents.
#[derive(Default)]
struct Known<'s> {
    bytes: Vec<(&'s mut [u8], u8)>,
    words: Vec<(&'s mut [u64], u64)>,
    texts: Vec<(&'s mut str, String)>,
}

impl<'s> Known<'s> {
    fn check(&self) {
        for (bytes, seed) in &self.bytes {
            assert!(bytes.iter().all(|byte| byte == seed), "bytes of {seed} were overwritten");
        }
        for (words, seed) in &self.words {
            assert!((*seed..).zip(words.iter()).all(|(expected, word)| expected == *word));
        }
        for (text, expected) in &self.texts {
            assert_eq!(*text, expected);
        }
    }
}

/// The payload of a panic that a test causes.
struct Planned;

fn run_scope<'s, D: Direction, const MIN: usize>(
    scope: &mut Scope<'s, &Awkward, D, MIN>,
    base: &Awkward,
    steps: &[Step],
    seed: &Cell<u8>,
) -> Known<'s> {
    let mut known = Known::<'s>::default();
    for step in steps {
        seed.set(seed.get().wrapping_add(1));
        let new = seed.get();
        match step {
            Step::Bytes { size, shift } => {
                let layout = Layout::from_size_align(*size, 1 << shift).unwrap();
                if let Ok(bytes) = scope.try_alloc_layout(layout) {
                    assert_eq!((bytes.len(), bytes.as_ptr().addr() % layout.align()), (*size, 0));
                    let bytes = bytes.iter_mut().map(|byte| byte.write(new));
                    let count = bytes.count();
                    assert_eq!(count, *size);
                }
                if let Ok(bytes) = scope.try_alloc_slice_fill_with(*size, |_| new) {
                    known.bytes.push((bytes, new));
                }
            }
            Step::Words { len } => {
                let values = u64::from(new)..;
                if let Ok(words) =
                    scope.try_alloc_slice_copy(&values.take(*len).collect::<Vec<_>>())
                {
                    known.words.push((words, new.into()));
                }
            }
            Step::Text { len } => {
                let expected: String = iter::repeat_n(char::from(new % 26 + b'a'), *len).collect();
                if let Ok(text) = scope.try_alloc_str(&expected) {
                    known.texts.push((text, expected));
                }
            }
            Step::Format { parts, len } => {
                let text = Between { scope, parts: *parts, len: *len };
                let expected = "é".repeat(*len * *parts);
                if let Ok(text) = scope.try_alloc_fmt(format_args!("{text}{new}")) {
                    known.texts.push((text, format!("{expected}{new}")));
                }
            }
            Step::Most(bytes) => base.most.set(*bytes),
            Step::Cursor { len, beside } => run_cursor(scope, *len, *beside, new, &mut known),
            Step::Scope { steps, panics } => {
                planned(|| {
                    scope.scope(|inner| {
                        run_scope(inner, base, steps, seed);
                        if *panics {
                            resume_unwind(Box::new(Planned));
                        }
                    });
                });
            }
        }
        known.check();
    }
    known
}

/// Returns the result of `run`, or `None` if it panics as planned.
fn planned<R>(run: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Planned>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

fn run_cursor<'s, D: Direction, const MIN: usize>(
    scope: &Scope<'s, &Awkward, D, MIN>,
    len: usize,
    beside: usize,
    seed: u8,
    known: &mut Known<'s>,
) {
    let mut cursor = scope.cursor();
    for i in 0..len {
        let Ok(word) = cursor.try_alloc(u64::from(seed)) else { break };
        known.words.push((slice::from_mut(word), seed.into()));
        if beside > 0 && i % beside == 0 {
            let child = scope.child();
            let scratch = child.try_alloc_slice_fill_with(i, |_| !seed);
            if let Ok(bytes) = scope.try_alloc_slice_fill_with(i, |_| seed) {
                known.bytes.push((bytes, seed));
            }
            if let Ok(scratch) = scratch {
                assert!(scratch.iter().all(|byte| *byte == !seed));
            }
        }
    }
}

/// A text in parts. Formatting it allocates in the same scope between the second part and the third.
struct Between<'a, 's, 'b, D: Direction, const MIN: usize> {
    scope: &'a Scope<'s, &'b Awkward, D, MIN>,
    parts: usize,
    len: usize,
}

impl<D: Direction, const MIN: usize> fmt::Display for Between<'_, '_, '_, D, MIN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in 0..self.parts {
            f.write_str(&"é".repeat(self.len))?;
            if part == 1 {
                let _ = self.scope.try_alloc(0x55_u8);
            }
        }
        Ok(())
    }
}

/// The maximum of an arena's bytes.
const MOST: usize = if cfg!(miri) { 4_000 } else { 40_000 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn values_stay_apart_and_the_ledger_knows_every_chunk(
        rounds in proptest::collection::vec(
            (proptest::collection::vec(step(), 0..8), end()),
            1..if cfg!(miri) { 3 } else { 6 },
        ),
        limit in 100..MOST,
        max_bytes in 48..MOST,
        initial in 48..MOST / 4,
        slack in 0..9_usize,
    ) {
        let plan = Plan { rounds, limit, max_bytes, initial, slack };
        plan.run::<Up, 8>();
        plan.run::<Down, 1>();
        if !cfg!(miri) {
            plan.run::<Down, 8>();
            plan.run::<Up, 1>();
            plan.run::<Up, 16>();
        }
    }
}

struct Plan {
    rounds: Vec<(Vec<Step>, End)>,
    limit: usize,
    max_bytes: usize,
    initial: usize,
    slack: usize,
}

impl Plan {
    fn run<D: Direction, const MIN: usize>(&self) {
        let Self { rounds, limit, max_bytes, initial, slack } = self;
        let (limit, max_bytes) = (*limit, *max_bytes);
        let base = Awkward::new(*slack);
        let budget = Budget::root("run").limit(limit).build().unwrap();
        let options = Arena::options().budget(&budget).max_bytes(max_bytes);
        let options = options.initial_chunk_bytes(*initial).direction::<D>().min_align::<MIN>();
        let mut arena = options.build_in(&base).unwrap();
        let seed = Cell::new(0);
        let held = |arena: &Arena<&Awkward, D, MIN>| {
            let bytes = base.live().iter().map(Layout::size).sum::<usize>();
            assert_eq!((budget.usage().used, arena.used_bytes()), (bytes, bytes));
            assert!(bytes <= limit.min(max_bytes) && arena.peak_bytes() >= bytes);
            bytes
        };
        for (steps, end) in rounds {
            arena.scope(|scope| run_scope(scope, &base, steps, &seed).check());
            let before = held(&arena);
            match *end {
                End::Nothing => {}
                End::Reset => {
                    Resettable::reset(&mut arena);
                    assert_eq!(held(&arena), before);
                }
                End::Trim(keep) => {
                    let freed = arena.trim(keep);
                    assert_eq!(held(&arena), before - freed);
                    assert!(before - freed <= keep);
                }
            }
        }
        drop(arena);
        assert_eq!((base.live().len(), budget.usage().used), (0, 0));
    }
}

/// Counts its live instances.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self(Rc::clone(alive))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        assert!(self.0.get() < 5, "planned");
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[test]
fn a_panic_half_way_through_a_slice_drops_its_elements() {
    let alive = Rc::new(Cell::new(0));
    let mut arena = Arena::new();
    let kept = arena.used_bytes();
    arena.scope(|scope| {
        let fill = catch_unwind(AssertUnwindSafe(|| {
            scope.alloc_slice_fill_with(9, |i| {
                assert!(i < 3, "planned");
                Counted::new(&alive)
            });
        }));
        assert!(fill.is_err());
        assert_eq!(alive.get(), 0);

        let first = Counted::new(&alive);
        let clones = catch_unwind(AssertUnwindSafe(|| {
            scope.alloc_slice_clone(&[first.clone(), first.clone(), first.clone()]);
        }));
        assert!(clones.is_err());
        assert_eq!(alive.get(), 1, "one clone and all of the source are gone");

        let x = scope.alloc(7);
        let made = catch_unwind(AssertUnwindSafe(|| {
            scope.alloc_with(|| -> u64 { panic!("planned") });
        }));
        assert!(made.is_err());
        assert_eq!(*x, 7);
    });
    assert_eq!(kept, 0);
}

#[test]
fn a_panic_in_a_scope_goes_back_to_where_the_scope_began() {
    let mut arena = Arena::new();
    arena.scope(|outer| {
        let before = outer.alloc(1_u64);
        let first_inner = outer.scope(|inner| inner.alloc(2_u64).addr());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            outer.scope(|inner| {
                inner.alloc_slice_copy(&[7_u64; 10_000]).fill(3);
                panic!("planned");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(outer.alloc(4_u64).addr(), first_inner, "the same place again");
        assert_eq!(*before, 1);
    });
}

/// Returns the address of the referent.
trait Addr {
    fn addr(&self) -> usize;
}

impl<T> Addr for &mut T {
    fn addr(&self) -> usize {
        (&raw const **self).addr()
    }
}

#[test]
fn a_kept_chunk_that_is_too_small_stays_for_later() {
    let base = Awkward::new(0);
    let mut arena = Arena::new_in(&base);
    let mut made = Vec::new();
    for _ in 0..6 {
        arena.scope(|scope| {
            scope.alloc(1_u8);
            scope.alloc_slice_copy(&[2_u8; 9000]).fill(3);
            scope.alloc_slice_copy(&[4_u8; 50_000]).fill(5);
        });
        made.push(base.live().len());
    }
    assert!(made[2..].iter().all(|count| *count <= 4), "{made:?}");
    arena.scope(|scope| scope.alloc_slice_copy(&[0_u8; 500_000]).fill(6));
    arena.scope(|scope| {
        scope.alloc(1_u8);
        scope.alloc_slice_copy(&[2_u8; 9000]).fill(3);
    });
    assert!(base.live().len() <= 5);
}

#[test]
fn nothing_takes_no_place_but_keeps_its_alignment() {
    #[repr(align(4096))]
    struct Page;

    let base = Awkward::new(0);
    let arena = Arena::new_in(&base);
    assert_eq!(arena.alloc(Page).addr() % 4096, 0);
    arena.alloc_slice_copy::<u64>(&[]).reverse();
    assert_eq!(arena.alloc_str(""), "");
    assert_eq!(arena.alloc_fmt(format_args!("{}", "")), "");
    assert_eq!(arena.alloc_uninit_slice::<()>(usize::MAX).len(), usize::MAX);
    assert_eq!(arena.alloc_slice_fill_with(9, |_| ()).len(), 9);
    assert_eq!(arena.alloc_uninit_slice::<Page>(3).len(), 3);
    assert!(base.live().is_empty(), "no chunk for nothing");

    let x = arena.alloc(1_u64);
    arena.alloc(());
    *x = 2;
    assert_eq!((*arena.alloc(3_u64), *x), (3, 2));
}

#[test]
fn every_alignment_is_honoured_in_a_chunk_of_the_least_alignment() {
    let base = Awkward::new(0);
    for shift in 0..=12 {
        let arena = Arena::new_in(&base);
        for size in [1, 15, 100, 5000] {
            arena.alloc(0_u8);
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            let bytes = arena.alloc_layout(layout);
            assert_eq!(bytes.as_ptr().addr() % layout.align(), 0, "{layout:?}");
            bytes.fill(MaybeUninit::new(7));
        }
    }
}

#[test]
fn a_slice_lies_in_one_chunk() {
    let arena = Arena::options().initial_chunk_bytes(128).build().unwrap();
    for len in 0..200_u32 {
        arena.alloc_slice_fill_iter(0..len).reverse();
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let arena = Arena::new();
    for len in [usize::MAX, isize::MAX as usize, isize::MAX as usize / 8] {
        let error = arena.try_alloc_uninit_slice::<u64>(len).unwrap_err();
        assert_eq!(error.code(), "MEM:ALLOC:CAPACITY_OVERFLOW", "{error}");
    }
    for align in [1, 1 << 20] {
        let layout = Layout::from_size_align(isize::MAX as usize - (align - 1), align).unwrap();
        assert!(arena.try_alloc_layout(layout).is_err());
    }
    assert_eq!(arena.used_bytes(), 0);
    assert_eq!(*arena.alloc(7), 7, "and the arena goes on");
}

#[test]
fn an_iterator_that_lies_about_its_length_is_harmless() {
    struct Liar {
        says: usize,
        yields: usize,
    }
    impl Iterator for Liar {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            self.yields = self.yields.checked_sub(1)?;
            Some("x".repeat(100))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.says, Some(self.says))
        }
    }
    impl ExactSizeIterator for Liar {}

    let arena = Arena::new();
    for (says, yields, expected) in [(3, 9, 3), (9, 3, 3), (0, 1, 0)] {
        let values = arena.alloc_slice_fill_iter(Liar { says, yields });
        assert_eq!(values.len(), expected);
        // The arena does not drop these values.
        values.iter_mut().for_each(|value| drop(mem::take(value)));
    }
}

#[test]
fn the_maximum_is_exact() {
    let base = Awkward::new(0);
    for max_bytes in [48, 49, 63, 64, 4096, 5000, 10_000] {
        let arena = Arena::options().max_bytes(max_bytes).build_in(&base).unwrap();
        let mut error = None;
        for _ in 0..max_bytes {
            error = arena.try_alloc(1_u8).err();
            if error.is_some() {
                break;
            }
        }
        let error = error.expect("no header is free");
        assert_eq!((error.code(), error.is_retryable()), ("MEM:ALLOC:EXHAUSTED", true));
        assert!(arena.used_bytes() <= max_bytes && max_bytes - arena.used_bytes() < 48);
    }
    assert!(base.live().is_empty());

    let too_small = Arena::options().max_bytes(47).build().unwrap_err();
    let text = too_small.to_string();
    assert!(text.contains("`arena.max_bytes`: got `47 B`, allowed is at least 48 B"), "{text}");
}

#[test]
fn a_tight_budget_gets_smaller_chunks_and_then_an_error_that_names_it() {
    let budget = Budget::root("run").limit(100).build().unwrap();
    let arena = Arena::options().budget(&budget).build().unwrap();
    assert_eq!(*arena.alloc(7_u64), 7, "although a first chunk of the usual size does not fit");
    let error = arena.try_alloc([0_u8; 100]).unwrap_err();
    let AllocationError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    assert!(error.to_string().contains("run"), "{error}");
    let panicked = catch_unwind(AssertUnwindSafe(|| *arena.alloc([0_u8; 100])));
    let message = *panicked.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, error.to_string());
}

#[test]
fn a_base_allocator_that_fails_leaves_nothing_charged() {
    let base = Awkward::new(0);
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let arena = Arena::options().budget(&budget).build_in(&base).unwrap();
    base.most.set(0);
    let error = arena.try_alloc(7_u64).unwrap_err();
    assert_eq!(error.code(), "MEM:ALLOC:EXHAUSTED");
    assert_eq!((budget.usage().used, arena.used_bytes()), (0, 0));
    base.most.set(100);
    assert_eq!(*arena.alloc(7_u64), 7, "a small chunk where no large one is to be had");
    assert_eq!(budget.usage().used, arena.used_bytes());
}

#[test]
fn a_format_that_does_not_fit_leaves_nothing_behind() {
    let arena = Arena::options().max_bytes(96).build().unwrap();
    let at = arena.alloc(1_u64).addr();
    let long = "x".repeat(200);
    assert!(arena.try_alloc_fmt(format_args!("{}{long}", "some text, ")).is_err());
    assert_eq!(arena.alloc(1_u64).addr(), at + 8);
}

#[test]
fn a_formatting_trait_that_fails_panics_as_in_format() {
    struct Bad;
    impl fmt::Display for Bad {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    let arena = Arena::new();
    let text = "some text before";
    let format = || arena.alloc_fmt(format_args!("{text}{Bad}")).len();
    assert!(catch_unwind(AssertUnwindSafe(format)).is_err());
    let format = || drop(arena.try_alloc_fmt(format_args!("{text}{Bad}")));
    assert!(catch_unwind(AssertUnwindSafe(format)).is_err());
    assert_eq!(arena.filled_bytes(), 0, "the text before goes back");
    assert_eq!(arena.alloc_fmt(format_args!("{}", 1)), "1");
}

#[test]
fn an_arena_that_is_moved_to_another_thread_takes_its_charge_along() {
    let budget = Budget::root("run").limit(1 << 20).build().unwrap();
    let mut arena = Arena::options().budget(&budget).build().unwrap();
    arena.alloc_str("here").make_ascii_uppercase();
    let budget = thread::spawn(move || {
        arena.reset();
        assert_eq!(arena.alloc_str("there"), "there");
        assert_eq!(budget.usage().used, arena.used_bytes());
        drop(arena);
        budget
    });
    assert_eq!(budget.join().unwrap().usage().used, 0);
}

/// An arena is not `Send` if its base allocator is not.
#[test]
fn an_arena_is_send_as_its_base_is() {
    trait Probe {
        const SEND: bool = false;
    }
    struct IsSend<T>(std::marker::PhantomData<T>);
    impl<T> Probe for IsSend<T> {}
    impl<T: Send> IsSend<T> {
        const SEND: bool = true;
    }
    const { assert!(IsSend::<Arena<SystemAllocator>>::SEND) };
    const { assert!(!IsSend::<Arena<&Awkward>>::SEND) };
}

#[test]
fn a_manager_may_allocate_in_the_arena_being_charged() {
    use nebula_memory::core::{Progress, Reclaimable};
    use std::sync::{Arc, Mutex};

    thread_local! {
        static ARENA: RefCell<Option<Arena>> = const { RefCell::new(None) };
    }
    let budget = Budget::root("run").limit(9000).build().unwrap();
    let held = Arc::new(Mutex::new(Some(budget.try_reserve(6000).unwrap())));
    let holder = Arc::clone(&held);
    let reclaim = move || {
        drop(holder.lock().unwrap().take());
        ARENA.with_borrow(|arena| {
            let arena = arena.as_ref().unwrap();
            let _ = arena.try_alloc_slice_fill_with(40, |_| 9_u8);
            let _ = arena.try_alloc_slice_fill_with(1000, |_| 9_u8);
        });
        Progress::freed(6000)
    };
    let nested = Arc::new(Asked { offer: Reclaimable::new(4096, 0), reclaim });
    budget.register(&nested);
    let arena = Arena::options().budget(&budget).max_bytes(9000).build().unwrap();
    ARENA.set(Some(arena));
    ARENA.with_borrow(|arena| {
        let arena = arena.as_ref().unwrap();
        let mut known = Vec::new();
        while let Ok(bytes) = arena.try_alloc_slice_fill_with(700, |_| 7_u8) {
            known.push(bytes);
        }
        assert!(known.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
        assert!(known.len() > 5 && held.lock().unwrap().is_none(), "{}", known.len());
        assert_eq!(arena.used_bytes(), budget.usage().used);
        assert!(arena.used_bytes() <= 9000);
    });
    ARENA.set(None);
    assert_eq!(budget.usage().used, 0);
}
