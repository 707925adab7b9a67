//! Arithmetic of addresses, sizes and powers of two, as plain integers.
#![forbid(unsafe_code)]

use core::alloc::Layout;

/// Rounds `value` up to a multiple of `align`, a power of two. Returns `None` if the result does
/// not fit.
#[inline]
pub(crate) const fn checked_align_up(value: usize, align: usize) -> Option<usize> {
    debug_assert!(align.is_power_of_two());
    match value.checked_add(align - 1) {
        Some(bumped) => Some(bumped & !(align - 1)),
        None => None,
    }
}

/// Rounds `value` down to a multiple of `align`, a power of two.
#[inline]
pub(crate) const fn align_down(value: usize, align: usize) -> usize {
    debug_assert!(align.is_power_of_two());
    value & !(align - 1)
}

/// Returns whether `address` is a multiple of the alignment of `layout`.
///
/// An alignment is a power of two, which a division would not make use of.
#[inline]
pub(crate) const fn is_aligned(address: usize, layout: Layout) -> bool {
    address & (layout.align() - 1) == 0
}

/// Rounds `size` up to a multiple of `MIN_ALIGN`.
///
/// This does not overflow for the size of a [`Layout`], which is at most `isize::MAX`.
#[inline]
pub(crate) const fn round_up<const MIN_ALIGN: usize>(size: usize) -> usize {
    (size + (MIN_ALIGN - 1)) & !(MIN_ALIGN - 1)
}

/// The number of bytes at either end of an address space of 64 bits that no arena uses. So the sum
/// or difference of an address in an arena and such a number of bytes does not wrap around.
pub(crate) const NEAR: usize = 1024;

/// The address that stands for "no free bytes", aligned for any `MIN_ALIGN`.
pub(crate) const NOWHERE: usize = 2 * NEAR;

/// Returns whether an arena may use the `len` bytes at `start`; `len` is at most `isize::MAX`.
///
/// With addresses of 64 bits, the bytes lie above [`NOWHERE`], and at least [`NEAR`] below the
/// highest address. No operating system maps memory elsewhere, but a program without one may.
///
/// Smaller address spaces have memory there: WebAssembly's static data begins at 1024. Only a range
/// that begins or ends at [`NOWHERE`] is excluded, even if its ends are rounded to 16 bytes.
#[cfg(feature = "alloc")]
#[inline]
pub(crate) const fn is_usable(start: usize, len: usize) -> bool {
    if usize::BITS >= 64 {
        start > NOWHERE && start <= usize::MAX - NEAR - len
    } else {
        let end = start.saturating_add(len);
        start.abs_diff(NOWHERE) >= 16 && end.abs_diff(NOWHERE) >= 16
    }
}

/// Returns the address of a block of `layout` that is cut from the upper end of the free bytes
/// `start..pos`. Returns `None` if there are too few bytes. `pos` is a multiple of `MIN_ALIGN`, and
/// so is the result. So an alignment up to `MIN_ALIGN` costs nothing.
///
/// One signed comparison decides. The block would begin `layout.size()` bytes below `pos`, and up
/// to `layout.align() - 1` bytes further down. Together that is at most `isize::MAX`. `pos` is not
/// below `start`, so the wrapped difference from `start` is negative exactly if the block does not
/// fit. Rounding down to `MIN_ALIGN` then does not leave the free bytes, as `start` is a multiple
/// of `MIN_ALIGN`.
#[inline]
pub(crate) const fn bump_down<const MIN_ALIGN: usize>(
    start: usize,
    pos: usize,
    layout: Layout,
) -> Option<usize> {
    debug_assert!(start <= pos && pos - start <= isize::MAX.unsigned_abs());
    let new = align_down(pos.wrapping_sub(layout.size()), layout.align());
    if new.wrapping_sub(start).cast_signed() < 0 { None } else { Some(align_down(new, MIN_ALIGN)) }
}

/// Returns the address of a block of `layout` that is cut from the lower end of the free bytes
/// `pos..end`, and the address of the next block. Returns `None` if there are too few bytes. `pos`
/// is a multiple of `MIN_ALIGN`, and so is the beginning of the next block.
///
/// One signed comparison decides, as in [`bump_down`]. The gap for the alignment and the rounded
/// size are together at most `isize::MAX + 1`, and `end - pos` is at most `isize::MAX`. So the
/// wrapped difference of `end` and the next block is negative exactly if the block does not fit.
#[inline]
pub(crate) const fn bump_up<const MIN_ALIGN: usize>(
    pos: usize,
    end: usize,
    layout: Layout,
) -> Option<(usize, usize)> {
    debug_assert!(pos <= end && end - pos <= isize::MAX.unsigned_abs());
    let block = if layout.align() <= MIN_ALIGN {
        pos
    } else {
        align_down(pos.wrapping_add(layout.align() - 1), layout.align())
    };
    // The block is aligned to `MIN_ALIGN`, so rounding its end rounds its size.
    let next = align_down(block.wrapping_add(layout.size() + (MIN_ALIGN - 1)), MIN_ALIGN);
    if end.wrapping_sub(next).cast_signed() < 0 { None } else { Some((block, next)) }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "alloc")]
    use super::{NEAR, NOWHERE, is_usable};
    use super::{align_down, bump_down, bump_up, checked_align_up, round_up};
    use core::alloc::Layout;
    use proptest::prelude::*;

    const TOP: usize = usize::MAX;

    #[test]
    fn rounding_near_the_end_of_the_address_space_does_not_wrap() {
        assert_eq!(checked_align_up(TOP - 7, 8), Some(TOP - 7));
        assert_eq!(checked_align_up(TOP - 6, 8), None);
        assert_eq!(checked_align_up(0, 4096), Some(0));
        assert_eq!(align_down(TOP, 8), TOP - 7);
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn no_arena_begins_or_ends_where_there_are_no_free_bytes() {
        for len in [32, 1024] {
            assert!(!is_usable(NOWHERE, len) && !is_usable(NOWHERE - len, len));
            assert!(is_usable(NOWHERE + 16, len));
        }
        assert_eq!(is_usable(NOWHERE - 64, 128), usize::BITS < 64, "also in the middle");
    }

    #[cfg(all(feature = "alloc", target_pointer_width = "64"))]
    #[test]
    fn no_arena_uses_the_ends_of_the_address_space() {
        assert!(is_usable(TOP - NEAR - 4096, 4096));
        assert!(!is_usable(TOP - NEAR - 4095, 4096));
        assert!(!is_usable(TOP - 15, 15));
        assert!(!is_usable(NEAR, 4096) && !is_usable(1, 16));
        assert!(!is_usable(TOP / 2 + 1, TOP / 2), "up to the highest address");
    }

    #[test]
    fn a_block_that_would_begin_below_address_zero_is_refused() {
        let huge = Layout::from_size_align(isize::MAX.unsigned_abs(), 1).unwrap();
        assert_eq!(bump_down::<1>(16, 32, huge), None);
        assert_eq!(bump_down::<16>(16, 32, huge), None);
        assert_eq!(bump_up::<16>(TOP - 31, TOP, huge), None);
        let wide = Layout::from_size_align(1, 1 << 40).unwrap();
        assert_eq!(bump_down::<1>(16, 32, wide), None, "aligned down to zero, below the start");
        assert_eq!(bump_up::<1>(TOP - 15, TOP, wide), None);
        assert_eq!(bump_down::<1>(TOP - 15, TOP, Layout::new::<[u8; 15]>()), Some(TOP - 15));
        assert_eq!(bump_down::<1>(TOP - 15, TOP, Layout::new::<[u8; 16]>()), None);
    }

    /// Computes the same in integers that cannot overflow: the beginning and the end of the block.
    fn expected<const MIN: usize>(
        up: bool,
        (start, end): (usize, usize),
        layout: Layout,
    ) -> Option<(usize, usize)> {
        let [start, end, size, align, min] = [start, end, layout.size(), layout.align(), MIN]
            .map(|figure| i128::try_from(figure).unwrap());
        let round = |value: i128, align: i128| (value + align - 1).div_euclid(align) * align;
        let (first, behind) = if up {
            let first = round(start, align);
            (first, first + round(size, min))
        } else {
            let first = (end - size).div_euclid(align.max(min)) * align.max(min);
            (first, first + size)
        };
        let fits = first >= start && behind <= end;
        fits.then(|| (usize::try_from(first).unwrap(), usize::try_from(behind).unwrap()))
    }

    fn check<const MIN: usize>(start: usize, free: usize, layout: Layout) {
        let start = align_down(start, MIN);
        let end = start + align_down(free, MIN);
        let down = bump_down::<MIN>(start, end, layout);
        assert_eq!(down, expected::<MIN>(false, (start, end), layout).map(|(first, _)| first));
        let up = bump_up::<MIN>(start, end, layout);
        assert_eq!(up, expected::<MIN>(true, (start, end), layout));
        if let (Some(first), Some((_, next))) = (down, up) {
            assert_eq!((first % MIN, next % MIN), (0, 0));
            assert!(round_up::<MIN>(layout.size()) - layout.size() < MIN);
        }
    }

    proptest! {
        #[test]
        fn a_block_lies_within_the_free_bytes_and_is_refused_only_where_none_would(
            start in prop_oneof![16..1_usize << 20, TOP - (1 << 20)..TOP - (1 << 19)],
            free in 0..1_usize << 12,
            size in prop_oneof![0..1_usize << 12, 0..isize::MAX.unsigned_abs() / 2],
            shift in 0..16_u32,
        ) {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            check::<1>(start, free, layout);
            check::<8>(start, free, layout);
            check::<16>(start, free, layout);
        }
    }
}
