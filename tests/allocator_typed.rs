//! Values in allocators: each value that a box owns is dropped exactly once, whatever fails in between.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::{
    allocator::{
        AllocBox, Allocator, BlockPool, BumpAllocator, StackAllocator, SystemAllocator,
        TypedAllocator,
    },
    arena::Arena,
    core::AllocationError,
};
use std::{
    alloc::Layout,
    cell::Cell,
    fmt::Debug,
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

/// Counts the values that were made and dropped.
#[derive(Default)]
struct Count {
    made: Cell<usize>,
    gone: Cell<usize>,
}

impl Count {
    fn value(&self) -> Counted<'_> {
        self.made.set(self.made.get() + 1);
        Counted(self)
    }

    fn live(&self) -> usize {
        self.made.get().checked_sub(self.gone.get()).expect("a value was dropped twice")
    }
}

/// A counted value. Cloning panics when the clone would be the seventh value.
struct Counted<'c>(&'c Count);

impl Clone for Counted<'_> {
    fn clone(&self) -> Self {
        assert!(self.0.made.get() < 6, "one clone too many");
        self.0.value()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.gone.set(self.0.gone.get() + 1);
    }
}

/// An iterator whose reported length differs from its number of items.
struct Liar<I> {
    says: usize,
    has: I,
}

impl<I: Iterator> Iterator for Liar<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.has.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.says, Some(self.says))
    }
}

impl<I: Iterator> ExactSizeIterator for Liar<I> {}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[repr(align(4096))]
struct Page(u8);

#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[repr(align(64))]
struct Empty;

fn panics<R>(work: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

fn is_exhausted<T: ?Sized, A: Allocator>(outcome: Result<AllocBox<T, A>, AllocationError>) -> bool {
    outcome.is_err_and(|error| matches!(error, AllocationError::Exhausted { .. }))
}

/// Makes boxes in every way, of values that can be compared.
fn every_way<T: Copy + Default + Debug + PartialEq>(allocator: impl TypedAllocator, value: T) {
    let three = [value, T::default(), value];
    let aligned = |boxed: *const T| assert!(boxed.is_aligned());
    aligned(&raw const *allocator.alloc_value(value).unwrap());
    assert_eq!(*allocator.alloc_with(|| value).unwrap(), value);
    assert_eq!(*AllocBox::write(allocator.alloc_uninit().unwrap(), value), value);
    assert_eq!(AllocBox::into_inner(allocator.alloc_value(value).unwrap()), value);
    for values in [&three[..], &[]] {
        let len = values.len();
        let copied = allocator.alloc_slice_copy(values).unwrap();
        aligned(copied.as_ptr());
        assert_eq!(&copied[..], values);
        assert_eq!(&allocator.alloc_slice_clone(values).unwrap()[..], values);
        assert_eq!(&allocator.alloc_slice_fill_with(len, |at| values[at]).unwrap()[..], values);
        let walked = allocator.alloc_slice_fill_iter(values.iter().copied()).unwrap();
        assert_eq!(&walked[..], values);
        let filled = allocator.alloc_slice_fill(len, value).unwrap();
        assert_eq!((filled.len(), filled.iter().all(|it| *it == value)), (len, true));
        let defaults = allocator.alloc_slice_fill_default::<T>(len).unwrap();
        assert_eq!((defaults.len(), defaults.iter().all(|it| *it == T::default())), (len, true));
        let mut room = allocator.alloc_uninit_slice::<T>(len).unwrap();
        for (place, value) in room.iter_mut().zip(values) {
            place.write(*value);
        }
        // SAFETY: each was just written.
        assert_eq!(unsafe { room.assume_init() }[..], *values);
        for (says, kept) in [(len + 2, len), (len.saturating_sub(1), len.saturating_sub(1))] {
            let liar = Liar { says, has: values.iter().copied() };
            assert_eq!(&allocator.alloc_slice_fill_iter(liar).unwrap()[..], &values[..kept]);
        }
    }
}

/// Runs [`every_way`] with values of all sizes and alignments.
fn every_value(allocator: impl TypedAllocator) {
    every_way(allocator, 7_u8);
    every_way(allocator, (7_u64, 1_u8));
    every_way(allocator, Page(7));
    every_way(allocator, ());
    every_way(allocator, Empty);
    for text in ["", "x", "größer als sechzehn Bytes"] {
        assert_eq!(&*allocator.alloc_str(text).unwrap(), text);
    }
}

#[test]
fn every_box_frees_its_block_with_its_layout() {
    for slack in [0, 1, 100] {
        let base = Awkward::new(slack);
        every_value(&base);
        assert_eq!(base.live(), []);
    }
}

#[test]
fn every_allocator_takes_every_value() {
    every_value(SystemAllocator);
    let bump = BumpAllocator::with_capacity(1 << 18).unwrap();
    every_value(&bump);
    let stack = StackAllocator::with_capacity(1 << 18).unwrap();
    every_value(&stack);
    let arena: Arena = Arena::new();
    every_value(&arena);
    let pool = BlockPool::options(Layout::new::<[Page; 5]>()).build().unwrap();
    every_value(&pool);
}

#[test]
fn zeroed_room_is_zero_where_the_block_was_not() {
    let base = Awkward::new(7);
    let x = (&base).alloc_zeroed::<[u64; 9]>().unwrap();
    // SAFETY: zero bytes are valid integers.
    assert_eq!(*unsafe { x.assume_init() }, [0; 9]);
    let values = (&base).alloc_zeroed_slice::<u128>(5).unwrap();
    // SAFETY: zero bytes are valid integers.
    assert_eq!(unsafe { values.assume_init() }[..], [0; 5]);
    assert_eq!((&base).alloc_zeroed_slice::<Empty>(3).unwrap().len(), 3);
    assert_eq!(base.live(), []);
}

#[test]
fn room_that_is_dropped_drops_no_value() {
    let (base, count) = (Awkward::new(0), Count::default());
    drop((&base).alloc_uninit::<Counted<'_>>().unwrap());
    drop((&base).alloc_uninit_slice::<Counted<'_>>(3).unwrap());
    let mut room = (&base).alloc_uninit_slice(2).unwrap();
    room[0].write(count.value());
    drop(room);
    assert_eq!((count.live(), base.live()), (1, Vec::new()));
    let value = AllocBox::write((&base).alloc_uninit().unwrap(), count.value());
    assert_eq!((count.live(), base.live().len()), (2, 1));
    drop(value);
    assert_eq!((count.live(), base.live()), (1, Vec::new()));
}

#[test]
fn a_closure_that_panics_leaks_neither_values_nor_the_block() {
    for at in 0..4 {
        let (base, count) = (Awkward::new(0), Count::default());
        let make = |i| {
            assert!(i != at, "at {at}");
            count.value()
        };
        assert!(panics(|| (&base).alloc_slice_fill_with(4, make)));
        assert_eq!((count.made.get(), count.live(), base.live()), (at, 0, Vec::new()));
        assert!(panics(|| (&base).alloc_slice_fill_iter((0..4).map(make))));
        assert_eq!((count.made.get(), count.live(), base.live()), (2 * at, 0, Vec::new()));
    }
    let base = Awkward::new(0);
    assert!(panics(|| (&base).alloc_with(|| -> u64 { panic!("in its place") })));
    assert_eq!(base.live(), []);
}

#[test]
fn a_clone_that_panics_leaks_neither_clones_nor_the_block() {
    let (base, count) = (Awkward::new(0), Count::default());
    let values: Vec<_> = iter::repeat_with(|| count.value()).take(4).collect();
    assert!(panics(|| (&base).alloc_slice_clone(&values)));
    assert_eq!((count.made.get(), count.live(), base.live()), (6, 4, Vec::new()));
    drop(values);

    let count = Count::default();
    let value = count.value();
    assert!(panics(|| (&base).alloc_slice_fill(10, value)));
    assert_eq!((count.made.get(), count.live(), base.live()), (6, 0, Vec::new()));
}

#[test]
fn a_drop_that_panics_frees_the_block_and_the_others() {
    struct Bomb<'c>(Counted<'c>, bool);
    impl Drop for Bomb<'_> {
        fn drop(&mut self) {
            assert!(!self.1, "{} were made", self.0.0.made.get());
        }
    }
    let (base, count) = (Awkward::new(0), Count::default());
    let make = |i| Bomb(count.value(), i == 1);
    let values = (&base).alloc_slice_fill_with(3, make).unwrap();
    assert!(panics(|| drop(values)));
    assert_eq!((count.made.get(), count.live(), base.live()), (3, 0, Vec::new()));
}

#[test]
fn an_iterator_that_is_longer_than_it_says_is_not_asked_for_more() {
    let (base, count) = (Awkward::new(0), Count::default());
    let liar = Liar { says: 3, has: iter::repeat_with(|| count.value()) };
    let values = (&base).alloc_slice_fill_iter(liar).unwrap();
    assert_eq!((values.len(), count.made.get()), (3, 3));
    drop(values);
    assert_eq!((count.live(), base.live()), (0, Vec::new()));
}

#[test]
fn a_shorter_iterator_leaves_a_block_of_its_values_alone() {
    for has in 0..3 {
        let (base, count) = (Awkward::new(0), Count::default());
        let liar = Liar { says: 5, has: iter::repeat_with(|| count.value()).take(has) };
        let values = (&base).alloc_slice_fill_iter(liar).unwrap();
        assert_eq!((values.len(), count.live()), (has, has));
        assert_eq!(base.live(), [Layout::array::<Counted<'_>>(has).unwrap()]);
        drop(values);
        assert_eq!((count.live(), base.live()), (0, Vec::new()));
    }
}

#[test]
fn a_block_that_cannot_be_shrunk_is_freed_and_its_values_are_dropped() {
    let (base, count) = (Awkward::new(0), Count::default());
    // The second call fails: `shrink` of this base allocator is another `allocate`.
    base.fails_in.set(2);
    let liar = Liar { says: 5, has: iter::repeat_with(|| count.value()).take(3) };
    assert!(is_exhausted((&base).alloc_slice_fill_iter(liar)));
    assert_eq!((count.made.get(), count.live(), base.live()), (3, 0, Vec::new()));
}

#[test]
fn without_memory_values_are_dropped_and_closures_not_called() {
    let (base, count) = (Awkward::new(0), Count::default());
    base.most.set(0);
    let never = || -> Counted<'_> { unreachable!("there is no place for it") };
    assert!(is_exhausted((&base).alloc_value(count.value())));
    assert!(is_exhausted((&base).alloc_slice_fill(3, count.value())));
    let values = [count.value(), count.value()];
    assert!(is_exhausted((&base).alloc_slice_clone(&values)));
    assert!(is_exhausted((&base).alloc_slice_fill_iter(values)));
    assert_eq!((count.made.get(), count.live()), (4, 0));
    assert!(is_exhausted((&base).alloc_with(never)));
    assert!(is_exhausted((&base).alloc_slice_fill_with(3, |_| never())));
    assert!(is_exhausted((&base).alloc_str("text")));
    assert!(is_exhausted((&base).alloc_slice_copy(&[1, 2])));
    assert!(is_exhausted((&base).alloc_slice_fill_default::<u8>(2)));
    assert!(is_exhausted((&base).alloc_uninit::<u64>()));
    assert!(is_exhausted((&base).alloc_uninit_slice::<u64>(2)));
    assert!(is_exhausted((&base).alloc_zeroed::<u64>()));
    assert!(is_exhausted((&base).alloc_zeroed_slice::<u64>(2)));
}

#[test]
fn more_than_an_address_space_is_an_error() {
    for len in [usize::MAX, usize::MAX / 8, isize::MAX.unsigned_abs() / 8 + 1] {
        let liar = Liar { says: len, has: iter::repeat(1_u64) };
        let outcomes = [
            SystemAllocator.alloc_slice_fill(len, 1_u64).map(drop),
            SystemAllocator.alloc_slice_fill_iter(liar).map(drop),
            SystemAllocator.alloc_uninit_slice::<u64>(len).map(drop),
            SystemAllocator.alloc_zeroed_slice::<u64>(len).map(drop),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(AllocationError::CapacityOverflow { .. })));
        }
    }
    // Any number of values without bytes fits.
    let empty = SystemAllocator.alloc_uninit_slice::<Empty>(usize::MAX).unwrap();
    assert_eq!(empty.len(), usize::MAX);
}

#[test]
fn a_raw_box_is_neither_dropped_nor_freed_until_it_is_back() {
    let (base, count) = (Awkward::new(0), Count::default());
    let (value, allocator) = AllocBox::into_raw((&base).alloc_value(count.value()).unwrap());
    let (values, _) =
        AllocBox::into_raw((&base).alloc_slice_fill_with(3, |_| count.value()).unwrap());
    let (text, _) = AllocBox::into_raw((&base).alloc_str("text").unwrap());
    assert_eq!((count.live(), base.live().len()), (4, 3));
    // SAFETY: the box was just made, comes back once, and was made by `allocator`; so are the other two.
    drop(unsafe { AllocBox::from_raw(value, allocator) });
    // SAFETY: as above.
    drop(unsafe { AllocBox::from_raw(values, allocator) });
    // SAFETY: as above.
    assert_eq!(*unsafe { AllocBox::from_raw(text, allocator) }, *"text");
    assert_eq!((count.live(), base.live()), (0, Vec::new()));
}

#[test]
fn a_box_of_a_trait_object_frees_the_block_of_its_value() {
    trait Any<'a> {}
    impl<'a, T: 'a> Any<'a> for T {}
    let (base, count) = (Awkward::new(0), Count::default());
    let value = (&base).alloc_value((Page(1), count.value())).unwrap();
    let (value, allocator) = AllocBox::into_raw(value);
    let value: NonNull<dyn Any<'_> + '_> = value;
    // SAFETY: the value is unchanged since it left the box, and comes back once.
    drop(unsafe { AllocBox::from_raw(value, allocator) });
    assert_eq!((count.live(), base.live()), (0, Vec::new()));
}

#[test]
fn values_that_use_their_allocator_while_they_are_made() {
    let bump = BumpAllocator::with_capacity(4096).unwrap();
    let nested = (&bump).alloc_slice_fill_with(3, |i| (&bump).alloc_slice_fill(i, i).unwrap());
    let nested = nested.unwrap();
    assert_eq!(nested.iter().map(|inner| inner.len()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn an_arenas_own_methods_are_called_in_the_place_of_the_traits() {
    let arena: Arena = Arena::new();
    let by_value: &mut u64 = arena.alloc_with(|| 7);
    let shared = &arena;
    let by_reference: &mut [u64] = shared.alloc_slice_fill_iter([*by_value; 2]);
    let by_trait = TypedAllocator::alloc_slice_copy(shared, by_reference).unwrap();
    assert_eq!(&by_trait[..], by_reference);
    let text: &mut str = shared.alloc_str("same");
    assert_eq!(*text, *TypedAllocator::alloc_str(shared, "same").unwrap());
}
