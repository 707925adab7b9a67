//! The kind of file system that a file is on.

use std::fs::File;

/// Returns whether the bytes of `file` are in memory instead of on a disk. `None` if this is unknown: outside Linux,
/// and on a file system that shows the files of another one.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn is_memory_backed(file: &File) -> Option<bool> {
    /// From the kernel's `magic.h`.
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58f6;
    const OVERLAYFS: i128 = 0x794c_7630;
    const FUSE: i128 = 0x6573_5546;

    let kind = rustix::fs::fstatfs(file).ok()?.f_type;
    // The magic number has 32 bits. Its type differs between architectures, and may be signed.
    match i128::from(kind) & 0xffff_ffff {
        TMPFS | RAMFS => Some(true),
        OVERLAYFS | FUSE => None,
        _ => Some(false),
    }
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(crate) const fn is_memory_backed(_: &File) -> Option<bool> {
    None
}
