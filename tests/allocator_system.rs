//! The process's allocator around the size from which blocks are pages, and the memory that pages use.
#![cfg(all(feature = "std", not(miri)))]

use nebula_memory::allocator::{Allocator, PageAllocator, SystemAllocator};
use proptest::prelude::*;
use std::{alloc::Layout, ptr::NonNull};

/// Returns sizes around the threshold, on both sides.
fn about_the_threshold() -> impl Strategy<Value = usize> {
    let threshold = SystemAllocator::PAGED_FROM;
    prop_oneof![
        0..100_usize,
        threshold - 2..threshold + 2,
        threshold - 5000..threshold + 5000,
        threshold..2 * threshold,
    ]
}

/// Returns offsets at both ends of a block and around the threshold between heap and pages. These suffice to
/// notice a block that was moved wrongly.
fn marks(size: usize) -> impl Iterator<Item = usize> {
    let all = [0, 1, 99, 4095, 4096, SystemAllocator::PAGED_FROM - 3, SystemAllocator::PAGED_FROM];
    all.into_iter().chain(size.checked_sub(1)).filter(move |at| *at < size)
}

fn write(block: NonNull<u8>, size: usize, seed: u8) {
    for at in marks(size) {
        // SAFETY: the marks lie within the block.
        let place = unsafe { block.add(at) };
        // SAFETY: nothing else uses the block.
        unsafe { place.write(seed) };
    }
}

fn has(block: NonNull<u8>, written: usize, kept: usize, seed: u8) -> bool {
    marks(written).filter(|at| *at < kept).all(|at| {
        // SAFETY: the offset lies within the bytes that were kept, so within the block.
        let place = unsafe { block.add(at) };
        // SAFETY: it was written.
        unsafe { place.read() == seed }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_block_that_crosses_the_threshold_keeps_its_bytes(
        first in about_the_threshold(),
        steps in proptest::collection::vec(
            (about_the_threshold(), prop_oneof![Just(3_u32), 0..14_u32, Just(21)], any::<bool>()),
            0..12,
        ),
    ) {
        let mut layout = Layout::from_size_align(first, 8).unwrap();
        let mut block = SystemAllocator.allocate(layout).unwrap().cast::<u8>();
        for (seed, (size, shift, zeroed)) in (1..).zip(steps) {
            write(block, layout.size(), seed);
            let new = Layout::from_size_align(size, 1 << shift).unwrap();
            let kept = layout.size().min(size);
            let moved = if size < layout.size() {
                // SAFETY: in use with this layout, and the new one is smaller.
                unsafe { SystemAllocator.shrink(block, layout, new) }
            } else if zeroed {
                // SAFETY: in use with this layout, and the new one is not smaller.
                unsafe { SystemAllocator.grow_zeroed(block, layout, new) }
            } else {
                // SAFETY: as above.
                unsafe { SystemAllocator.grow(block, layout, new) }
            }
            .unwrap();
            block = moved.cast();
            prop_assert!(block.addr().get().is_multiple_of(1 << shift) && moved.len() >= size);
            prop_assert!(has(block, layout.size(), kept, seed));
            if zeroed && size >= layout.size() {
                // SAFETY: every byte behind the old size is zero, so initialised, to the end.
                let bytes = unsafe { moved.as_ref() };
                prop_assert!(bytes[kept..].iter().all(|byte| *byte == 0));
            }
            layout = new;
        }
        // SAFETY: in use with this layout, and not used again.
        unsafe { SystemAllocator.deallocate(block, layout) };
    }
}

#[test]
fn a_block_goes_back_by_any_layout_that_fits_it() {
    for size in [SystemAllocator::PAGED_FROM - 1, SystemAllocator::PAGED_FROM] {
        let layout = Layout::from_size_align(size, 16).unwrap();
        let block = SystemAllocator.allocate(layout).unwrap();
        let whole = Layout::from_size_align(block.len(), 16).unwrap();
        // SAFETY: the block is in use; the layout is as long as the returned block.
        unsafe { SystemAllocator.deallocate(block.cast(), whole) };
    }
}

#[test]
fn bytes_cut_off_by_a_shrink_are_zero_after_grow_zeroed() {
    let layout = |size| Layout::from_size_align(size, 1).unwrap();
    let block = PageAllocator.allocate(layout(10_000)).unwrap();
    // SAFETY: the block has `block.len()` bytes.
    unsafe { block.cast::<u8>().write_bytes(9, block.len()) };
    // SAFETY: in use with this layout, and the new one is smaller.
    let block = unsafe { PageAllocator.shrink(block.cast(), layout(10_000), layout(5)) }.unwrap();
    // SAFETY: in use with this layout, and the new one is larger.
    let block = unsafe { PageAllocator.grow_zeroed(block.cast(), layout(5), layout(100_000)) };
    let block = block.unwrap();
    // SAFETY: the first bytes were written, the others are zero.
    let bytes = unsafe { block.as_ref() };
    assert!(bytes[..5].iter().all(|byte| *byte == 9) && bytes[5..].iter().all(|byte| *byte == 0));
    // SAFETY: in use with this layout, and not used again.
    unsafe { PageAllocator.deallocate(block.cast(), layout(100_000)) };
}

#[test]
fn pages_are_not_aligned_to_more_than_one() {
    let page = nebula_memory::syscalls::info::page_size();
    let layout = |align| Layout::from_size_align(100, align).unwrap();
    assert!(PageAllocator.allocate(layout(2 * page)).is_err());
    let block = PageAllocator.allocate(layout(page)).unwrap().cast::<u8>();
    // SAFETY: in use with this layout, and the new one is as large.
    let moved = unsafe { PageAllocator.grow(block, layout(page), layout(2 * page)) };
    assert!(moved.is_err(), "and the block is as it was");
    // SAFETY: in use with this layout, and not used again.
    unsafe { PageAllocator.deallocate(block, layout(page)) };
}

/// The differences are far larger than the memory that other tests use at the same time.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_resident_before_it_is_written_nor_after_it_is_given_back() {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    const BYTES: usize = 512 << 20;
    const LITTLE: usize = 128 << 20;
    let layout = |size| Layout::from_size_align(size, 16).unwrap();
    let resident = || {
        let memory = nebula_memory::syscalls::info::process_memory().unwrap();
        usize::try_from(memory.resident).unwrap()
    };
    // The kernel may count pages that are gone for a moment longer.
    let falls_below = |most: usize, what: &str| {
        let begun = Instant::now();
        while resident() >= most {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {} of {most}", resident());
            thread::yield_now();
        }
    };
    let before = resident();
    let block = SystemAllocator.allocate_zeroed(layout(BYTES)).unwrap();
    assert!(resident() < before + LITTLE, "zeroed pages are not written to");
    // SAFETY: in use with this layout, and the new one is larger.
    let block = unsafe { SystemAllocator.grow(block.cast(), layout(BYTES), layout(2 * BYTES)) };
    assert!(resident() < before + LITTLE, "what grows is not copied");
    let block = block.unwrap().cast();
    // SAFETY: in use with this layout, and the new one is larger.
    let block =
        unsafe { SystemAllocator.grow_zeroed(block, layout(2 * BYTES), layout(2 * BYTES + 1)) };
    assert!(resident() < before + LITTLE, "what grows zeroed is not written to");
    let block = block.unwrap().cast::<u8>();
    // SAFETY: the block is longer than `BYTES`.
    unsafe { block.write_bytes(1, BYTES) };
    assert!(resident() > before + BYTES - LITTLE);
    // SAFETY: in use with this layout, and the new one is smaller.
    let block =
        unsafe { SystemAllocator.shrink(block, layout(2 * BYTES + 1), layout(BYTES / 2)) }.unwrap();
    falls_below(before + BYTES / 2 + LITTLE, "what is cut off is given back");
    // SAFETY: in use with this layout, and not used again.
    unsafe { SystemAllocator.deallocate(block.cast(), layout(BYTES / 2)) };
    falls_below(before + LITTLE, "what is freed is given back");
}
