//! Copies of a few bytes, without a function call.

use core::mem::MaybeUninit;

/// Copies `len` bytes. Up to 32 bytes take two loads and two stores, which may overlap. That is
/// cheaper than a call of the C library, to which the compiler turns any copy whose length is known
/// only at run time.
///
/// # Safety
///
/// 1. `from` is valid for reads of `len` bytes, and `to` for writes of `len` bytes.
/// 2. They do not overlap.
#[cfg(feature = "alloc")]
#[inline(always)]
pub(crate) unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    if len > SHORT {
        // SAFETY: 1 and 2.
        unsafe { to.copy_from_nonoverlapping(from, len) };
    } else {
        // SAFETY: 1, and just checked.
        unsafe { copy_short(from, to, len) };
    }
}

/// Copies `len` bytes like [`copy_bytes`], even if they overlap.
///
/// # Safety
///
/// `from` is valid for reads of `len` bytes, and `to` for writes of `len` bytes.
#[inline(always)]
pub(crate) unsafe fn move_bytes(from: *const u8, to: *mut u8, len: usize) {
    if len > SHORT {
        // SAFETY: as the caller says.
        unsafe { to.copy_from(from, len) };
    } else {
        // SAFETY: as the caller says, and just checked.
        unsafe { copy_short(from, to, len) };
    }
}

/// The most bytes that are copied by two loads and two stores.
pub(crate) const SHORT: usize = 32;

/// Copies up to [`SHORT`] bytes, which may overlap.
///
/// # Safety
///
/// 1. `from` is valid for reads of `len` bytes, and `to` for writes of `len` bytes.
/// 2. `len <= SHORT`.
#[inline(always)]
unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    if len >= 16 {
        // SAFETY: 1, and 16 ≤ len ≤ 32 (2).
        unsafe { copy_ends::<[u64; 2]>(from, to, len) };
    } else if len >= 8 {
        // SAFETY: 1, and 8 ≤ len ≤ 16.
        unsafe { copy_ends::<u64>(from, to, len) };
    } else if len >= 4 {
        // SAFETY: 1, and 4 ≤ len ≤ 8.
        unsafe { copy_ends::<u32>(from, to, len) };
    } else if len >= 2 {
        // SAFETY: 1, and 2 ≤ len ≤ 4.
        unsafe { copy_ends::<u16>(from, to, len) };
    } else if len == 1 {
        // SAFETY: 1, and one byte.
        unsafe { copy_ends::<u8>(from, to, len) };
    }
}

/// Copies the first and the last `size_of::<T>()` bytes, whatever they are. Both are read before
/// either is written, so `from` and `to` may overlap.
///
/// # Safety
///
/// 1. `from` is valid for reads of `len` bytes, and `to` for writes of `len` bytes.
/// 2. `size_of::<T>() <= len <= 2 * size_of::<T>()`.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(from: *const u8, to: *mut u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: the offset lies within `len` bytes (2).
    let from_last = unsafe { from.add(last) };
    // SAFETY: as above.
    let to_last = unsafe { to.add(last) };
    // SAFETY: valid for a `T` (1, 2), read at any alignment and with any contents.
    let first = unsafe { from.cast::<MaybeUninit<T>>().read_unaligned() };
    // SAFETY: as above, at the offset.
    let rest = unsafe { from_last.cast::<MaybeUninit<T>>().read_unaligned() };
    // SAFETY: valid for a `T` (1, 2).
    unsafe { to.cast::<MaybeUninit<T>>().write_unaligned(first) };
    // SAFETY: as above, at the offset.
    unsafe { to_last.cast::<MaybeUninit<T>>().write_unaligned(rest) };
}

#[cfg(test)]
mod tests {
    use super::{copy_bytes, move_bytes};

    #[test]
    fn every_length_is_copied_whole_and_nothing_beside_it() {
        let source: [u8; 100] = ::core::array::from_fn(|i| u8::try_from(i + 1).unwrap());
        for len in 0..=source.len() {
            let mut target = [0; 102];
            // SAFETY: both are longer than `len`, behind an offset of one.
            unsafe { copy_bytes(source.as_ptr(), target.as_mut_ptr().wrapping_add(1), len) };
            assert_eq!(target[1..=len], source[..len]);
            assert_eq!((target[0], target[len + 1]), (0, 0), "{len}");
        }
    }

    #[test]
    fn bytes_that_overlap_are_moved_whole() {
        let source: [u8; 100] = ::core::array::from_fn(|i| u8::try_from(i + 1).unwrap());
        for len in 0..=60 {
            for (from, to) in [(0, 1), (1, 0), (0, 7), (20, 3), (5, 5)] {
                let mut bytes = source;
                let start = bytes.as_mut_ptr();
                // SAFETY: both ends lie within the array.
                unsafe { move_bytes(start.wrapping_add(from), start.wrapping_add(to), len) };
                assert_eq!(bytes[to..to + len], source[from..from + len], "{len} {from} {to}");
            }
        }
    }
}
