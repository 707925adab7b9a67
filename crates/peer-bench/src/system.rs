//! Large blocks: the heap beside the kernel's pages, at the sizes around which the process's allocator
//! changes from one to the other. Figures are per KiB.

use crate::harness::Bench;
use nebula_memory::allocator::{Allocator, PageAllocator, SystemAllocator};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    ptr::NonNull,
};

/// Takes, grows and frees blocks.
trait Large: 'static {
    const NAME: &'static str;
    fn take(layout: Layout) -> NonNull<u8>;
    fn take_zeroed(layout: Layout) -> NonNull<u8>;
    /// Safety: `block` is in use, with this layout, which is not larger than the new one.
    unsafe fn grow(block: NonNull<u8>, old: Layout, new: Layout) -> NonNull<u8>;
    /// Safety: `block` is in use, with this layout.
    unsafe fn free(block: NonNull<u8>, layout: Layout);
}

macro_rules! ours {
    ($allocator:ident, $name:literal) => {
        impl Large for $allocator {
            const NAME: &'static str = $name;
            fn take(layout: Layout) -> NonNull<u8> {
                $allocator.allocate(layout).expect("memory").cast()
            }
            fn take_zeroed(layout: Layout) -> NonNull<u8> {
                $allocator.allocate_zeroed(layout).expect("memory").cast()
            }
            unsafe fn grow(block: NonNull<u8>, old: Layout, new: Layout) -> NonNull<u8> {
                // SAFETY: as the caller says.
                unsafe { Allocator::grow(&$allocator, block, old, new) }.expect("memory").cast()
            }
            unsafe fn free(block: NonNull<u8>, layout: Layout) {
                // SAFETY: as the caller says.
                unsafe { $allocator.deallocate(block, layout) }
            }
        }
    };
}
ours!(SystemAllocator, "nebula");
ours!(PageAllocator, "nebula, always pages");

struct Heap<A>(A);
macro_rules! heap {
    ($allocator:ty, $value:expr, $name:literal) => {
        impl Large for Heap<$allocator> {
            const NAME: &'static str = $name;
            fn take(layout: Layout) -> NonNull<u8> {
                // SAFETY: the layout's size is not zero.
                NonNull::new(unsafe { $value.alloc(layout) }).expect("memory")
            }
            fn take_zeroed(layout: Layout) -> NonNull<u8> {
                // SAFETY: the layout's size is not zero.
                NonNull::new(unsafe { $value.alloc_zeroed(layout) }).expect("memory")
            }
            unsafe fn grow(block: NonNull<u8>, old: Layout, new: Layout) -> NonNull<u8> {
                // SAFETY: as the caller says, and the size is not zero.
                let grown = unsafe { $value.realloc(block.as_ptr(), old, new.size()) };
                NonNull::new(grown).expect("memory")
            }
            unsafe fn free(block: NonNull<u8>, layout: Layout) {
                // SAFETY: as the caller says.
                unsafe { $value.dealloc(block.as_ptr(), layout) }
            }
        }
    };
}
heap!(System, System, "system");
heap!(mimalloc::MiMalloc, mimalloc::MiMalloc, "mimalloc");
heap!(tikv_jemallocator::Jemalloc, tikv_jemallocator::Jemalloc, "jemalloc");

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The sizes, and the names of their cases: written, zeroed and read here and there, grown.
const SIZES: [(usize, [&str; 3]); 8] = [
    (64 * KIB, ["write-64K", "zeroed-64K", "grow-64K"]),
    (256 * KIB, ["write-256K", "zeroed-256K", "grow-256K"]),
    (MIB, ["write-1M", "zeroed-1M", "grow-1M"]),
    (2 * MIB, ["write-2M", "zeroed-2M", "grow-2M"]),
    (4 * MIB, ["write-4M", "zeroed-4M", "grow-4M"]),
    (8 * MIB, ["write-8M", "zeroed-8M", "grow-8M"]),
    (32 * MIB, ["write-32M", "zeroed-32M", "grow-32M"]),
    (64 * MIB, ["write-64M", "zeroed-64M", "grow-64M"]),
];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

fn cases<L: Large>(bench: &mut Bench) {
    for (size, [write, zeroed, grow]) in SIZES {
        bench.add(
            (write, "a block is taken, written as a whole and freed"),
            size / KIB,
            L::NAME,
            move || {
                move || {
                    let block = L::take(layout(size));
                    // SAFETY: the block is as long.
                    unsafe { block.write_bytes(1, size) };
                    // SAFETY: taken here, and freed once.
                    unsafe { L::free(black_box(block), layout(size)) };
                }
            },
        );
        bench.add(
            (zeroed, "a zeroed block is taken, one byte of 64 KiB is read, and freed"),
            size / KIB,
            L::NAME,
            move || {
                move || {
                    let block = L::take_zeroed(layout(size));
                    for at in (0..size).step_by(64 * KIB) {
                        // SAFETY: the offset lies within the block, which is initialised.
                        black_box(unsafe { block.add(at).read() });
                    }
                    // SAFETY: taken here, and freed once.
                    unsafe { L::free(black_box(block), layout(size)) };
                }
            },
        );
        bench.add(
            (grow, "a block grows from 16 KiB by doubling, and is written"),
            size / KIB,
            L::NAME,
            move || {
                move || {
                    let mut now = 16 * KIB;
                    let mut block = L::take(layout(now));
                    // SAFETY: the block is as long.
                    unsafe { block.write_bytes(1, now) };
                    while now < size {
                        // SAFETY: in use, with this layout.
                        block = unsafe { L::grow(black_box(block), layout(now), layout(2 * now)) };
                        // SAFETY: the block is twice as long.
                        unsafe { block.add(now).write_bytes(1, now) };
                        now *= 2;
                    }
                    // SAFETY: in use, with this layout.
                    unsafe { L::free(black_box(block), layout(now)) };
                }
            },
        );
    }
}

pub fn register(bench: &mut Bench) {
    cases::<SystemAllocator>(bench);
    cases::<PageAllocator>(bench);
    cases::<Heap<System>>(bench);
    cases::<Heap<mimalloc::MiMalloc>>(bench);
    cases::<Heap<tikv_jemallocator::Jemalloc>>(bench);
}
