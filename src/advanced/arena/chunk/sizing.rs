//! The sizes of chunks. This file has integers only, no pointers.
#![forbid(unsafe_code)]

use super::charge::Effort;
use crate::{
    core::{AllocationError, config::MIN_CHUNK},
    utils::align::{align_down, checked_align_up},
};
use core::alloc::Layout;

/// The name of an arena in errors.
pub(in super::super) const COMPONENT: &str = "arena";

/// The alignment of every chunk. The size of a chunk is a multiple of it.
pub(in super::super) const CHUNK_ALIGN: usize = 16;

/// The size of a chunk's header, in bytes.
pub(in super::super) const HEADER: usize = 4 * size_of::<usize>();

const _: () = assert!(HEADER.is_multiple_of(CHUNK_ALIGN));

/// The bytes of a chunk, including its header.
///
/// # Invariants
///
/// A multiple of [`CHUNK_ALIGN`], larger than [`HEADER`], at most `isize::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct ChunkSize(usize);

// The bound of the configuration leaves no chunk that is too small.
const _: () = assert!(ChunkSize::MIN.0 <= MIN_CHUNK);

impl ChunkSize {
    /// The smallest chunk, with room for [`CHUNK_ALIGN`] bytes.
    pub(in super::super) const MIN: Self = Self(HEADER + CHUNK_ALIGN);

    /// Returns the smallest chunk with room for a block of `layout`, at whatever address the chunk
    /// lies. Returns `None` if the block is too large for an address space.
    ///
    /// Both ends of a chunk are multiples of [`CHUNK_ALIGN`]. A smaller alignment therefore costs
    /// only the rounding of the size, and a larger one at most the difference.
    pub(in super::super) fn needed(layout: Layout) -> Option<Self> {
        let detour = layout.align().max(CHUNK_ALIGN) - CHUNK_ALIGN;
        let bytes = layout.size().max(1).checked_add(detour)?.checked_add(HEADER)?;
        let bytes = checked_align_up(bytes, CHUNK_ALIGN)?;
        (bytes <= isize::MAX.unsigned_abs()).then_some(Self(bytes))
    }

    /// Returns the largest chunk of at most `bytes`, or `None` if `bytes` is too small for any
    /// chunk.
    pub(in super::super) const fn at_most(bytes: usize) -> Option<Self> {
        const MOST: usize = isize::MAX.unsigned_abs();
        let bytes = align_down(if bytes < MOST { bytes } else { MOST }, CHUNK_ALIGN);
        if bytes >= Self::MIN.0 { Some(Self(bytes)) } else { None }
    }

    /// Like [`at_most`](Self::at_most), but returns the smallest chunk if `bytes` is too small for
    /// any chunk.
    const fn about(bytes: usize) -> Self {
        match Self::at_most(bytes) {
            Some(size) => size,
            None => Self::MIN,
        }
    }

    pub(in super::super) const fn get(self) -> usize {
        self.0
    }
}

/// How an arena grows.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Growth {
    /// The size of the first chunk, at most `max_chunk`.
    initial: ChunkSize,
    /// The size up to which chunks double.
    max_chunk: ChunkSize,
    /// The limit on the bytes of all chunks together, or [`usize::MAX`] if there is none.
    max_bytes: usize,
}

impl Growth {
    /// The first chunk has a size that C libraries usually have at hand. Later chunks are large:
    /// the last chunk, half of which is empty on average, is then a small part of a large arena.
    pub(in super::super) const DEFAULT: Self =
        Self::new(Self::DEFAULT_INITIAL, Self::DEFAULT_MAX_CHUNK, None);
    pub(in super::super) const DEFAULT_INITIAL: usize = 1 << 10;
    pub(in super::super) const DEFAULT_MAX_CHUNK: usize = 2 << 20;

    /// Sets the bytes of the first chunk, the bytes up to which chunks double, and the limit on the
    /// bytes of all chunks together.
    ///
    /// Bytes of a chunk are rounded down to a [`ChunkSize`]. If they are too few for any, a chunk
    /// has the size that its first block needs.
    pub(in super::super) const fn new(
        initial: usize,
        max_chunk: usize,
        max_bytes: Option<usize>,
    ) -> Self {
        let first = if initial < max_chunk { initial } else { max_chunk };
        let max_bytes = match max_bytes {
            Some(bytes) => bytes,
            None => usize::MAX,
        };
        Self { initial: ChunkSize::about(first), max_chunk: ChunkSize::about(max_chunk), max_bytes }
    }

    pub(in super::super) const fn initial(&self) -> usize {
        self.initial.0
    }

    pub(in super::super) const fn max_chunk(&self) -> usize {
        self.max_chunk.0
    }

    pub(in super::super) const fn max_bytes(&self) -> Option<usize> {
        if self.max_bytes == usize::MAX { None } else { Some(self.max_bytes) }
    }

    /// Returns the bytes that further chunks may take when the present chunks take `held`.
    pub(in super::super) const fn room(&self, held: usize) -> usize {
        match self.max_bytes() {
            Some(most) => most.saturating_sub(held),
            None => usize::MAX,
        }
    }

    /// Returns the size of the first chunk if the limit permits it and the block is small beside
    /// that size.
    #[inline]
    pub(in super::super) fn first_for(&self, layout: Layout) -> Option<ChunkSize> {
        let first = self.initial;
        let is_small = layout.size() <= first.0 / 4 && layout.align() <= CHUNK_ALIGN;
        (is_small && first.0 <= self.max_bytes).then_some(first)
    }

    /// Calls `make` for a chunk with room for `layout`, when the present chunks take `held` bytes.
    ///
    /// The first attempt is a chunk of about `ample` bytes, without reclaiming memory from others.
    /// The second attempt is a modest size, for which memory may be reclaimed. The last attempt is
    /// the size that the block needs. If `ample` equals `held`, the arena doubles.
    pub(in super::super) fn seek<C>(
        &self,
        held: usize,
        ample: usize,
        layout: Layout,
        mut make: impl FnMut(ChunkSize, Effort) -> Result<C, AllocationError>,
    ) -> Result<C, AllocationError> {
        let too_large = AllocationError::capacity_overflow(COMPONENT, 1, layout.size());
        let needed = ChunkSize::needed(layout).ok_or(too_large)?;
        let room = self.room(held);
        let most = ChunkSize::at_most(room)
            .filter(|most| *most >= needed)
            .ok_or_else(|| AllocationError::exhausted(COMPONENT, needed.get(), Some(room)))?;
        let ample = self.ample(ample, needed, most);
        make(ample, Effort::Spare).or_else(|_| {
            let modest = self.modest(needed, most);
            make(modest, Effort::Reclaim).or_else(|error| {
                if modest > needed { make(needed, Effort::Spare) } else { Err(error) }
            })
        })
    }

    /// Returns about `bytes`, within the configured chunk sizes and between `needed` and `most`.
    fn ample(&self, bytes: usize, needed: ChunkSize, most: ChunkSize) -> ChunkSize {
        ChunkSize::about(bytes).max(self.initial).min(self.max_chunk).clamp(needed, most)
    }

    /// Returns the size of the first chunk, for use when memory is tight.
    fn modest(&self, needed: ChunkSize, most: ChunkSize) -> ChunkSize {
        self.initial.clamp(needed, most)
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkSize, Growth, HEADER};
    use crate::utils::align::{bump_down, bump_up};
    use core::alloc::Layout;
    use proptest::prelude::*;

    fn sizes(growth: Growth, held: usize, layout: Layout) -> Option<[usize; 3]> {
        let needed = ChunkSize::needed(layout).unwrap();
        let most = ChunkSize::at_most(growth.room(held)).filter(|most| *most >= needed)?;
        let sizes = [growth.ample(held, needed, most), growth.modest(needed, most), needed];
        Some(sizes.map(ChunkSize::get))
    }

    #[test]
    fn chunks_double_up_to_a_cap_and_a_large_request_gets_its_own() {
        let growth = Growth::DEFAULT;
        let word = Layout::new::<u64>();
        assert_eq!(sizes(growth, 0, word), Some([1024, 1024, 48]));
        assert_eq!(sizes(growth, 12 << 10, word), Some([12 << 10, 1024, 48]));
        assert_eq!(sizes(growth, 9 << 20, word), Some([2 << 20, 1024, 48]));
        let large = Layout::new::<[u8; 3 << 20]>();
        assert_eq!(sizes(growth, 0, large), Some([(3 << 20) + HEADER; 3]));
    }

    #[test]
    fn no_chunk_exceeds_the_rest_of_the_maximum() {
        let growth = Growth::new(Growth::DEFAULT_INITIAL, Growth::DEFAULT_MAX_CHUNK, Some(5000));
        let word = Layout::new::<u64>();
        assert_eq!(sizes(growth, 4096, word), Some([896, 896, 48]));
        assert_eq!(sizes(growth, 4952, word), Some([48, 48, 48]));
        assert_eq!(sizes(growth, 4953, word), None);
        assert_eq!(sizes(growth, 6000, word), None);
    }

    #[test]
    fn a_chunk_size_is_at_most_isize_max() {
        let most = isize::MAX.unsigned_abs();
        assert_eq!(ChunkSize::needed(Layout::from_size_align(most, 1).unwrap()), None);
        assert!(
            ChunkSize::needed(Layout::from_size_align(most - 15 - HEADER, 16).unwrap()).is_some()
        );
        assert_eq!(ChunkSize::at_most(47), None);
        assert!(ChunkSize::at_most(usize::MAX).unwrap().get() <= most);
    }

    proptest! {
        #[test]
        fn a_chunk_of_the_needed_size_fits_its_layout_at_any_address(
            at in 1..1_usize << 20, size in 0..10_000_usize, shift in 0..16_u32,
        ) {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            let bytes = ChunkSize::needed(layout).unwrap().get();
            let start = at * 16;
            let (low, high) = (start + HEADER, start + bytes);
            prop_assert!(bump_down::<1>(low, high, layout).is_some());
            prop_assert!(bump_down::<16>(low, high, layout).is_some());
            prop_assert!(bump_up::<1>(low, high, layout).is_some());
            prop_assert!(bump_up::<16>(low, high, layout).is_some());
        }
    }
}
