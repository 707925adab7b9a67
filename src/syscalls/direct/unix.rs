//! Unix. On Linux `rustix` makes system calls without a C library.
//!
//! # Safety
//!
//! Every `unsafe fn` here has the same requirements. The `len` bytes at `start` must be whole pages of a region that
//! [`map`] or [`remap`] returned and that is still mapped. No reference may lead into them.

use super::{Advice, Errno, Protection, UNSUPPORTED};
use core::{
    ffi::c_void,
    ptr::{self, NonNull},
};
use rustix::{
    io,
    mm::{self, MapFlags, MprotectFlags, ProtFlags},
};

fn errno(error: io::Errno) -> Errno {
    error.raw_os_error()
}

fn raw(start: NonNull<u8>) -> *mut c_void {
    start.as_ptr().cast()
}

/// Returns the flags of reserved pages, which have no memory yet. Where possible the kernel does not count them as
/// committed memory. FreeBSD counts only writable pages.
fn reserved() -> MapFlags {
    #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
    {
        MapFlags::PRIVATE | MapFlags::NORESERVE
    }
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    {
        MapFlags::PRIVATE
    }
}

/// Maps `len` bytes of anonymous private pages. The length must be a multiple of the page size and not zero.
pub(super) fn map(len: usize, access: Protection) -> Result<NonNull<u8>, Errno> {
    let (access, flags) = match access {
        Protection::None => (ProtFlags::empty(), reserved()),
        Protection::Read => (ProtFlags::READ, MapFlags::PRIVATE),
        Protection::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
    };
    // SAFETY: the call asks for no address, so the pages are new.
    let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, access, flags) };
    NonNull::new(start.map_err(errno)?.cast()).ok_or(UNSUPPORTED)
}

pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region, and no reference leads into them.
    unsafe { mm::munmap(raw(start), len) }.map_err(errno)
}

pub(super) unsafe fn protect(
    start: NonNull<u8>,
    len: usize,
    protection: Protection,
) -> Result<(), Errno> {
    let flags = match protection {
        Protection::None => MprotectFlags::empty(),
        Protection::Read => MprotectFlags::READ,
        Protection::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
    };
    // SAFETY: whole pages of a live region, and no reference leads into them.
    unsafe { mm::mprotect(raw(start), len, flags) }.map_err(errno)
}

pub(super) unsafe fn commit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: this function has the same requirements, and its caller keeps them.
    unsafe { protect(start, len, Protection::ReadWrite) }
}

/// Takes the memory first and the access second, so that a failure leaves the range as accessible as before.
#[cfg(target_os = "linux")]
pub(super) unsafe fn decommit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: this function has the same requirements, and its caller keeps them.
    unsafe { advise(start, len, Advice::DontNeed) }?;
    // SAFETY: this function has the same requirements, and its caller keeps them.
    unsafe { protect(start, len, Protection::None) }
}

/// Replaces the pages by new, inaccessible ones.
#[cfg(not(target_os = "linux"))]
pub(super) unsafe fn decommit(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    let flags = reserved() | MapFlags::FIXED;
    // SAFETY: the replaced pages are those of a live region, and no reference leads into them.
    unsafe { mm::mmap_anonymous(raw(start), len, ProtFlags::empty(), flags) }
        .map(drop)
        .map_err(errno)
}

#[cfg(target_os = "linux")]
pub(super) unsafe fn advise(start: NonNull<u8>, len: usize, advice: Advice) -> Result<(), Errno> {
    let advice = match advice {
        Advice::Normal => mm::Advice::Normal,
        Advice::Sequential => mm::Advice::Sequential,
        Advice::Random => mm::Advice::Random,
        Advice::WillNeed => mm::Advice::WillNeed,
        Advice::DontNeed => mm::Advice::LinuxDontNeed,
        Advice::Free => mm::Advice::LinuxFree,
        Advice::HugePage => mm::Advice::LinuxHugepage,
        Advice::NoHugePage => mm::Advice::LinuxNoHugepage,
        Advice::PopulateRead => mm::Advice::LinuxPopulateRead,
        Advice::PopulateWrite => mm::Advice::LinuxPopulateWrite,
        Advice::Cold => mm::Advice::LinuxCold,
        Advice::PageOut => mm::Advice::LinuxPageOut,
        Advice::DontDump => mm::Advice::LinuxDontDump,
        Advice::DoDump => mm::Advice::LinuxDoDump,
    };
    // SAFETY: whole pages of a live region, into which only raw pointers lead, so that contents
    // may change.
    unsafe { mm::madvise(raw(start), len, advice) }.map_err(errno)
}

#[cfg(not(target_os = "linux"))]
pub(super) unsafe fn advise(start: NonNull<u8>, len: usize, advice: Advice) -> Result<(), Errno> {
    let advice = match advice {
        Advice::Normal => mm::Advice::Normal,
        Advice::Sequential => mm::Advice::Sequential,
        Advice::Random => mm::Advice::Random,
        Advice::WillNeed => mm::Advice::WillNeed,
        _ => return Err(UNSUPPORTED),
    };
    // SAFETY: whole pages of a live region; these hints change no contents.
    unsafe { mm::madvise(raw(start), len, advice) }.map_err(errno)
}

pub(super) unsafe fn lock(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region.
    unsafe { mm::mlock(raw(start), len) }.map_err(errno)
}

pub(super) unsafe fn unlock(start: NonNull<u8>, len: usize) -> Result<(), Errno> {
    // SAFETY: whole pages of a live region.
    unsafe { mm::munlock(raw(start), len) }.map_err(errno)
}

/// Changes the length of a whole region from `old` to `new` bytes. The new length must be a multiple of the page size
/// and not zero. On an error the region is unchanged.
#[cfg(target_os = "linux")]
pub(super) unsafe fn remap(
    start: NonNull<u8>,
    old: usize,
    new: usize,
    may_move: bool,
) -> Result<NonNull<u8>, Errno> {
    let flags = if may_move { mm::MremapFlags::MAYMOVE } else { mm::MremapFlags::empty() };
    // SAFETY: a whole live region, and no reference leads into it.
    let moved = unsafe { mm::mremap(raw(start), old, new, flags) };
    NonNull::new(moved.map_err(errno)?.cast()).ok_or(UNSUPPORTED)
}

#[cfg(not(target_os = "linux"))]
pub(super) unsafe fn remap(
    _start: NonNull<u8>,
    _old: usize,
    _new: usize,
    _may_move: bool,
) -> Result<NonNull<u8>, Errno> {
    Err(UNSUPPORTED)
}
