//! The bump pointer: one algorithm for the fixed allocator and for the growing arena.

#[cfg(feature = "alloc")]
use crate::utils::align::NEAR;
use crate::utils::{
    align::{self, align_down, bump_down, bump_up, is_aligned, round_up},
    copy::move_bytes,
    poison::{poison, reveal, unpoison},
};
#[cfg(feature = "alloc")]
use core::sync::atomic::{Ordering, compiler_fence};
use core::{alloc::Layout, cell::Cell, marker::PhantomData, num::NonZero, ptr::NonNull};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Up {}
    impl Sealed for super::Down {}
}

/// The end of the free bytes that blocks are cut from: [`Up`] or [`Down`].
pub trait Direction: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Whether blocks are cut from the lower end.
    const UP: bool;
}

/// Cuts blocks from the lower end. The newest block grows and shrinks in place.
#[derive(Clone, Copy, Debug)]
pub struct Up;

/// Cuts blocks from the upper end. The newest block is copied when it grows. A block whose size is
/// known only at run time costs one instruction less, or five if its alignment is too.
#[derive(Clone, Copy, Debug)]
pub struct Down;

impl Direction for Up {
    const UP: bool = true;
}

impl Direction for Down {
    const UP: bool = false;
}

/// The largest `MIN_ALIGN` that is allowed.
const MIN_ALIGN_MAX: usize = 16;

/// The bump pointer that has no free bytes.
const NOWHERE: NonNull<u8> = NonNull::without_provenance(NonZero::new(align::NOWHERE).unwrap());

/// A pointer that moves through free bytes.
///
/// # Invariants
///
/// The free bytes are those between `pos` and `bound`. `bound` is above `pos` if `D` is [`Up`], and
/// below if `D` is [`Down`]. No block in use overlaps the free bytes. `pos` is valid for reads and
/// writes of all free bytes, and of every block that borders on `pos`. `pos` is a multiple of
/// `MIN_ALIGN`.
///
/// In an arena, the free bytes [are usable](align::is_usable): with addresses of 64 bits, `pos` is
/// then at least two [`NEAR`](align::NEAR), and at most the highest address less one `NEAR`.
/// `Chunk::new` and `begin_in_buffer` ensure it. Only the methods for arenas rely on it.
pub(crate) struct RawBump<D: Direction, const MIN_ALIGN: usize> {
    pos: Cell<NonNull<u8>>,
    bound: Cell<usize>,
    direction: PhantomData<D>,
}

impl<D: Direction, const MIN_ALIGN: usize> RawBump<D, MIN_ALIGN> {
    const MIN_ALIGN_IS_VALID: () = assert!(
        MIN_ALIGN.is_power_of_two() && MIN_ALIGN <= MIN_ALIGN_MAX,
        "a minimum alignment is a power of two of at most 16"
    );

    /// Creates a bump pointer without free bytes.
    pub(crate) const fn nowhere() -> Self {
        let () = Self::MIN_ALIGN_IS_VALID;
        Self { pos: Cell::new(NOWHERE), bound: Cell::new(align::NOWHERE), direction: PhantomData }
    }

    /// Makes the `len` bytes at `start` the free bytes. An end that is not a multiple of
    /// `MIN_ALIGN` is cut off.
    ///
    /// # Safety
    ///
    /// 1. The bytes are valid for reads and writes through `start` as long as blocks are taken.
    /// 2. Nothing else uses the bytes, except as blocks taken from here.
    pub(crate) unsafe fn enter(&self, start: NonNull<u8>, len: usize) {
        let gap = (start.addr().get().wrapping_neg() & (MIN_ALIGN - 1)).min(len);
        let len = align_down(len - gap, MIN_ALIGN);
        if len == 0 {
            // Too few bytes for any block. They may even lie between two multiples.
            self.leave();
            return;
        }
        // SAFETY: the offset lies within the bytes.
        let start = unsafe { start.add(gap) };
        // SAFETY: 1. The caller's 1 and 2, for fewer bytes. 2. Both ends are multiples of
        // `MIN_ALIGN`.
        unsafe { self.enter_aligned(start, len) };
    }

    /// Like [`enter`](Self::enter), for bytes whose ends are multiples of `MIN_ALIGN`.
    ///
    /// # Safety
    ///
    /// 1. As for [`enter`](Self::enter).
    /// 2. `start` and `len` are multiples of `MIN_ALIGN`.
    #[inline]
    pub(crate) unsafe fn enter_aligned(&self, start: NonNull<u8>, len: usize) {
        debug_assert!(
            start.addr().get().is_multiple_of(MIN_ALIGN) && len.is_multiple_of(MIN_ALIGN)
        );
        // SAFETY: the offset leads to the end of the bytes.
        let end = unsafe { start.add(len) };
        let (pos, bound) = if D::UP { (start, end) } else { (end, start) };
        self.pos.set(pos);
        self.bound.set(bound.addr().get());
        poison(start, len);
    }

    /// Forgets the free bytes.
    pub(crate) fn leave(&self) {
        self.pos.set(NOWHERE);
        self.bound.set(align::NOWHERE);
    }

    /// Cuts a block of `layout`, if it fits. A block of no bytes may lie anywhere, even if there
    /// are no free bytes, or may be refused.
    #[inline(always)]
    pub(crate) fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        let pos = self.pos.get();
        let at = pos.addr().get();
        if D::UP {
            let (start, next) = bump_up::<MIN_ALIGN>(at, self.bound.get(), layout)?;
            // SAFETY: both addresses lie within the free bytes, which `pos` is valid for, or at
            // their end. If there are no free bytes, the offset is zero.
            self.pos.set(unsafe { pos.add(next - at) });
            // SAFETY: as above.
            let block = unsafe { pos.add(start - at) };
            unpoison(block, layout.size());
            Some(block)
        } else {
            let new = bump_down::<MIN_ALIGN>(self.bound.get(), at, layout)?;
            // SAFETY: `new` lies within the free bytes, which `pos` is valid for. If there are no
            // free bytes, the offset is zero.
            let block = unsafe { pos.sub(at - new) };
            self.pos.set(block);
            unpoison(block, layout.size());
            Some(block)
        }
    }

    /// Returns whether a block of `size` bytes is the newest block, which borders on the free
    /// bytes. `size` is not zero.
    ///
    /// With debug assertions it panics for a block that lies within the free bytes. Such a block
    /// was freed, or is from before the bump pointer went back.
    #[inline]
    pub(crate) fn is_newest(&self, block: NonNull<u8>, size: usize) -> bool {
        let pos = self.pos.get().addr().get();
        let block = block.addr().get();
        debug_assert!(
            !(pos.min(self.bound.get())..pos.max(self.bound.get())).contains(&block)
                || (!D::UP && pos == block),
            "a block is used that was freed, or that the allocator has gone back behind"
        );
        if D::UP {
            pos.checked_sub(round_up::<MIN_ALIGN>(size)) == Some(block)
        } else {
            pos == block
        }
    }

    /// Resizes the newest block. The new block begins with the bytes that both sizes have. If there
    /// is no room, returns `None` and changes nothing.
    ///
    /// # Safety
    ///
    /// 1. `block` is in use, of at least `old.size()` bytes, and [is the
    ///    newest](Self::is_newest) of that size.
    /// 2. Neither size is zero.
    /// 3. The old pointer is not used again.
    #[inline]
    pub(crate) unsafe fn resize_newest(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        debug_assert!(self.is_newest(block, old.size()) && old.size() > 0 && new.size() > 0);
        let pos = self.pos.get();
        let at = block.addr().get();
        let behind = at + round_up::<MIN_ALIGN>(old.size());
        if D::UP {
            if !is_aligned(at, new) {
                return None;
            }
            let (_, end) = bump_up::<MIN_ALIGN>(at, self.bound.get(), new)?;
            let end = end - at;
            // SAFETY: `pos` is valid for the block that borders on it (the invariants), and the
            // offset is the length of that block (1).
            let block = unsafe { pos.sub(behind - at) };
            // SAFETY: the offset lies within the old block and the free bytes behind it.
            let next = unsafe { block.add(end) };
            self.pos.set(next);
            if new.size() > old.size() {
                // SAFETY: the offset lies within the new block.
                unpoison(unsafe { block.add(old.size()) }, new.size() - old.size());
            } else {
                poison(next, behind.saturating_sub(next.addr().get()));
            }
            Some(block)
        } else {
            let start = bump_down::<MIN_ALIGN>(self.bound.get(), behind, new)?;
            // SAFETY: `start` lies within the free bytes or the old block, whose end is `behind`.
            // `pos` has the address of the old block, and is valid for all these bytes.
            let target = unsafe { pos.offset(start.wrapping_sub(at).cast_signed()) };
            let len = old.size().min(new.size());
            reveal(target, new.size());
            // SAFETY: both blocks are valid for `len` bytes, and may overlap. By 3 nothing reads
            // the old block.
            unsafe { move_bytes(pos.as_ptr(), target.as_ptr(), len) };
            self.pos.set(target);
            poison(pos, start.saturating_sub(at));
            Some(target)
        }
    }

    /// Frees the newest block.
    ///
    /// # Safety
    ///
    /// 1. `block` is in use, of `size` bytes, which are not zero, and [is the
    ///    newest](Self::is_newest).
    /// 2. The block is not used again.
    #[inline]
    pub(crate) unsafe fn free_newest(&self, block: NonNull<u8>, size: usize) {
        debug_assert!(self.is_newest(block, size));
        let len = round_up::<MIN_ALIGN>(size);
        let pos = self.pos.get();
        let back = if D::UP { len.wrapping_neg() } else { len };
        // SAFETY: `pos` borders on the block and is valid for it (the invariants). With the bytes
        // that rounding adds, the block is `len` bytes long.
        self.pos.set(unsafe { pos.offset(back.cast_signed()) });
        poison(block, size);
    }

    /// Returns the number of free bytes.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        let pos = self.pos.get().addr().get();
        if D::UP { self.bound.get() - pos } else { pos - self.bound.get() }
    }
}

/// The methods that only arenas need.
#[cfg(feature = "alloc")]
impl<D: Direction, const MIN_ALIGN: usize> RawBump<D, MIN_ALIGN> {
    /// Cuts a block for a `T`, if it fits. It takes an instruction or two less than
    /// [`alloc`](Self::alloc).
    ///
    /// With addresses of 64 bits, an arena's bump pointer is not within [`NEAR`] of either end of
    /// the address space (the invariants). So if a value and its alignment together have at most
    /// that many bytes, the sum or difference does not wrap around, and a plain comparison suffices.
    #[inline(always)]
    pub(crate) fn alloc_sized<T>(&self) -> Option<NonNull<T>> {
        let layout = Layout::new::<T>();
        if !Self::is_near(layout) {
            return self.alloc(layout).map(NonNull::cast);
        }
        let pos = self.pos.get();
        let at = pos.addr().get();
        let bound = self.bound.get();
        let size = round_up::<MIN_ALIGN>(layout.size());
        if D::UP {
            let gap = if layout.align() <= MIN_ALIGN {
                0
            } else {
                at.wrapping_neg() & (layout.align() - 1)
            };
            if at + gap + size > bound {
                return None;
            }
            // SAFETY: the offset lies within the free bytes, or is zero.
            self.pos.set(unsafe { pos.add(gap + size) });
            // SAFETY: as above.
            let block = unsafe { pos.add(gap) };
            unpoison(block, layout.size());
            Some(block.cast())
        } else {
            let new = if layout.align() <= MIN_ALIGN {
                at - size
            } else {
                align_down(at - layout.size(), layout.align())
            };
            if new < bound {
                return None;
            }
            // SAFETY: `new` lies within the free bytes, which `pos` is valid for, or is `at`.
            let block = unsafe { pos.sub(at - new) };
            self.pos.set(block);
            unpoison(block, layout.size());
            Some(block.cast())
        }
    }

    /// Like [`alloc_sized`](Self::alloc_sized), for free bytes in registers. If the block does not
    /// fit, `pos` may have moved too far, by the returned number of bytes, until
    /// [`pay_back`](Self::pay_back) undoes that.
    ///
    /// The old `pos` is not kept, which saves the instruction that would copy it.
    #[inline(always)]
    pub(crate) fn overdraw<T>(&self) -> Result<NonNull<T>, Overdrawn> {
        let layout = Layout::new::<T>();
        if layout.align() > MIN_ALIGN || !Self::is_near(layout) {
            return self.alloc_sized().ok_or(Overdrawn::NONE);
        }
        let size = round_up::<MIN_ALIGN>(layout.size());
        let pos = self.pos.get().as_ptr();
        let next = if D::UP { pos.wrapping_add(size) } else { pos.wrapping_sub(size) };
        // SAFETY: `pos` is at least two `NEAR`, and at most the highest address less one `NEAR` (the
        // invariants). The size is at most one `NEAR`, so the sum or difference is not zero.
        let next = unsafe { NonNull::new_unchecked(next) };
        self.pos.set(next);
        let (at, bound) = (next.addr().get(), self.bound.get());
        if if D::UP { at > bound } else { at < bound } {
            return Err(Overdrawn(size));
        }
        let block = if D::UP {
            // SAFETY: `next` is at most `bound`, so the old `pos`, to which the offset leads, and
            // `next` lie within the free bytes or at their end.
            unsafe { next.sub(size) }
        } else {
            next
        };
        unpoison(block, layout.size());
        Ok(block.cast())
    }

    /// Undoes an [`overdraw`](Self::overdraw) that failed. It is called once, before anything else
    /// uses the free bytes.
    #[inline]
    pub(crate) fn pay_back(&self, Overdrawn(size): Overdrawn) {
        let pos = self.pos.get().as_ptr();
        let pos = if D::UP { pos.wrapping_sub(size) } else { pos.wrapping_add(size) };
        // SAFETY: this is where `pos` was before the caller overdrew it by this number of bytes.
        self.pos.set(unsafe { NonNull::new_unchecked(pos) });
    }

    /// Returns whether a block of `layout` is so small that no sum with an address wraps around.
    const fn is_near(layout: Layout) -> bool {
        layout.size() + layout.align() <= NEAR && usize::BITS >= 64
    }

    /// Returns the free bytes as they are now. [`restore`](Self::restore) goes back to them.
    #[inline]
    pub(crate) fn copy(&self) -> Self {
        Self { pos: self.pos.clone(), bound: self.bound.clone(), direction: PhantomData }
    }

    /// Takes the free bytes out, and leaves none here.
    #[inline]
    pub(crate) fn take(&self) -> Self {
        let taken = self.copy();
        self.leave();
        taken
    }

    /// Gives up the free bytes. Returns a pointer to the lowest byte, valid for all bytes, and
    /// their number.
    #[cfg(feature = "std")]
    pub(crate) fn take_range(&self) -> (NonNull<u8>, usize) {
        let (start, len) = self.range();
        self.leave();
        unpoison(start, len);
        (start, len)
    }

    /// Returns a pointer to the lowest free byte, valid for all of them, and their number.
    #[inline]
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        let len = self.free();
        let back = if D::UP { 0 } else { len };
        // SAFETY: the offset leads to the lower end of the free bytes, for which `pos` is valid.
        (unsafe { self.pos.get().sub(back) }, len)
    }

    /// Replaces the free bytes by those of `other`.
    ///
    /// # Safety
    ///
    /// 1. `other` was [taken](Self::take) or [copied](Self::copy), or fulfils the invariants
    ///    otherwise.
    /// 2. No block in use was cut from these free bytes since, and nothing else cuts blocks from
    ///    them.
    #[inline]
    pub(crate) unsafe fn restore(&self, other: &Self) {
        self.pos.set(other.pos.get());
        self.bound.set(other.bound.get());
        self.poison_all();
    }

    /// Like [`restore`](Self::restore), but moves each word by a load and a store of its own.
    ///
    /// The compiler merges two words that are adjacent in memory into one move of 16 bytes. The
    /// next allocation loads each word alone, and a load waits longer for a larger store that was
    /// just made.
    ///
    /// # Safety
    ///
    /// The same as for [`restore`](Self::restore).
    #[inline]
    pub(crate) unsafe fn restore_by_words(&self, other: &Self) {
        self.pos.set(other.pos.get());
        // No instruction. It keeps the two stores apart.
        compiler_fence(Ordering::Release);
        self.bound.set(other.bound.get());
        self.poison_all();
    }

    /// Forbids every access to the free bytes, for the tools that watch accesses.
    #[inline]
    fn poison_all(&self) {
        if !self.is_nowhere() {
            let (start, len) = self.range();
            poison(start, len);
        }
    }

    /// Returns whether there is no region at all, in contrast to a full region.
    #[inline]
    pub(crate) fn is_nowhere(&self) -> bool {
        self.bound.get() == align::NOWHERE
    }
}

/// The number of bytes by which a bump pointer has moved too far.
#[cfg(feature = "alloc")]
#[must_use = "it is to be paid back"]
pub(crate) struct Overdrawn(usize);

#[cfg(feature = "alloc")]
impl Overdrawn {
    /// Nothing to pay back.
    pub(crate) const NONE: Self = Self(0);
}

/// Returns a block of no bytes: aligned, never read, never freed.
pub(crate) fn empty(layout: Layout) -> NonNull<u8> {
    NonNull::without_provenance(NonZero::new(layout.align()).unwrap_or(NonZero::<usize>::MIN))
}
