//! Free bytes that nobody allocates from, by size.
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
use core::ptr::NonNull;

/// Alignment of every span, as of chunks.
const SPAN_ALIGN: usize = 16;

/// The fewest bytes that can be kept: as many as the smallest chunk has for values.
const LEAST: usize = 16;

/// What cuts are multiples of, so that the threads to either side of one do not write to the same
/// line of the cache; what is left of fewer bytes is not worth keeping.
const LINE: usize = 64;

/// One for each power of two from [`LEAST`] on.
const CLASSES: usize = (usize::BITS - LEAST.ilog2()) as usize;

/// Free bytes: the first, valid for all of them, and how many there are.
///
/// # Invariants
///
/// `start` is a multiple of [`SPAN_ALIGN`] and, like chunks, far from either end of the address
/// space; it is valid for reads and writes of `len` bytes, which nobody else uses.
#[derive(Debug)]
pub(super) struct Span {
    start: NonNull<u8>,
    len: usize,
}

impl Span {
    /// The bytes, for the caller alone.
    pub(super) fn into_parts(self) -> (NonNull<u8>, usize) {
        (self.start, self.len)
    }
}

/// What lies at the start of a span that is kept.
struct Rest {
    next: Option<NonNull<Rest>>,
    /// Bytes of the span, times two; plus one where they are all that a chunk has for values.
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

/// # Invariants
///
/// Each list is one of spans of its class, at the start of each of which a [`Rest`] is written; one
/// that is whole is the space of a chunk that was not freed. The bits of `filled` say which lists are
/// not empty.
pub(super) struct Rests {
    lists: [Option<NonNull<Rest>>; CLASSES],
    filled: u64,
}

/// The class of spans of so many bytes.
const fn class(len: usize) -> usize {
    let bits = if len < LEAST { 0 } else { len.ilog2() - LEAST.ilog2() };
    bits as usize
}

impl Rests {
    pub(super) const fn new() -> Self {
        Self { lists: [None; CLASSES], filled: 0 }
    }

    /// Keeps what somebody has left over, unless it is too little.
    ///
    /// # Safety
    ///
    /// As for [`keep`](Self::keep).
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
    /// [forgotten](Self::forget), and nobody else uses them.
    pub(super) unsafe fn keep(&mut self, (start, len): (NonNull<u8>, usize)) {
        let gap = start.addr().get().wrapping_neg() % SPAN_ALIGN;
        let Some(len) = len.checked_sub(gap).filter(|len| *len >= LEAST) else { return };
        // SAFETY: the offset lies within the bytes.
        let start = unsafe { start.add(gap) };
        self.push(Span { start, len }, false);
    }

    /// Keeps all that a chunk has for values. When some of it is cut the chunk is told that it is
    /// [entered](Chunk::set_entered).
    ///
    /// # Safety
    ///
    /// As for [`keep`](Self::keep), and the chunk is not freed before it is
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
        // SAFETY: a span is valid for more bytes than a rest has, and aligned for one.
        unsafe { rest.write(Rest { next: self.lists[class], word }) };
        self.lists[class] = Some(rest);
        self.filled |= 1 << class;
    }

    /// Bytes with room for any block that needs `need`, wherever it lies: about `want` where there is
    /// a choice.
    pub(super) fn cut(&mut self, need: usize, want: usize) -> Option<Span> {
        // Scraps would have the thread back here soon.
        let span = self.pop(need.max(want / 8)).or_else(|| self.find(need))?;
        Some(self.split(span, need.max(want)))
    }

    /// The first bytes of `span`, at least as many as asked for, or all. The others are kept.
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

    /// As [`cut`](Self::cut), from these bytes.
    ///
    /// # Safety
    ///
    /// As for [`keep`](Self::keep).
    ///
    /// # Panics
    ///
    /// Where they are too few.
    pub(super) unsafe fn cut_from(
        &mut self,
        (start, len): (NonNull<u8>, usize),
        need: usize,
        want: usize,
    ) -> Span {
        assert!(
            start.addr().get().is_multiple_of(SPAN_ALIGN) && len >= need,
            "a chunk is too small"
        );
        self.split(Span { start, len }, need.max(want))
    }

    /// A span of the smallest class all of which are of at least `bytes`.
    fn pop(&mut self, bytes: usize) -> Option<Span> {
        let least = class(bytes.checked_next_power_of_two()?);
        let found = self.filled & (u64::MAX << least);
        if found == 0 {
            return None;
        }
        // Cannot truncate: fewer than 64.
        self.unlink(found.trailing_zeros() as usize, 0)
    }

    /// Any span of at least `bytes`.
    fn find(&mut self, bytes: usize) -> Option<Span> {
        let class = class(bytes);
        let mut next = self.lists[class];
        let mut place = 0;
        while let Some(rest) = next {
            // SAFETY: written when it was linked (the invariants), and nobody else's.
            let rest = unsafe { rest.as_ref() };
            if rest.len() >= bytes {
                return self.unlink(class, place);
            }
            next = rest.next;
            place += 1;
        }
        self.pop(bytes)
    }

    /// Takes the span out that is the `place`th of its list.
    fn unlink(&mut self, class: usize, place: usize) -> Option<Span> {
        let mut link = &mut self.lists[class];
        for _ in 0..place {
            // SAFETY: as in `find`; the list is borrowed uniquely.
            link = unsafe { &mut (*link)?.as_mut().next };
        }
        let start = (*link)?;
        // SAFETY: as in `find`.
        let rest = unsafe { start.read() };
        *link = rest.next;
        if self.lists[class].is_none() {
            self.filled &= !(1 << class);
        }
        let (start, len) = (start.cast(), rest.len());
        if rest.is_whole() {
            // SAFETY: the space of a chunk that was not freed (the invariants).
            unsafe { Chunk::of_space(start) }.set_entered(true);
        }
        Some(Span { start, len })
    }

    /// Forgets all.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CLASSES, LEAST, Rests, class};
    use core::ptr::NonNull;
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

        /// Whatever is cut, what is cut and what is kept together are what was there, without an
        /// overlap; and nothing is refused that a kept span has room for.
        #[test]
        fn cuts_are_disjoint_and_long_enough(
            cuts in proptest::collection::vec((1..600_usize, 0..2000_usize, any::<bool>()), 1..40),
        ) {
            let mut memory = vec![0_u128; 1024];
            let bytes = NonNull::from(&mut memory[..]).cast::<u8>();
            let mut rests = Rests::new();
            // SAFETY: the memory is nobody else's.
            unsafe { rests.keep((bytes, 16 << 10)) };
            let mut out = Vec::new();
            for (need, want, give) in cuts {
                if give && !out.is_empty() {
                    let (start, len) = out.swap_remove(need % out.len());
                    // SAFETY: cut from there, and given up here.
                    unsafe { rests.keep((start, len)) };
                    continue;
                }
                let longest = longest(&rests);
                match rests.cut(need, want) {
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

    fn longest(rests: &Rests) -> usize {
        let mut longest = 0;
        for (class_at, list) in rests.lists.iter().enumerate() {
            assert_eq!(list.is_some(), rests.filled & (1 << class_at) != 0);
            let mut next = *list;
            while let Some(rest) = next {
                // SAFETY: in the list, and so written.
                let rest = unsafe { rest.as_ref() };
                assert!(class(rest.len()) == class_at && rest.len() >= LEAST);
                longest = longest.max(rest.len());
                next = rest.next;
            }
        }
        longest
    }
}
