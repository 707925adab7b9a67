//! Copies of a few bytes without a call.

use core::mem::MaybeUninit;

/// Copies `len` bytes; up to 32 by two loads and two stores that may overlap, which is cheaper than
/// the call of the C library that any length known only at run time is else compiled to.
///
/// # Safety
///
/// 1. `from` is valid for reads of `len` bytes and `to` for writes of as many.
/// 2. They do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    if len > 32 {
        // SAFETY: 1 and 2.
        unsafe { to.copy_from_nonoverlapping(from, len) };
    } else if len >= 16 {
        // SAFETY: 1, and 16 ≤ len ≤ 32.
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

/// Copies the first and the last bytes, as many as a `T` has, whatever they are.
///
/// # Safety
///
/// 1. `from` is valid for reads of `len` bytes and `to` for writes of as many, and they do not
///    overlap.
/// 2. `size_of::<T>() <= len`.
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
    use super::copy_bytes;

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
}
