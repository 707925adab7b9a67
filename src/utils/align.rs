//! Alignment and power-of-two arithmetic on plain integers.
#![forbid(unsafe_code)]

/// Rounds `value` up to a multiple of `align`; `None` where that does not fit.
///
/// `align` must be a power of two.
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

#[cfg(test)]
mod tests {
    use super::{align_down, checked_align_up};

    #[test]
    fn rounding_near_the_end_of_the_address_space_is_refused() {
        assert_eq!(checked_align_up(usize::MAX - 7, 8), Some(usize::MAX - 7));
        assert_eq!(checked_align_up(usize::MAX - 6, 8), None);
        assert_eq!(checked_align_up(0, 4096), Some(0));
        assert_eq!(align_down(usize::MAX, 8), usize::MAX - 7);
    }
}
