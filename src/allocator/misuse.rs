//! Checks of debug builds: they detect misuse of allocators and panic before data is destroyed.
//!
//! | | pools | stack | bump |
//! |---|---|---|---|
//! | a pointer of another allocator | ✓ | ✓ | ✓ |
//! | a pointer into a block | ✓ | ✓ | – |
//! | freed twice | ✓ | ✓ | if the bytes are free again |
//! | used after a frame, a release or a reset | does not apply | ✓ | ✓ |
//! | a layout that does not fit | ✓ | if it is larger | if it goes beyond the bytes in use |
//! | written to after it was freed | near its start | – | – |
//!
//! Without debug assertions there are no checks, and no data is kept for them. A dash is misuse that
//! the checks do not detect. If it is an access to memory, AddressSanitizer and valgrind detect it
//! with the feature `sanitize`.

#[cfg(any(debug_assertions, feature = "alloc"))]
use core::alloc::Layout;
#[cfg(debug_assertions)]
use core::{ops::Range, ptr::NonNull};

/// Panics unless `block` may be a block of `layout`. `region` has the addresses of the allocator
/// `whose`, and `used` the addresses of its blocks.
///
/// # Panics
///
/// If one of these does not hold. The text names the allocator and the misuse.
#[cfg(debug_assertions)]
#[track_caller]
pub(super) fn check_bounds(
    whose: &str,
    (block, layout): (NonNull<u8>, Layout),
    region: Range<usize>,
    used: Range<usize>,
) {
    let start = block.addr().get();
    let end = start.saturating_add(layout.size());
    assert!(region.contains(&start), "{block:p} is not a block of this {whose}");
    assert!(
        used.contains(&start),
        "{block:p} is no longer a block of this {whose}: it was freed, or a reset took it"
    );
    assert!(
        end <= used.end && start.is_multiple_of(layout.align()),
        "{layout:?} does not fit the block {block:p} of this {whose}"
    );
}

/// Panics unless the layout with which a pool's block is freed or resized fits the block.
///
/// # Panics
///
/// With debug assertions, if the layout does not fit.
#[cfg(feature = "alloc")]
#[inline(always)]
#[track_caller]
pub(super) fn check_layout(whose: &str, layout: Layout, block: Layout) {
    debug_assert!(
        layout.size() <= block.size() && layout.align() <= block.align(),
        "{layout:?} does not fit a block of this {whose}: {block:?}"
    );
}

#[cfg(feature = "alloc")]
pub(super) use self::watch::Watch;

/// Without debug assertions: keeps nothing and does nothing.
#[cfg(all(feature = "alloc", not(debug_assertions)))]
mod watch {
    use core::{alloc::Layout, ptr::NonNull};

    pub(in crate::allocator) struct Watch;

    impl Watch {
        #[inline(always)]
        pub(in crate::allocator) const fn new(_whose: &'static str, _link: usize) -> Self {
            Self
        }

        #[inline(always)]
        pub(in crate::allocator) fn add(&self, _first: NonNull<u8>, _block: Layout, _count: usize) {
        }

        #[cfg(feature = "std")]
        #[inline(always)]
        pub(in crate::allocator) fn shelved(&self, _block: NonNull<u8>) {}

        #[inline(always)]
        pub(in crate::allocator) fn cut(&self, _block: NonNull<u8>) {}

        #[inline(always)]
        pub(in crate::allocator) fn taken(&self, _block: NonNull<u8>) {}

        #[inline(always)]
        pub(in crate::allocator) fn freed(&self, _block: NonNull<u8>) {}
    }
}

#[cfg(all(feature = "alloc", debug_assertions))]
mod watch {
    use crate::utils::sync::{AtomicPtr, AtomicUsize, Ordering::*};
    use alloc::boxed::Box;
    use core::{alloc::Layout, ptr, ptr::NonNull};

    /// The byte that free blocks are filled with. Bytes of this value are no pointer, no small
    /// number and no text.
    const FREE: u8 = 0xDB;

    /// The most bytes of a free block that are checked: enough for the fields that are used most.
    const LOOKED_AT: usize = 64;

    /// Tracks the blocks of a pool that are in use, with one bit for each block. The bits lie
    /// outside of the slabs, so slabs are as large as without them.
    pub(in crate::allocator) struct Watch {
        whose: &'static str,
        /// The bytes of the link at the start of a free block.
        link: usize,
        /// # Invariants
        ///
        /// The newest slab, made by `Box::into_raw`. Its `before` leads to all other slabs, which
        /// are made by it too. All of them are freed with this value.
        newest: AtomicPtr<Slab>,
    }

    struct Slab {
        first: usize,
        block: Layout,
        /// A set bit is a block in use. The accesses order nothing, so tools still find data races
        /// of the pool.
        in_use: Box<[AtomicUsize]>,
        count: usize,
        before: *mut Slab,
    }

    impl Watch {
        pub(in crate::allocator) fn new(whose: &'static str, link: usize) -> Self {
            Self { whose, link, newest: AtomicPtr::new(ptr::null_mut()) }
        }

        /// Adds `count` new blocks, the first of them at `first`. Only one thread adds blocks at a
        /// time.
        pub(in crate::allocator) fn add(&self, first: NonNull<u8>, block: Layout, count: usize) {
            let words = count.div_ceil(usize::BITS as usize);
            let slab = Box::new(Slab {
                first: first.addr().get(),
                block,
                in_use: (0..words).map(|_| AtomicUsize::new(0)).collect(),
                count,
                before: self.newest.load(Relaxed),
            });
            // Pairs with the load in `find`: a thread that sees the slab sees its contents.
            self.newest.store(Box::into_raw(slab), Release);
        }

        /// Returns the slab of `block`, the word that has its bit, and the bit.
        #[track_caller]
        fn find(&self, block: NonNull<u8>) -> (&Slab, &AtomicUsize, usize) {
            // Pairs with the store in `add`.
            let mut next = self.newest.load(Acquire);
            let whose = self.whose;
            loop {
                // SAFETY: null, or a slab that lives as long as `self` (the invariants).
                let Some(slab) = (unsafe { next.as_ref() }) else {
                    panic!("{block:p} is not a block of this {whose}")
                };
                let offset = block.addr().get().wrapping_sub(slab.first);
                let number = offset / slab.block.size();
                if number < slab.count {
                    assert!(
                        offset.is_multiple_of(slab.block.size()),
                        "{block:p} is not a block of this {whose}, but leads into one"
                    );
                    let bits = usize::BITS as usize;
                    return (slab, &slab.in_use[number / bits], 1 << (number % bits));
                }
                next = slab.before;
            }
        }

        /// Returns the bytes of a free block that are checked.
        fn looked_at(&self, slab: &Slab, block: NonNull<u8>) -> (NonNull<u8>, usize) {
            let len = (slab.block.size() - self.link).min(LOOKED_AT);
            // SAFETY: a block is at least as long as its link.
            (unsafe { block.add(self.link) }, len)
        }

        /// Fills a new block that is put among the free blocks.
        pub(in crate::allocator) fn shelved(&self, block: NonNull<u8>) {
            let (start, len) = self.looked_at(self.find(block).0, block);
            // SAFETY: bytes of a block that nothing uses.
            unsafe { start.write_bytes(FREE, len) };
        }

        /// Marks a new block as in use.
        pub(in crate::allocator) fn cut(&self, block: NonNull<u8>) {
            let (_, word, bit) = self.find(block);
            let before = word.fetch_or(bit, Relaxed);
            assert!(before & bit == 0, "{block:p} is given out twice by this {}", self.whose);
        }

        /// Marks a free block as in use, and checks that it was not written to.
        pub(in crate::allocator) fn taken(&self, block: NonNull<u8>) {
            self.cut(block);
            let (start, len) = self.looked_at(self.find(block).0, block);
            // SAFETY: bytes of a block, written when it was freed.
            let bytes = unsafe { NonNull::slice_from_raw_parts(start, len).as_ref() };
            assert!(
                bytes.iter().all(|byte| *byte == FREE),
                "{block:p} was written to after it was freed to this {}",
                self.whose
            );
        }

        /// Marks a block as free, and fills it.
        #[track_caller]
        pub(in crate::allocator) fn freed(&self, block: NonNull<u8>) {
            let (_, word, bit) = self.find(block);
            let before = word.fetch_and(!bit, Relaxed);
            assert!(before & bit != 0, "{block:p} is freed twice to this {}", self.whose);
            self.shelved(block);
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            let mut next = self.newest.load(Relaxed);
            while !next.is_null() {
                // SAFETY: made by `Box::into_raw` (the invariants), and freed once.
                let slab = unsafe { Box::from_raw(next) };
                next = slab.before;
            }
        }
    }
}
