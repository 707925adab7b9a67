//! Windows.
//!
//! # Safety
//!
//! Every `unsafe fn` here has the same requirements. The `len` bytes at `start` must be whole pages of a region that
//! [`map`] returned and that is still mapped. No reference may lead into them.

use super::{Advice, Errno, Protection, UNSUPPORTED};
use core::{
    ffi::c_void,
    ptr::{self, NonNull},
};
use windows_sys::Win32::{
    Foundation::GetLastError,
    System::Memory::{
        MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, MEM_RESERVE, MEM_RESET, PAGE_NOACCESS,
        PAGE_PROTECTION_FLAGS, PAGE_READONLY, PAGE_READWRITE, VirtualAlloc, VirtualFree,
        VirtualLock, VirtualProtect, VirtualUnlock,
    },
};

fn raw(start: NonNull<u8>) -> *mut c_void {
    start.as_ptr().cast()
}

/// Returns the error of this thread's last call.
fn last() -> Errno {
    // SAFETY: the call only reads a word of the thread.
    unsafe { GetLastError() }.cast_signed()
}

/// Turns the result of a call that returns zero on failure into a `Result`.
fn done(result: i32) -> Result<(), Errno> {
    if result == 0 { Err(last()) } else { Ok(()) }
}

const fn flags(protection: Protection) -> PAGE_PROTECTION_FLAGS {
    match protection {
        Protection::None => PAGE_NOACCESS,
        Protection::Read => PAGE_READONLY,
        Protection::ReadWrite => PAGE_READWRITE,
    }
}

/// Maps `len` bytes of private pages. The length must be a multiple of the page size and not zero. Without access the
/// pages are only reserved, otherwise also committed.
pub(super) fn map(len: usize, access: Protection) -> Result<NonNull<u8>, Errno> {
    let kind = match access {
        Protection::None => MEM_RESERVE,
        Protection::Read | Protection::ReadWrite => MEM_RESERVE | MEM_COMMIT,
    };
    // SAFETY: the call asks for no address, so the pages are new.
    let start = unsafe { VirtualAlloc(ptr::null(), len, kind, flags(access)) };
    NonNull::new(start.cast()).ok_or_else(last)
}

/// `start` must be the beginning of the region: Windows can only release a whole region.
pub(super) unsafe fn unmap(start: NonNull<u8>, _len: usize) -> Result<(), Errno> {
    // SAFETY: a whole live region, and no reference leads into it.
    done(unsafe { VirtualFree(raw(start), 0, MEM_RELEASE) })
}

pub(super) unsafe fn protect(
    start: NonNull<u8>,
    len: usize,
    protection: Protection,
) -> Result<(), Errno> {
    let mut before = 0;
    // SAFETY: whole pages of a live region, and no reference leads into them; `before` is valid for a write.
    done(unsafe { VirtualProtect(raw(start), len, flags(protection), &raw mut before) })
}

pub(super) unsafe fn commit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region, and no reference leads into them.
    let start = unsafe { VirtualAlloc(raw(start), len, MEM_COMMIT, PAGE_READWRITE) };
    NonNull::new(start).map(drop).ok_or_else(last)
}

pub(super) unsafe fn decommit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region, and no reference leads into them.
    done(unsafe { VirtualFree(raw(start), len, MEM_DECOMMIT) })
}

pub(super) unsafe fn advise(start: NonNull<u8>, len: usize, advice: Advice) -> Result<(), Errno> {
    if advice != Advice::Free {
        return Err(UNSUPPORTED);
    }
    // SAFETY: whole pages of a live region, into which only raw pointers lead, so that contents may change. This call
    // ignores the access, but it must be a valid one.
    let start = unsafe { VirtualAlloc(raw(start), len, MEM_RESET, PAGE_READWRITE) };
    NonNull::new(start).map(drop).ok_or_else(last)
}

pub(super) unsafe fn lock(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region.
    done(unsafe { VirtualLock(raw(start), len) })
}

pub(super) unsafe fn unlock(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region.
    done(unsafe { VirtualUnlock(raw(start), len) })
}

/// Windows has no such call.
pub(super) unsafe fn remap(
    _start: NonNull<u8>,
    _old: usize,
    _new: usize,
    _may_move: bool,
) -> Result<NonNull<u8>, Errno> {
    Err(UNSUPPORTED)
}
