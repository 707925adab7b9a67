//! Pages from the process's heap, for platforms without kernel calls and for Miri.
//!
//! # Safety
//!
//! Every `unsafe fn` here has the same requirements. The `len` bytes at `start` must be whole pages of a region that
//! [`map`] returned and that is still mapped. No reference may lead into them.

#![expect(clippy::disallowed_methods, reason = "stands for the kernel where there is none")]

use super::{Advice, Errno, INVALID, Protection, UNSUPPORTED, page_size};
use alloc::alloc::{alloc_zeroed, dealloc};
use core::{alloc::Layout, ptr::NonNull};

/// Out of memory: `ENOMEM` on every Unix.
const NO_MEMORY: Errno = 12;

fn layout(len: usize) -> Result<Layout, Errno> {
    Layout::from_size_align(len, page_size()).map_err(|_| INVALID)
}

/// Returns zeroed memory of `len` bytes. The length must be a multiple of the page size and not zero.
pub(super) fn map(len: usize, _access: Protection) -> Result<NonNull<u8>, Errno> {
    // SAFETY: the length is not zero, as the caller says.
    NonNull::new(unsafe { alloc_zeroed(layout(len)?) }).ok_or(NO_MEMORY)
}

pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: a whole live region, which `map` allocated with this layout.
    unsafe { dealloc(start.as_ptr(), layout(len)?) };
    Ok(())
}

pub(super) unsafe fn protect(
    _start: NonNull<u8>,
    _len: usize,
    protection: Protection,
) -> Result<(), Errno> {
    match protection {
        Protection::ReadWrite => Ok(()),
        Protection::None | Protection::Read => Err(UNSUPPORTED),
    }
}

pub(super) unsafe fn commit(_start: NonNull<u8>, _len: usize) -> Result<(), Errno> {
    Ok(())
}

pub(super) unsafe fn decommit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: the bytes are a live region's, and no reference leads into them.
    unsafe { start.write_bytes(0, len) };
    Ok(())
}

pub(super) unsafe fn advise(start: NonNull<u8>, len: usize, advice: Advice) -> Result<(), Errno> {
    match advice {
        Advice::Normal | Advice::Sequential | Advice::Random | Advice::WillNeed => Ok(()),
        // SAFETY: this function has the same requirements, and its caller keeps them.
        Advice::DontNeed => unsafe { decommit(start, len) },
        _ => Err(UNSUPPORTED),
    }
}

pub(super) unsafe fn lock(_start: NonNull<u8>, _len: usize) -> Result<(), Errno> {
    Err(UNSUPPORTED)
}

pub(super) unsafe fn unlock(_start: NonNull<u8>, _len: usize) -> Result<(), Errno> {
    Err(UNSUPPORTED)
}

pub(super) unsafe fn remap(
    _start: NonNull<u8>,
    _old: usize,
    _new: usize,
    _may_move: bool,
) -> Result<NonNull<u8>, Errno> {
    Err(UNSUPPORTED)
}
