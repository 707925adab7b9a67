//! Free bytes that belong to no cursor, in lists by size.
//!
//! ```text
//!  class   0        1         2              bytes
//!        ┌───┐    ┌───┐     ┌───┐
//!        │ ● │    │ ○ │     │ ● │   16·2ⁿ up to twice that
//!        └─┼─┘    └───┘     └─┼─┘
//!          ▼                  ▼
//!   next, len, …        next, len, …         written into the free bytes themselves
//! ```

use crate::{
    advanced::arena::chunk::Chunk,
    utils::{align::checked_align_up, poison::unpoison},
};
use core::{alloc::Layout, ptr::NonNull};

/// The alignment of every span, the same as that of chunks.
const SPAN_ALIGN: usize = 16;

/// The fewest bytes that can be kept: the smallest chunk has as many for values.
const LEAST: usize = 16;

/// The size of a cache line. Cuts are at its multiples, so that the threads on both sides of a cut
/// do not write to the same line. Fewer remaining bytes are not worth keeping.
const LINE: usize = 64;

/// The most spans of one class that are examined to find one of about the wanted size.
const NEAR_MOST: usize = 8;

/// The number of classes: one for each power of two from [`LEAST`] on.
const CLASSES: usize = (usize::BITS - LEAST.ilog2()) as usize;

/// A span of free bytes: a pointer to the first, valid for all of them, and their number.
///
/// # Invariants
///
/// `start` is a multiple of [`SPAN_ALIGN`] and, like chunks, far from either end of the address
/// space. It is valid for reads and writes of `len` bytes, which no other code uses.
#[derive(Debug)]
pub(super) struct Span {
    start: NonNull<u8>,
    len: usize,
}

impl Span {
    /// Returns the bytes, for the caller alone.
    pub(super) fn into_parts(self) -> (NonNull<u8>, usize) {
        (self.start, self.len)
    }
}

/// The bytes that a span must have room for, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    size: usize,
    /// At least [`SPAN_ALIGN`].
    align: usize,
}

impl Need {
    /// Returns the bytes that a block of `layout` takes, if sizes are multiples of `MIN_ALIGN`.
    pub(super) const fn of<const MIN_ALIGN: usize>(layout: Layout) -> Option<Self> {
        let (size, align) = (layout.size(), layout.align());
        let align = if align > SPAN_ALIGN { align } else { SPAN_ALIGN };
        let size = if size < LEAST { LEAST } else { size };
        match checked_align_up(size, MIN_ALIGN) {
            Some(size) if size.checked_add(align).is_some() => Some(Self { size, align }),
            _ => None,
        }
    }

    /// Returns the length from which on each span has room.
    const fn anywhere(self) -> usize {
        self.size + (self.align - SPAN_ALIGN)
    }

    /// Returns whether a span has room.
    fn fits(self, start: usize, len: usize) -> bool {
        len >= self.anywhere() || (len >= self.size && start.is_multiple_of(self.align))
    }
}

/// The header at the start of a span that is kept.
struct Rest {
    next: Option<NonNull<Rest>>,
    /// The bytes of the span, times two; plus one if they are all the bytes that a chunk has for
    /// values.
    word: usize,
}

impl Rest {
    const fn len(&self) -> usize {
        self.word >> 1
    }

    const fn is_whole(&self) -> bool {
        self.word & 1 != 0
    }
}

const _: () = assert!(size_of::<Rest>() <= LEAST && align_of::<Rest>() <= SPAN_ALIGN);

/// The free spans that are kept, in one list for each class of sizes.
///
/// # Invariants
///
/// Each list has spans of its class, and a [`Rest`] is written at the start of each span. A span
/// that is whole is the space of a chunk that was not freed. A bit of `filled` is set if the list
/// of that class is not empty.
pub(super) struct FreeSpans {
    lists: [Option<NonNull<Rest>>; CLASSES],
    filled: u64,
}

/// Returns the class of spans of `len` bytes.
const fn class(len: usize) -> usize {
    let bits = if len < LEAST { 0 } else { len.ilog2() - LEAST.ilog2() };
    bits as usize
}

impl FreeSpans {
    pub(super) const fn new() -> Self {
        Self { lists: [None; CLASSES], filled: 0 }
    }

    /// Keeps the remaining bytes of a cursor or span, unless they are too few.
    ///
    /// # Safety
    ///
    /// The same as for [`keep`](Self::keep).
    pub(super) unsafe fn keep_scrap(&mut self, scrap: (NonNull<u8>, usize)) {
        if scrap.1 >= LINE {
            // SAFETY: as the caller says.
            unsafe { self.keep(scrap) };
        }
    }

    /// Keeps free bytes.
    ///
    /// # Safety
    ///
    /// The bytes are valid for reads and writes through `start` until they are cut or
    /// [forgotten](Self::forget), and no other code uses them.
    pub(super) unsafe fn keep(&mut self, (start, len): (NonNull<u8>, usize)) {
        let gap = start.addr().get().wrapping_neg() % SPAN_ALIGN;
        let Some(len) = len.checked_sub(gap).filter(|len| *len >= LEAST) else { return };
        // SAFETY: the offset lies within the bytes.
        let start = unsafe { start.add(gap) };
        self.push(Span { start, len }, false);
    }

    /// Keeps all bytes that a chunk has for values. When some of them are cut, the chunk is marked
    /// as [entered](Chunk::set_entered).
    ///
    /// # Safety
    ///
    /// The same as for [`keep`](Self::keep). The chunk is not freed before it is
    /// [forgotten](Self::forget).
    pub(super) unsafe fn keep_whole(&mut self, chunk: Chunk) {
        let (start, len) = chunk.space();
        self.push(Span { start, len }, true);
    }

    fn push(&mut self, Span { start, len }: Span, whole: bool) {
        debug_assert!(len >= LEAST);
        let class = class(len);
        let rest = start.cast::<Rest>();
        let word = len << 1 | usize::from(whole);
        unpoison(start, len);
        // SAFETY: a span is valid for at least as many bytes as a [`Rest`] has, and aligned for
        // one.
        unsafe { rest.write(Rest { next: self.lists[class], word }) };
        self.lists[class] = Some(rest);
        self.filled |= 1 << class;
    }

    /// Takes a span with room for `need`. It has about `want` bytes if there is a choice.
    pub(super) fn cut(&mut self, need: Need, want: usize) -> Option<Span> {
        // With a small span the thread would soon need another.
        let least = want / 8;
        // A large block first gets a span of about its size: otherwise the larger spans would all
        // be cut to pieces.
        let near = if need.size < least { None } else { self.find_among(need, NEAR_MOST) };
        let span = near
            .or_else(|| self.pop(need.anywhere().max(least)))
            .or_else(|| self.find_among(need, usize::MAX))
            .or_else(|| self.pop(need.anywhere()))?;
        Some(self.split(span, need.anywhere().saturating_add(want)))
    }

    /// Returns the first bytes of `span`: at least `bytes`, or all of them. Keeps the others.
    fn split(&mut self, mut span: Span, bytes: usize) -> Span {
        let at = span.start.addr().get();
        let front = at.checked_add(bytes).and_then(|end| checked_align_up(end, LINE));
        let front = front.map_or(span.len, |end| end - at);
        if let Some(rest) = span.len.checked_sub(front).filter(|rest| *rest >= LINE) {
            // SAFETY: the offset lies within the span.
            let behind = unsafe { span.start.add(front) };
            self.push(Span { start: behind, len: rest }, false);
            span.len = front;
        }
        span
    }

    /// Like [`cut`](Self::cut), but takes the span from these bytes.
    ///
    /// # Safety
    ///
    /// The same as for [`keep`](Self::keep).
    ///
    /// # Panics
    ///
    /// Panics if the bytes have no room for `need`.
    pub(super) unsafe fn cut_from(
        &mut self,
        (start, len): (NonNull<u8>, usize),
        need: Need,
        want: usize,
    ) -> Span {
        assert!(
            start.addr().get().is_multiple_of(SPAN_ALIGN) && len >= need.anywhere(),
            "a chunk is too small"
        );
        self.split(Span { start, len }, need.anywhere().saturating_add(want))
    }

    /// Takes a span from the smallest class in which every span has at least `bytes`, and which is
    /// not empty: the smallest of the first few, so that larger ones stay whole.
    fn pop(&mut self, bytes: usize) -> Option<Span> {
        let least = class(bytes.checked_next_power_of_two()?);
        let found = self.filled & (u64::MAX << least);
        if found == 0 {
            return None;
        }
        // This cannot truncate: the number is below 64.
        let class = found.trailing_zeros() as usize;
        let (mut smallest, mut place) = (usize::MAX, 0);
        let mut next = self.lists[class];
        for at in 0..NEAR_MOST {
            let Some(rest) = next else { break };
            // SAFETY: as in `find_among`.
            let rest = unsafe { rest.as_ref() };
            if rest.len() < smallest {
                (smallest, place) = (rest.len(), at);
            }
            next = rest.next;
        }
        self.unlink(class, place)
    }

    /// Takes a span with room for `need` from the class of its size, one of the first `most`.
    fn find_among(&mut self, need: Need, most: usize) -> Option<Span> {
        let class = class(need.size);
        let mut next = self.lists[class];
        let mut place = 0;
        while let Some(rest) = next.filter(|_| place < most) {
            let start = rest.addr().get();
            // SAFETY: the header was written when the span was linked (the invariants), and no
            // other code uses it.
            let rest = unsafe { rest.as_ref() };
            if need.fits(start, rest.len()) {
                return self.unlink(class, place);
            }
            next = rest.next;
            place += 1;
        }
        None
    }

    /// Takes the span at position `place` out of its list.
    fn unlink(&mut self, class: usize, place: usize) -> Option<Span> {
        let mut link = &mut self.lists[class];
        for _ in 0..place {
            // SAFETY: as in `find_among`; the list is borrowed uniquely.
            link = unsafe { &mut (*link)?.as_mut().next };
        }
        let start = (*link)?;
        // SAFETY: as in `find_among`.
        let rest = unsafe { start.read() };
        *link = rest.next;
        if self.lists[class].is_none() {
            self.filled &= !(1 << class);
        }
        let (start, len) = (start.cast(), rest.len());
        if rest.is_whole() {
            // SAFETY: `start` is the space of a chunk that was not freed (the invariants).
            unsafe { Chunk::of_space(start) }.set_entered(true);
        }
        Some(Span { start, len })
    }

    /// Forgets all spans.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CLASSES, FreeSpans, LEAST, Need, class};
    use core::{alloc::Layout, ptr::NonNull};
    use proptest::prelude::*;

    #[test]
    fn every_size_has_a_class() {
        assert_eq!([0, 15, 16, 31, 32, 1 << 20].map(class), [0, 0, 0, 0, 1, 16]);
        assert!(class(usize::MAX) < CLASSES);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Cut spans are disjoint, and cut and kept spans together are the original bytes. A
        /// request is refused only if no kept span has room for it.
        #[test]
        fn cuts_are_disjoint_and_long_enough(
            cuts in proptest::collection::vec((1..600_usize, 0..2000_usize, any::<bool>()), 1..40),
        ) {
            let mut memory = vec![0_u128; 1024];
            let bytes = NonNull::from(&mut memory[..]).cast::<u8>();
            let mut free_spans = FreeSpans::new();
            // SAFETY: no other code uses the memory.
            unsafe { free_spans.keep((bytes, 16 << 10)) };
            let mut out = Vec::new();
            for (need, want, give) in cuts {
                if give && !out.is_empty() {
                    let (start, len) = out.swap_remove(need % out.len());
                    // SAFETY: the span was cut from there, and is given up here.
                    unsafe { free_spans.keep((start, len)) };
                    continue;
                }
                let longest = longest(&free_spans);
                let layout = Layout::from_size_align(need, 1).unwrap();
                match free_spans.cut(Need::of::<1>(layout).unwrap(), want) {
                    Some(span) => {
                        let (start, len) = span.into_parts();
                        prop_assert!(len >= need && start.addr().get().is_multiple_of(16));
                        // SAFETY: the span is the caller's.
                        unsafe { start.write_bytes(1, len) };
                        for (other, other_len) in &out {
                            let (a, b) = (start.addr().get(), other.addr().get());
                            prop_assert!(a + len <= b || b + other_len <= a);
                        }
                        out.push((start, len));
                    }
                    None => prop_assert!(longest < need),
                }
            }
        }
    }

    fn longest(free_spans: &FreeSpans) -> usize {
        let mut longest = 0;
        for (class_at, list) in free_spans.lists.iter().enumerate() {
            assert_eq!(list.is_some(), free_spans.filled & (1 << class_at) != 0);
            let mut next = *list;
            while let Some(rest) = next {
                // SAFETY: the header is in the list, so it was written.
                let rest = unsafe { rest.as_ref() };
                assert!(class(rest.len()) == class_at && rest.len() >= LEAST);
                longest = longest.max(rest.len());
                next = rest.next;
            }
        }
        longest
    }
}
