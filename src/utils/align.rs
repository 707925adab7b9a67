//! Addresses, sizes and powers of two, as plain integers.
#![forbid(unsafe_code)]

use core::alloc::Layout;

/// Rounds `value` up to a multiple of `align`, a power of two; `None` where that does not fit.
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

/// Where a block of `layout` begins that is cut from the upper end of the free bytes
/// `start..pos`; `None` where they are too few.
///
/// One signed comparison decides. The block would begin `layout.size()` below `pos` and up to
/// `align - 1` further down, and a [`Layout`] keeps the sum of the two within `isize::MAX`. `pos` is
/// not below `start`, so the wrapped difference from `start` is negative exactly when the block
/// does not fit.
#[inline]
pub(crate) const fn bump_down(start: usize, pos: usize, layout: Layout) -> Option<usize> {
    debug_assert!(start <= pos && pos - start <= isize::MAX.unsigned_abs());
    let new = align_down(pos.wrapping_sub(layout.size()), layout.align());
    if new.wrapping_sub(start).cast_signed() < 0 { None } else { Some(new) }
}

#[cfg(test)]
mod tests {
    use super::{align_down, bump_down, checked_align_up};
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

    #[test]
    fn a_block_that_would_begin_below_address_zero_is_refused() {
        let huge = Layout::from_size_align(isize::MAX.unsigned_abs(), 1).unwrap();
        assert_eq!(bump_down(16, 32, huge), None);
        let wide = Layout::from_size_align(1, 1 << 40).unwrap();
        assert_eq!(bump_down(16, 32, wide), None, "aligned down to zero, below the start");
        assert_eq!(bump_down(TOP - 15, TOP, Layout::new::<[u8; 15]>()), Some(TOP - 15));
        assert_eq!(bump_down(TOP - 15, TOP, Layout::new::<[u8; 16]>()), None);
    }

    proptest! {
        #[test]
        fn a_block_lies_within_the_free_bytes_and_is_refused_only_where_none_would(
            start in prop_oneof![0..1_usize << 20, TOP - (1 << 20)..TOP - (1 << 19)],
            free in 0..1_usize << 12,
            size in prop_oneof![0..1_usize << 12, 0..isize::MAX.unsigned_abs() / 2],
            shift in 0..16_u32,
        ) {
            let (pos, align) = (start + free, 1_usize << shift);
            let layout = Layout::from_size_align(size, align).unwrap();
            // The plain way, in integers that cannot overflow.
            let exact = i128::try_from(pos).unwrap() - i128::try_from(size).unwrap();
            let aligned = exact.div_euclid(align as i128) * align as i128;
            let expected = usize::try_from(aligned).ok().filter(|new| *new >= start);
            prop_assert_eq!(bump_down(start, pos, layout), expected);
        }
    }
}
