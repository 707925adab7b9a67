//! Allocators over one region: random steps against a model, and misuse.
#![cfg(feature = "std")]

use nebula_memory::{
    allocator::{
        AllocBox, Allocator, BumpAllocator, PageAllocator, StackAllocator, TypedAllocator,
        bump::{Borrowed, Direction, Down, InlineBuffer, Owned, Up},
    },
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    alloc::Layout,
    cell::Cell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        size: usize,
        shift: u32,
        zeroed: bool,
    },
    /// Frees the live block with this index, modulo their number.
    Free(usize),
    Resize {
        which: usize,
        size: usize,
        shift: u32,
        zeroed: bool,
    },
    Frame(Vec<Step>),
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        3 => (0..200_usize, 0..8_u32, any::<bool>())
            .prop_map(|(size, shift, zeroed)| Step::Allocate { size, shift, zeroed }),
        2 => any::<usize>().prop_map(Step::Free),
        2 => (any::<usize>(), 0..200_usize, 0..8_u32, any::<bool>())
            .prop_map(|(which, size, shift, zeroed)| Step::Resize { which, size, shift, zeroed }),
    ];
    leaf.prop_recursive(3, 30, 8, |inner| {
        proptest::collection::vec(inner, 0..8).prop_map(Step::Frame)
    })
}

/// A live block. Each of its bytes is `seed`.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    seed: u8,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is live, and its bytes were written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }

    fn fill(&self) {
        // SAFETY: the block is live.
        unsafe { self.start.write_bytes(self.seed, self.layout.size()) };
    }

    fn check(&self) {
        assert!(self.start.addr().get().is_multiple_of(self.layout.align()));
        assert!(self.bytes().iter().all(|byte| *byte == self.seed), "overwritten");
    }
}

/// Runs a step that opens no frame.
fn run<A: Allocator>(allocator: A, blocks: &mut Vec<Block>, step: &Step, seed: u8) {
    match *step {
        Step::Allocate { size, shift, zeroed } => {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            let block =
                if zeroed { allocator.allocate_zeroed(layout) } else { allocator.allocate(layout) };
            if let Ok(start) = block {
                let block = Block { start: start.cast(), layout, seed };
                if zeroed {
                    assert!(block.bytes().iter().all(|byte| *byte == 0));
                }
                block.fill();
                blocks.push(block);
            }
        }
        Step::Free(which) if !blocks.is_empty() => {
            let which = which % blocks.len();
            let block = blocks.remove(which);
            // SAFETY: live, with this layout.
            unsafe { allocator.deallocate(block.start, block.layout) };
        }
        Step::Resize { which, size, shift, zeroed } if !blocks.is_empty() => {
            let which = which % blocks.len();
            let block = &mut blocks[which];
            let (old, new) = (block.layout, Layout::from_size_align(size, 1 << shift).unwrap());
            let resized = if new.size() < old.size() {
                // SAFETY: live, with this layout, and the new one is smaller.
                unsafe { allocator.shrink(block.start, old, new) }
            } else if zeroed {
                // SAFETY: live, with this layout, and the new one is not smaller.
                unsafe { allocator.grow_zeroed(block.start, old, new) }
            } else {
                // SAFETY: as above.
                unsafe { allocator.grow(block.start, old, new) }
            };
            if let Ok(start) = resized {
                let kept = old.size().min(new.size());
                block.start = start.cast();
                block.layout = Layout::from_size_align(kept, new.align()).unwrap();
                block.check();
                if zeroed && new.size() > kept {
                    // SAFETY: live, and zeroed behind the old size.
                    let bytes = unsafe { start.as_ref() };
                    assert!(bytes[kept..].iter().all(|byte| *byte == 0));
                }
                block.layout = new;
                block.fill();
            }
        }
        _ => {}
    }
    blocks.iter().for_each(Block::check);
    let mut ends: Vec<_> = blocks
        .iter()
        .filter(|block| block.layout.size() > 0)
        .map(|block| (block.start.addr().get(), block.layout.size()))
        .collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "blocks overlap");
}

fn run_bump<D: Direction, const MIN: usize>(steps: &[Step]) {
    let mut buffer = InlineBuffer::<1500>::new();
    let mut bump =
        BumpAllocator::<_, D, MIN>::from_region(Borrowed::from(&mut buffer.as_uninit()[3..]));
    for _ in 0..2 {
        let mut blocks = Vec::new();
        for (step, seed) in steps.iter().zip(1..) {
            run(&bump, &mut blocks, step, seed);
            assert!(bump.used_bytes() <= 1497 && bump.peak_bytes() >= bump.used_bytes());
        }
        bump.reset();
        assert!(bump.used_bytes() < 2 * MIN);
    }
}

/// The size of the stacks that steps run on.
const BYTES: usize = if cfg!(miri) { 1000 } else { 8000 };

/// Runs steps on a stack, frames included. A block of an outer frame may be freed or resized in an inner
/// frame. A block that was resized there ends with the inner frame.
fn run_stack(stack: &mut StackAllocator<InlineBuffer<BYTES>>, steps: &[Step], seed: &Cell<u8>) {
    let mut blocks = Vec::new();
    for step in steps {
        seed.set(seed.get().wrapping_add(1));
        if let Step::Frame(steps) = step {
            let before = stack.used_bytes();
            {
                let mut frame = stack.frame();
                let mut inner = Vec::new();
                for step in steps {
                    seed.set(seed.get().wrapping_add(1));
                    if let Step::Free(which) = step
                        && which % 3 == 0
                        && !blocks.is_empty()
                    {
                        let block: Block = blocks.remove(which % blocks.len());
                        // SAFETY: live, with this layout, and of the same stack.
                        unsafe { (&*frame).deallocate(block.start, block.layout) };
                    } else {
                        run(&*frame, &mut inner, step, seed.get());
                    }
                    blocks.iter().for_each(Block::check);
                }
                let nested = frame.frame();
                AllocBox::leak(nested.alloc_value(0_u8).unwrap());
            }
            assert!(stack.used_bytes() <= before);
        } else {
            run(&*stack, &mut blocks, step, seed.get());
        }
        blocks.iter().for_each(Block::check);
    }
    for block in blocks {
        // SAFETY: live, with this layout.
        unsafe { (&*stack).deallocate(block.start, block.layout) };
    }
    assert_eq!(stack.used_bytes(), 0, "mixed alignments return to zero, in any order");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bump_blocks_stay_apart(
        steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 8 } else { 60 }),
    ) {
        run_bump::<Up, 1>(&steps);
        run_bump::<Up, 8>(&steps);
        run_bump::<Down, 1>(&steps);
        run_bump::<Down, 16>(&steps);
    }

    #[test]
    fn stack_blocks_stay_apart_wherever_the_stack_moves(
        steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 8 } else { 60 }),
    ) {
        let mut stack = StackAllocator::from_region(InlineBuffer::<BYTES>::new());
        let seed = Cell::new(0);
        run_stack(&mut stack, &steps, &seed);
        let mut moved = Box::new(stack);
        run_stack(&mut moved, &steps, &seed);
        assert_eq!(moved.capacity_bytes(), Some(BYTES));
        assert!(moved.peak_bytes() <= BYTES);
    }
}

#[test]
fn a_full_allocator_refuses_and_names_the_size() {
    let bump = BumpAllocator::with_capacity(64).unwrap();
    let all = bump.alloc_value([7_u8; 64]).unwrap();
    let error = bump.alloc_value(1_u8).unwrap_err();
    assert_eq!(error.to_string(), "allocator cannot give 1 B");
    let nothing = bump.alloc_slice_copy::<u64>(&[]).unwrap();
    assert_eq!((nothing.len(), bump.free_bytes(), all[63]), (0, 0, 7));
    assert!(bump.alloc_slice_fill_with(usize::MAX / 4, |i| i).is_err());

    let stack = StackAllocator::with_capacity(64).unwrap();
    assert!(stack.alloc_value([0_u8; 64]).is_err(), "no room for the header");
    assert_eq!(stack.used_bytes(), 0);
    assert!(BumpAllocator::with_capacity(usize::MAX).is_err());
    assert!(StackAllocator::with_capacity(isize::MAX.unsigned_abs()).is_err());
}

#[test]
fn regions_of_no_and_of_odd_bytes() {
    let mut buffer = InlineBuffer::<64>::new();
    for (from, to) in [(0, 0), (1, 1), (1, 7), (1, 9), (15, 17), (3, 40)] {
        let region = Borrowed::from(&mut buffer.as_uninit()[from..to]);
        let bump = BumpAllocator::<_, Down, 16>::from_region(region);
        assert!(bump.free_bytes().is_multiple_of(16) && bump.free_bytes() <= to - from);
        assert_eq!(bump.alloc_value([0_u8; 16]).is_ok(), bump.free_bytes() > 0 || from == 3);
    }
}

#[test]
fn blocks_of_64_and_more_are_aligned() {
    let bump = BumpAllocator::<_, Up, 1>::from_region(Owned::new(1 << 16, PageAllocator).unwrap());
    let stack = StackAllocator::from_region(Owned::new(1 << 16, PageAllocator).unwrap());
    for shift in 0..13 {
        let layout = Layout::from_size_align(1, 1 << shift).unwrap();
        for block in [(&bump).allocate(layout), (&stack).allocate(layout)] {
            assert!(block.unwrap().cast::<u8>().addr().get().is_multiple_of(1 << shift));
        }
    }
}

#[test]
fn a_panic_while_a_value_is_made_gives_its_block_back() {
    struct Dropped<'a>(&'a Cell<usize>);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let drops = Cell::new(0);
    let stack = StackAllocator::with_capacity(1024).unwrap();
    let made = catch_unwind(AssertUnwindSafe(|| {
        stack.alloc_slice_fill_with(5, |i| {
            assert!(i < 3, "planned");
            Dropped(&drops)
        })
    }));
    assert!(made.is_err());
    assert_eq!((drops.get(), stack.used_bytes()), (3, 0));
    assert!(catch_unwind(AssertUnwindSafe(|| stack.alloc_with(|| -> u8 { panic!() }))).is_err());
    assert_eq!(stack.used_bytes(), 0);

    struct Bomb<'a>(#[expect(dead_code, reason = "dropped")] Dropped<'a>);
    impl Drop for Bomb<'_> {
        fn drop(&mut self) {
            panic!("planned");
        }
    }
    let bomb = stack.alloc_value(Bomb(Dropped(&drops))).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(bomb))).is_err());
    assert_eq!(
        (drops.get(), stack.used_bytes()),
        (4, 0),
        "its parts and its block went all the same"
    );
    let inner = AllocBox::into_inner(stack.alloc_value(Dropped(&drops)).unwrap());
    assert_eq!((drops.get(), stack.used_bytes()), (4, 0));
    drop(inner);
}

#[test]
fn an_inline_stack_keeps_its_blocks_when_it_moves() {
    let stack = StackAllocator::from_region(InlineBuffer::<1024>::new());
    assert!(stack.alloc_value([0_u8; 1024]).is_err(), "no room for the header");
    AllocBox::leak(stack.alloc_value([1_u8; 100]).unwrap());
    {
        // This block is freed out of order: its bytes are released together with the block on top of it.
        let below = stack.alloc_value(2_u64).unwrap();
        AllocBox::leak(stack.alloc_value(3_u8).unwrap());
        drop(below);
    }
    let used = stack.used_bytes();
    let mut nested = (1_u8, [None, Some(stack)]);
    let moved = nested.1[1].as_mut().unwrap();
    assert_eq!(moved.used_bytes(), used);
    assert_eq!(*moved.frame().alloc_value([4_u64; 8]).unwrap(), [4; 8]);
    assert_eq!(moved.used_bytes(), used);
    mem::forget(moved.frame());
    let moved = Box::new(nested.1[1].take().unwrap());
    assert_eq!(moved.used_bytes(), used);
    let sent = std::thread::spawn(move || {
        let aligned = moved.alloc_value(Aligned([5; 64])).unwrap();
        assert!(aligned.0.as_ptr().addr().is_multiple_of(64) && aligned.0 == [5; 64]);
        drop(aligned);
        moved
    });
    let mut back = sent.join().unwrap();
    assert_eq!(back.used_bytes(), used);
    back.reset();
    assert_eq!(back.used_bytes(), 0);
}

#[repr(align(64))]
struct Aligned([u8; 64]);

#[test]
fn a_frame_that_is_forgotten_loses_no_more_than_its_bytes() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    {
        let mut outer = stack.frame();
        let inner = outer.frame();
        AllocBox::leak(inner.alloc_value([1_u8; 100]).unwrap());
        mem::forget(inner);
        assert!(outer.used_bytes() >= 100);
        assert_eq!(*outer.alloc_value(7).unwrap(), 7);
    }
    assert_eq!(stack.used_bytes(), 0);
    let value = stack.alloc_value(7).unwrap();
    drop(value);
    assert_eq!(stack.used_bytes(), 0);
}

/// Misuse. Each kind is detected before anything is written.
#[cfg(debug_assertions)]
mod misuse {
    use super::*;

    const WORD: Layout = Layout::new::<u64>();

    fn message(misuse: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(misuse)).unwrap_err().downcast::<String>().unwrap()
    }

    fn take<A: Allocator>(allocator: A) -> NonNull<u8> {
        allocator.allocate(WORD).unwrap().cast()
    }

    /// Returns the panic message of a wrong free of `block`, which is detected.
    fn refused<A: Allocator>(allocator: A, block: NonNull<u8>, layout: Layout) -> String {
        // SAFETY: this is the misuse, which the allocator detects.
        message(|| unsafe { allocator.deallocate(block, layout) })
    }

    fn free<A: Allocator>(allocator: A, block: NonNull<u8>) {
        // SAFETY: callers pass blocks in use.
        unsafe { allocator.deallocate(block, WORD) };
    }

    #[test]
    fn a_double_free_of_a_stacks_block_is_seen() {
        let stack = StackAllocator::with_capacity(1024).unwrap();
        let (below, above) = (take(&stack), take(&stack));
        free(&stack, below);
        let message = refused(&stack, below, WORD);
        assert!(message.ends_with("is freed twice to this stack allocator"), "{message}");
        free(&stack, above);
        let message = refused(&stack, above, WORD);
        assert!(message.contains("is no longer a block of this stack allocator"), "{message}");
    }

    #[test]
    fn a_stacks_block_that_a_frame_or_a_reset_took_is_seen() {
        let mut stack = StackAllocator::with_capacity(1024).unwrap();
        let taken = {
            let frame = stack.frame();
            take(&*frame)
        };
        let message = refused(&stack, taken, WORD);
        assert!(message.contains("is no longer a block"), "{message}");
        let taken = take(&stack);
        stack.reset();
        let message = refused(&stack, taken, WORD);
        assert!(message.contains("is no longer a block"), "{message}");
        let wide = stack.alloc_value([0_u64; 16]).unwrap();
        let message = refused(&stack, taken.map_addr(|at| at.saturating_add(8)), WORD);
        assert!(message.contains("or is one no longer"), "{message}");
        drop(wide);
    }

    #[test]
    fn a_foreign_pointer_and_one_into_a_block_are_seen_by_a_stack() {
        let stack = StackAllocator::with_capacity(1024).unwrap();
        let other = StackAllocator::with_capacity(1024).unwrap();
        let message = refused(&stack, take(&other), WORD);
        assert!(message.ends_with("is not a block of this stack allocator"), "{message}");
        let block = stack.alloc_value([0_u64; 2]).unwrap();
        let inside = NonNull::from(&block[1]).cast();
        let message = refused(&stack, inside, WORD);
        assert!(message.contains("is not a block of this stack allocator"), "{message}");
    }

    #[test]
    fn a_layout_that_does_not_fit_a_stacks_block_is_seen() {
        let stack = StackAllocator::with_capacity(1024).unwrap();
        let (below, above) = (take(&stack), take(&stack));
        for block in [below, above] {
            let message = refused(&stack, block, Layout::new::<[u64; 2]>());
            assert!(message.contains("does not fit the block"), "{message}");
        }
        // SAFETY: this is the misuse, which the allocator detects.
        let grown = || unsafe {
            (&stack).grow(below, Layout::new::<[u64; 2]>(), Layout::new::<[u64; 3]>())
        };
        let message = message(|| assert!(grown().is_err()));
        assert!(message.contains("does not fit the block"), "{message}");
        free(&stack, below);
        free(&stack, above);
        assert_eq!(stack.used_bytes(), 0);
    }

    fn bump_sees<D: Direction>() {
        let mut bump =
            BumpAllocator::<_, D, 8>::from_region(Owned::new(4096, PageAllocator).unwrap());
        let other = BumpAllocator::<_, D, 8>::from_region(Owned::new(4096, PageAllocator).unwrap());
        let message = refused(&bump, take(&other), WORD);
        assert!(message.ends_with("is not a block of this bump allocator"), "{message}");

        let (first, second) = (take(&bump), take(&bump));
        free(&bump, second);
        let message = refused(&bump, second, WORD);
        assert!(message.contains("is no longer a block of this bump allocator"), "{message}");

        let outside = Layout::new::<[u8; 5000]>();
        let message = refused(&bump, first, outside);
        assert!(message.contains("does not fit the block"), "{message}");
        // SAFETY: this is the misuse, which the allocator detects.
        let shrunk = || unsafe { (&bump).shrink(second, WORD, Layout::new::<u8>()) };
        let message = super::misuse::message(|| assert!(shrunk().is_err()));
        assert!(message.contains("is no longer a block"), "{message}");

        bump.reset();
        let message = refused(&bump, first, WORD);
        assert!(message.contains("is no longer a block of this bump allocator"), "{message}");
    }

    #[test]
    fn misuse_of_a_bump_allocator_is_seen_as_far_as_its_position_tells() {
        bump_sees::<Up>();
        bump_sees::<Down>();
    }
}
