//! What debug builds see of misuse, and say before anything is destroyed.
//!
//! | | pools | stack | bump |
//! |---|---|---|---|
//! | a pointer of somebody else's | ✓ | ✓ | ✓ |
//! | a pointer into a block | ✓ | ✓ | – |
//! | freed twice | ✓ | ✓ | where the bytes are free again |
//! | used after a frame, a release or a reset | no such thing | ✓ | ✓ |
//! | a layout that does not fit | ✓ | larger | beyond what is in use |
//! | written to after it was freed | near its start | – | – |
//!
//! Without debug assertions nothing is looked at and nothing kept. What is a dash here is seen by
//! AddressSanitizer and valgrind with the feature `sanitize`, if it is an access.

#[cfg(any(debug_assertions, feature = "alloc"))]
use core::alloc::Layout;
#[cfg(debug_assertions)]
use core::{ops::Range, ptr::NonNull};

/// Panics unless a block of `layout` may lie at `block`, where `used` of the addresses of `region` are
/// those of blocks.
///
/// # Panics
///
/// Says whose allocator, `whose`, was misused and how.
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

/// Panics unless the layout with which a pool's block comes back fits it.
///
/// # Panics
///
/// As said.
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

/// Nothing to keep and nothing to do.
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

    /// What free blocks are filled with: no pointer, no small number, no text.
    const FREE: u8 = 0xDB;

    /// So many bytes of a free block are looked at: enough for the fields that are used most.
    const LOOKED_AT: usize = 64;

    /// Which blocks of a pool are in use: a bit for each, beside the slabs, so that these are as large
    /// as without.
    pub(in crate::allocator) struct Watch {
        whose: &'static str,
        /// Bytes at the start of a free block that are its link.
        link: usize,
        /// # Invariants
        ///
        /// Made by `Box::into_raw`, as are those that each leads to, and freed with this.
        newest: AtomicPtr<Slab>,
    }

    struct Slab {
        first: usize,
        block: Layout,
        /// A set bit is a block in use. They order nothing, so that a data race of the pool's is one
        /// for tools that look for them.
        in_use: Box<[AtomicUsize]>,
        count: usize,
        before: *mut Slab,
    }

    impl Watch {
        pub(in crate::allocator) fn new(whose: &'static str, link: usize) -> Self {
            Self { whose, link, newest: AtomicPtr::new(ptr::null_mut()) }
        }

        /// `count` new blocks from `first` on; only one thread adds at a time.
        pub(in crate::allocator) fn add(&self, first: NonNull<u8>, block: Layout, count: usize) {
            let words = count.div_ceil(usize::BITS as usize);
            let slab = Box::new(Slab {
                first: first.addr().get(),
                block,
                in_use: (0..words).map(|_| AtomicUsize::new(0)).collect(),
                count,
                before: self.newest.load(Relaxed),
            });
            // Pairs with the load in `find`: whoever sees the slab sees what is in it.
            self.newest.store(Box::into_raw(slab), Release);
        }

        /// The slab of `block`, its word, and the bit in that.
        #[track_caller]
        fn find(&self, block: NonNull<u8>) -> (&Slab, &AtomicUsize, usize) {
            // Pairs with the store in `add`.
            let mut next = self.newest.load(Acquire);
            let whose = self.whose;
            loop {
                // SAFETY: null, or a slab that is there as long as `self` (the invariants).
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

        /// The bytes of a free block that are looked at.
        fn looked_at(&self, slab: &Slab, block: NonNull<u8>) -> (NonNull<u8>, usize) {
            let len = (slab.block.size() - self.link).min(LOOKED_AT);
            // SAFETY: a block is at least as long as its link.
            (unsafe { block.add(self.link) }, len)
        }

        /// A new block is put among the free ones.
        pub(in crate::allocator) fn shelved(&self, block: NonNull<u8>) {
            let (start, len) = self.looked_at(self.find(block).0, block);
            // SAFETY: bytes of a block that nobody uses.
            unsafe { start.write_bytes(FREE, len) };
        }

        /// A new block is given out.
        pub(in crate::allocator) fn cut(&self, block: NonNull<u8>) {
            let (_, word, bit) = self.find(block);
            let before = word.fetch_or(bit, Relaxed);
            assert!(before & bit == 0, "{block:p} is given out twice by this {}", self.whose);
        }

        /// A free block is given out again.
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

        /// A block comes back.
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
