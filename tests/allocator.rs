//! Tests the `Allocator` contract with the process's allocator and with an allocator that implements only the
//! required methods. The second one tests the trait's default methods.
#![cfg(feature = "std")]

mod common;

use common::Awkward;
use nebula_memory::allocator::{AllocError, Allocator, PageAllocator, SystemAllocator};
use proptest::prelude::*;
use std::{alloc::Layout, hint::black_box, ptr::NonNull};

/// A block and its expected contents. Frees the block when it is dropped.
struct Block<'a, A: Allocator> {
    allocator: &'a A,
    start: NonNull<u8>,
    layout: Layout,
    expected: Vec<u8>,
}

/// The contents that a request asks for: any bytes, or zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fresh {
    Anything,
    Zero,
}

impl<'a, A: Allocator> Block<'a, A> {
    fn new(allocator: &'a A, layout: Layout, fresh: Fresh) -> Result<Self, AllocError> {
        let block = match fresh {
            Fresh::Anything => allocator.allocate(layout)?,
            Fresh::Zero => allocator.allocate_zeroed(layout)?,
        };
        let mut this = Self { allocator, start: block.cast(), layout, expected: Vec::new() };
        this.adopt(block, layout, 0, fresh);
        Ok(this)
    }

    /// Takes over the block that a call returned. The first `kept` bytes must be unchanged.
    fn adopt(&mut self, block: NonNull<[u8]>, layout: Layout, kept: usize, fresh: Fresh) {
        assert!(block.len() >= layout.size());
        self.start = block.cast();
        self.layout = layout;
        assert_eq!(self.start.addr().get() % layout.align(), 0, "{layout:?}");
        self.expected.truncate(kept);
        self.check();
        if fresh == Fresh::Zero {
            // SAFETY: the contract makes every byte behind the first `kept` bytes zero, so initialised, to
            // the end of the block.
            let tail = unsafe { block.cast::<u8>().add(kept) };
            // SAFETY: as above; nothing else refers to the block.
            let tail = unsafe { std::slice::from_raw_parts(tail.as_ptr(), block.len() - kept) };
            assert!(tail.iter().all(|byte| *byte == 0), "not zero");
        }
    }

    /// Writes a pattern over the whole block.
    fn fill(&mut self, seed: u8) {
        let pattern = (0..=u8::MAX).cycle().skip(seed.into());
        self.expected = pattern.take(self.layout.size()).collect();
        let source = self.expected.as_ptr();
        // SAFETY: the block is valid for writes of its size, which is the pattern's length.
        unsafe { self.start.as_ptr().copy_from_nonoverlapping(source, self.expected.len()) };
    }

    /// Compares the block's contents with the expected ones.
    fn check(&self) {
        // SAFETY: the block is at least as long as `expected`, and as many bytes were written to it.
        let found = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.expected.len()) };
        assert_eq!(found, self.expected);
    }

    fn grow(&mut self, new: Layout, fresh: Fresh) -> Result<(), AllocError> {
        let (old, kept) = (self.layout, self.expected.len());
        assert_eq!(kept, old.size(), "filled before it grows");
        let block = match fresh {
            // SAFETY: the block is allocated with this layout, and callers pass no smaller size.
            Fresh::Anything => unsafe { self.allocator.grow(self.start, old, new) }?,
            // SAFETY: as above.
            Fresh::Zero => unsafe { self.allocator.grow_zeroed(self.start, old, new) }?,
        };
        self.adopt(block, new, kept, fresh);
        Ok(())
    }

    fn shrink(&mut self, new: Layout) -> Result<(), AllocError> {
        // SAFETY: the block is allocated with this layout, and callers pass no larger size.
        let block = unsafe { self.allocator.shrink(self.start, self.layout, new) }?;
        self.adopt(block, new, new.size(), Fresh::Anything);
        Ok(())
    }
}

impl<A: Allocator> Drop for Block<'_, A> {
    fn drop(&mut self) {
        // SAFETY: the block is allocated with this layout and is not used again.
        unsafe { self.allocator.deallocate(self.start, self.layout) };
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// The length of a long block: a few thousand bytes. It is shorter under Miri, which is a thousand times
/// slower.
const LONG: usize = if cfg!(miri) { 150 } else { 6000 };

const FRESH: [Fresh; 2] = [Fresh::Anything, Fresh::Zero];

/// Runs every test below with each of these allocators.
macro_rules! for_every_allocator {
    ($($test:ident)+) => {
        mod system { $(#[test] fn $test() { super::$test(&super::SystemAllocator); })+ }
        mod by_reference { $(#[test] fn $test() { super::$test(&&super::SystemAllocator); })+ }
        #[cfg(not(miri))] // There pages are the process's heap, as above, and every block is thousands of bytes.
        mod pages { $(#[test] fn $test() { super::$test(&super::PageAllocator); })+ }
        mod defaults {
            $(#[test] fn $test() {
                for slack in [0, 7] {
                    let allocator = super::Awkward::new(slack);
                    super::$test(&allocator);
                    assert_eq!(allocator.live().len(), 0, "a block was not given back");
                }
            })+
        }
    };
}

for_every_allocator! {
    every_alignment_is_honoured
    nothing_is_a_size_like_any_other
    a_block_that_changes_size_and_alignment_keeps_its_bytes
    a_block_grown_zeroed_is_zero_beyond_its_old_size
}

fn every_alignment_is_honoured<A: Allocator>(allocator: &A) {
    for shift in (0..=12).step_by(if cfg!(miri) { 6 } else { 1 }) {
        for size in [1, 3, 64, LONG] {
            for fresh in FRESH {
                let mut first = Block::new(allocator, layout(size, 1 << shift), fresh).unwrap();
                let mut second = Block::new(allocator, layout(size, 1 << shift), fresh).unwrap();
                first.fill(1);
                second.fill(2);
                first.check();
            }
        }
    }
}

fn nothing_is_a_size_like_any_other<A: Allocator>(allocator: &A) {
    for align in [1, 8, 4096] {
        for fresh in FRESH {
            let mut block = Block::new(allocator, layout(0, align), fresh).unwrap();
            let _other = Block::new(allocator, layout(0, align), fresh).unwrap();
            block.grow(layout(0, align), fresh).unwrap();
            block.grow(layout(9, align), fresh).unwrap();
            block.fill(3);
            block.shrink(layout(0, align)).unwrap();
            block.shrink(layout(0, 1)).unwrap();
            block.grow(layout(5, 64), fresh).unwrap();
        }
    }
}

fn a_block_that_changes_size_and_alignment_keeps_its_bytes<A: Allocator>(allocator: &A) {
    for from in [1, 16, 4096] {
        for to in [1, 16, 4096] {
            let mut block = Block::new(allocator, layout(100, from), Fresh::Anything).unwrap();
            block.fill(4);
            block.grow(layout(100, to), Fresh::Anything).unwrap();
            block.grow(layout(LONG, from), Fresh::Anything).unwrap();
            block.fill(5);
            block.shrink(layout(LONG, to)).unwrap();
            block.shrink(layout(33, from)).unwrap();
        }
    }
}

fn a_block_grown_zeroed_is_zero_beyond_its_old_size<A: Allocator>(allocator: &A) {
    for to in [1, 16, 4096] {
        // The allocator is likely to allocate these freed blocks again below.
        let mut dirty = Block::new(allocator, layout(LONG, 16), Fresh::Anything).unwrap();
        dirty.fill(0xFF);
        drop(dirty);
        let mut block = Block::new(allocator, layout(10, 16), Fresh::Anything).unwrap();
        block.fill(0xEE);
        block.shrink(layout(3, 16)).unwrap();
        block.grow(layout(LONG, to), Fresh::Zero).unwrap();
    }
}

fn refuse_a_size_that_cannot_be<A: Allocator>(allocator: &A) {
    let mut block = Block::new(allocator, layout(40, 8), Fresh::Anything).unwrap();
    block.fill(6);
    for align in [8, 64] {
        let huge = black_box(layout(isize::MAX as usize - 4095, align));
        for fresh in FRESH {
            assert!(Block::new(allocator, huge, fresh).is_err());
            assert_eq!(block.grow(huge, fresh), Err(AllocError));
            block.check();
        }
    }
}

/// Miri ends the program where the process's allocator would return null.
#[cfg(not(miri))]
#[test]
fn a_size_that_the_process_cannot_have_is_refused_and_changes_nothing() {
    refuse_a_size_that_cannot_be(&SystemAllocator);
    refuse_a_size_that_cannot_be(&&SystemAllocator);
    refuse_a_size_that_cannot_be(&PageAllocator);
}

#[test]
fn a_size_that_is_refused_changes_nothing_by_default() {
    let allocator = Awkward::new(0);
    refuse_a_size_that_cannot_be(&allocator);
    assert_eq!(allocator.live().len(), 0);
}

#[test]
fn a_shrink_that_is_refused_leaves_the_block_as_it_was() {
    let allocator = Awkward::new(0);
    let mut block = Block::new(&allocator, layout(100, 8), Fresh::Anything).unwrap();
    block.fill(7);
    allocator.most.set(0);
    assert_eq!(block.shrink(layout(10, 8)), Err(AllocError));
    block.check();
    drop(block);
    assert_eq!(allocator.live().len(), 0);
}

#[test]
fn the_trait_is_object_safe_and_by_ref_is_the_same_allocator() {
    let allocator = Awkward::new(3);
    let object: &dyn Allocator = allocator.by_ref();
    let block = object.allocate_zeroed(layout(8, 8)).unwrap();
    assert_eq!((allocator.live().len(), block.len()), (1, 11));
    // A block may be freed with the size that was returned as well as with the requested size. SAFETY: the
    // block is allocated there with this alignment and at least this size.
    unsafe { allocator.deallocate(block.cast(), layout(11, 8)) };
    assert_eq!(allocator.live().len(), 0);
}

#[test]
fn the_error_takes_no_space() {
    assert_eq!(AllocError.to_string(), "the allocator has no memory for this layout");
    assert_eq!(size_of::<Result<NonNull<[u8]>, AllocError>>(), size_of::<NonNull<[u8]>>());
}

/// One step. An index is taken modulo the number of live blocks.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { size: usize, shift: u32, fresh: Fresh },
    Free { at: usize },
    Grow { at: usize, by: usize, shift: u32, fresh: Fresh },
    Shrink { at: usize, to: usize, shift: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let fresh = || prop_oneof![Just(Fresh::Anything), Just(Fresh::Zero)];
    let size = || prop_oneof![0..16usize, 0..2000usize];
    let shift = || prop_oneof![Just(3u32), 0..=12u32];
    prop_oneof![
        3 => (size(), shift(), fresh())
            .prop_map(|(size, shift, fresh)| Step::Allocate { size, shift, fresh }),
        1 => any::<usize>().prop_map(|at| Step::Free { at }),
        2 => (any::<usize>(), size(), shift(), fresh())
            .prop_map(|(at, by, shift, fresh)| Step::Grow { at, by, shift, fresh }),
        2 => (any::<usize>(), any::<usize>(), shift())
            .prop_map(|(at, to, shift)| Step::Shrink { at, to, shift }),
    ]
}

/// Runs the steps. After each step it checks the contents of every block.
fn run<A: Allocator>(allocator: &A, steps: &[Step]) {
    let mut blocks = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let count = blocks.len().max(1);
        match *step {
            Step::Allocate { size, shift, fresh } => {
                blocks.push(Block::new(allocator, layout(size, 1 << shift), fresh).unwrap());
            }
            _ if blocks.is_empty() => {}
            Step::Free { at } => drop(blocks.swap_remove(at % count)),
            Step::Grow { at, by, shift, fresh } => {
                let block = &mut blocks[at % count];
                block.grow(layout(block.layout.size() + by, 1 << shift), fresh).unwrap();
            }
            Step::Shrink { at, to, shift } => {
                let block = &mut blocks[at % count];
                block.shrink(layout(to % (block.layout.size() + 1), 1 << shift)).unwrap();
            }
        }
        for (seed, block) in (0..=u8::MAX).cycle().skip(number).zip(&mut blocks) {
            block.check();
            block.fill(seed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_stay_apart_and_keep_their_bytes(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 40 }),
        slack in 0..9usize,
    ) {
        run(&SystemAllocator, &steps);
        if !cfg!(miri) {
            run(&PageAllocator, &steps);
        }
        let allocator = Awkward::new(slack);
        run(&allocator, &steps);
        prop_assert_eq!(allocator.live().len(), 0);
    }
}
