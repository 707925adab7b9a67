//! General allocators: the C library's, mimalloc, jemalloc.

use crate::subjects::Subject;
use allocator_api2::alloc::{AllocError, Allocator};
use mimalloc::MiMalloc;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::NonNull,
};
use tikv_jemallocator::Jemalloc;

pub trait Malloc: GlobalAlloc + Sized + 'static {
    const NAME: &'static str;
    const IT: Self;

    /// Allocates a block of a layout whose size is not zero.
    #[inline(always)]
    fn block(&self, layout: Layout) -> NonNull<u8> {
        // SAFETY: the layout's size is not zero.
        NonNull::new(unsafe { self.alloc(layout) }).expect("there is memory")
    }
}

impl Malloc for System {
    const NAME: &'static str = "system";
    const IT: Self = Self;
}

impl Malloc for MiMalloc {
    const NAME: &'static str = "mimalloc";
    const IT: Self = Self;
}

impl Malloc for Jemalloc {
    const NAME: &'static str = "jemalloc";
    const IT: Self = Self;
}

/// A heap as the allocator of vectors. Growth calls `realloc`.
pub struct Heap<A>(pub A);

// SAFETY: all blocks come from a global allocator, with the layouts passed on unchanged, and zero-sized
// blocks are not used here.
unsafe impl<A: Malloc> Allocator for Heap<A> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Ok(NonNull::slice_from_raw_parts(self.0.block(layout), layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { self.0.dealloc(block.as_ptr(), layout) }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises; a vector does not change its alignment.
        let moved = unsafe { self.0.realloc(block.as_ptr(), old, new.size()) };
        Ok(NonNull::slice_from_raw_parts(NonNull::new(moved).ok_or(AllocError)?, new.size()))
    }
}

type Out = Cell<(NonNull<u8>, Layout)>;

/// A heap used as an arena. Allocated blocks are kept in a list and freed one by one.
pub struct Listed<A: Malloc> {
    heap: A,
    out: Box<[Out]>,
    len: Cell<usize>,
}

impl<A: Malloc> Subject for Listed<A> {
    const NAME: &'static str = A::NAME;
    fn make() -> Self {
        let none = Cell::new((NonNull::dangling(), Layout::new::<()>()));
        Self { heap: A::IT, out: vec![none; 10_240].into(), len: Cell::new(0) }
    }
    #[inline(always)]
    fn clear(&mut self) {
        for out in &self.out[..self.len.replace(0)] {
            let (block, layout) = out.get();
            // SAFETY: the block was taken from this heap with this layout, and is freed once.
            unsafe { self.heap.dealloc(block.as_ptr(), layout) };
        }
    }
    #[inline(always)]
    fn value<T>(&self, value: T) -> &mut T {
        let block = self.raw(Layout::new::<T>()).cast::<T>();
        // SAFETY: the block has the layout of a `T`.
        unsafe { block.write(value) };
        // SAFETY: the value was just written, and is freed only by `clear`.
        unsafe { &mut *block.as_ptr() }
    }
    #[inline(always)]
    fn text<'a>(&'a self, text: &str) -> &'a str {
        let block = self.raw(Layout::for_value(text));
        // SAFETY: the block is new and as long as the text.
        unsafe { block.copy_from_nonoverlapping(NonNull::from(text).cast(), text.len()) };
        let bytes = NonNull::slice_from_raw_parts(block, text.len());
        // SAFETY: the bytes were just written, and are freed only by `clear`.
        let bytes = unsafe { bytes.as_ref() };
        // SAFETY: the bytes are a copy of a text.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
    #[inline(always)]
    fn raw(&self, layout: Layout) -> NonNull<u8> {
        let block = self.heap.block(layout);
        let at = self.len.get();
        self.out[at].set((block, layout));
        self.len.set(at + 1);
        block
    }
    #[inline(always)]
    fn page(&self, seed: u8) -> &mut [u8; 4096] {
        let block = self.raw(Layout::new::<[u8; 4096]>()).cast::<[u8; 4096]>();
        // SAFETY: the block has the layout of a page.
        unsafe { block.write_bytes(seed, 1) };
        // SAFETY: the page was just written, and is freed only by `clear`.
        unsafe { &mut *block.as_ptr() }
    }
}
