//! Pages of memory directly from the kernel, as owned mappings. They are unmapped when they are dropped.
//!
//! ```text
//!            Mapping::options().guards(true).align(1 << 21)
//!
//!   region ┌──────────────┬───────────────────────────────┬──────────────┐
//!          │ inaccessible │ len bytes, at as_ptr()        │ inaccessible │
//!          └──────────────┴───────────────────────────────┴──────────────┘
//!           guard page and   the only part that the         guard page
//!           way to alignment methods reach
//! ```
//!
//! # Contract
//!
//! - Sizes and ranges are in bytes. A length is rounded up to whole [pages](page_size). A range must begin and end at
//!   page boundaries.
//! - New pages read as zero. So do pages that were [decommitted](Mapping::decommit) and committed again.
//! - A [`Mapping`] gives out raw pointers and no references, so its methods cannot invalidate a reference. The caller
//!   of an access through the pointer must ensure that the pages are accessible.
//! - A call that fails returns a [`SystemError`] with the name of the call, its number of bytes and the error number.
//!   The mapping is unchanged, unless the method says otherwise.
//!
//! # Platforms
//!
//! | | Linux | other Unix | Windows | elsewhere, and under Miri |
//! |---|---|---|---|---|
//! | map, protect | ✓ | ✓ | ✓ | the heap; protection of all or nothing |
//! | reserve, commit, decommit | ✓ | ✓ | ✓ | memory is taken at once and zeroed on decommit |
//! | resize | `mremap` | – | – | – |
//! | lock | ✓ | ✓ | ✓ | – |
//! | advice | all | [`Advice::Normal`] to [`Advice::WillNeed`] | [`Advice::Free`] | [`Advice::DontNeed`]; hints about future accesses have no effect |
//!
//! A dash means an error that [is unsupported](SystemError::is_unsupported).
//!
//! # Non-goals
//!
//! Mappings of files, and memory shared between processes.

mod options;
mod trim;

#[cfg(not(any(all(unix, not(miri)), all(windows, not(miri)))))]
#[path = "heap.rs"]
mod os;
#[cfg(all(unix, not(miri)))]
#[path = "unix.rs"]
mod os;
#[cfg(all(windows, not(miri)))]
#[path = "windows.rs"]
mod os;

pub use self::{options::MapOptions, trim::trim_heap};

use super::info::page_size;
use crate::core::SystemError;
use core::{
    fmt, mem,
    ops::{Bound, Range, RangeBounds},
    ptr::NonNull,
};

/// The number of an error that the kernel returns.
type Errno = i32;

/// The number of [`SystemError::unsupported`].
const UNSUPPORTED: Errno = 38;

/// The number of an invalid argument: `EINVAL` on every Unix.
const INVALID: Errno = 22;

/// The allowed accesses to a page, for [`Mapping::protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// No access: every access faults.
    None,
    /// Only reads: a write faults.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// Advice to the kernel about pages, for [`Mapping::advise`]. The [module](self) says which platform supports which.
///
/// # Examples
///
/// An advice is a hint, so an error can be ignored:
///
/// ```
/// use nebula_memory::syscalls::direct::{Advice, Mapping};
///
/// let mut table = Mapping::options().align(2 << 20).map(4 << 20)?;
/// for advice in [Advice::HugePage, Advice::Random, Advice::DontDump] {
///     if let Err(error) = table.advise(.., advice) {
///         eprintln!("{error}");
///     }
/// }
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
///
/// See [`Mapping::advise`] for an advice whose error matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Accesses in no particular order. Undoes `Sequential` and `Random`.
    Normal,
    /// Accesses from low to high addresses.
    Sequential,
    /// Accesses in random order.
    Random,
    /// Accesses soon.
    WillNeed,
    /// The kernel takes the pages back at once. They read as zero afterwards.
    DontNeed,
    /// The kernel takes the pages back when it needs memory. Until a byte is written again, it reads as before or as
    /// zero (on Windows: as anything). Cheaper than [`DontNeed`](Self::DontNeed), but the process's resident size
    /// does not fall at once.
    Free,
    /// Use huge pages where whole ones fit.
    HugePage,
    /// Do not use huge pages.
    NoHugePage,
    /// Make the pages resident, for reading. Linux 5.14.
    PopulateRead,
    /// Make the pages resident, for writing. Linux 5.14. If there is no memory for them, the call fails now instead
    /// of a later access.
    PopulateWrite,
    /// Reclaim these pages first when memory is short. Linux 5.4.
    Cold,
    /// Write the pages to swap now. Linux 5.4.
    PageOut,
    /// Leave the pages out of core dumps.
    DontDump,
    /// Include the pages in core dumps again.
    DoDump,
}

/// Private anonymous pages of this process. They are unmapped when the mapping is dropped.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::{direct::Mapping, info::page_size};
///
/// let mapping = Mapping::new(10_000)?;
/// assert_eq!(mapping.len() % page_size(), 0);
/// // SAFETY: the pages are readable and writable, the first is at least 4 bytes long and aligned.
/// unsafe { mapping.as_ptr().cast::<u32>().write(7) };
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
pub struct Mapping {
    /// # Invariants
    ///
    /// Pages that `os::map` returned or `os::remap` made of them. Only this mapping unmaps them.
    region: NonNull<[u8]>,
    /// # Invariants
    ///
    /// `offset + len` is at most the region's length; all three are multiples of the page size.
    offset: usize,
    len: usize,
}

// SAFETY: pages belong to the process, not to a thread, and the pointer is the mapping's own.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference only gives the address and the length of the pages.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, rounded up to pages: zeroed, readable and writable, at any address.
    ///
    /// Pages become resident when they are first written to.
    ///
    /// # Errors
    ///
    /// [`SystemError`] if the address space, the kernel's limits or its memory do not suffice, or if `len` is zero or
    /// larger than any address space.
    pub fn new(len: usize) -> Result<Self, SystemError> {
        Self::options().map(len)
    }

    /// Reserves address space for `len` bytes, rounded up to pages, without memory. Every access to a page faults
    /// until the page is [committed](Self::commit).
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// A table that grows in place up to 64 MiB:
    ///
    /// ```
    /// use nebula_memory::syscalls::{direct::Mapping, info::page_size};
    ///
    /// let mut table = Mapping::reserve(64 << 20)?;
    /// let page = page_size();
    /// table.commit(..page)?;
    /// // SAFETY: the first page is readable and writable.
    /// unsafe { table.as_ptr().write(1) };
    /// table.commit(page..2 * page)?;
    /// table.decommit(..)?;
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn reserve(len: usize) -> Result<Self, SystemError> {
        Self::options().reserved(true).map(len)
    }

    /// Returns options for a mapping, such as its alignment and its guard pages.
    pub const fn options() -> MapOptions {
        MapOptions::new()
    }

    /// Returns the address of the first byte. It is valid for all [`len`](Self::len) bytes that are committed, for
    /// accesses that their protection allows. It is aligned to a page, or as the options say.
    #[must_use]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: the offset lies within the region (the invariants).
        unsafe { self.region.cast::<u8>().add(self.offset) }
    }

    /// Returns the number of bytes from [`as_ptr`](Self::as_ptr) to the end, a multiple of the page size.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns `false`: a mapping has at least one page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes pages of a [reserved](Self::reserve) mapping readable and writable. Pages that are committed already
    /// keep their contents.
    ///
    /// # Errors
    ///
    /// [`SystemError`] if there is no memory, or if the range does not consist of whole pages of the mapping.
    pub fn commit(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: the pages are the mapping's own, and nothing but raw pointers leads into them.
        self.call("commit", range, |start, len| unsafe { os::commit(start, len) })
    }

    /// Returns the pages' memory to the kernel and keeps their addresses. Every access faults until the pages are
    /// [committed](Self::commit) again; then they read as zero.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit). The contents may be lost even then.
    pub fn decommit(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: as in `commit`.
        self.call("decommit", range, |start, len| unsafe { os::decommit(start, len) })
    }

    /// Sets the allowed accesses to committed pages.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::{Mapping, Protection};
    ///
    /// let mut table = Mapping::new(1)?;
    /// // SAFETY: the page is readable and writable.
    /// unsafe { table.as_ptr().write(7) };
    /// match table.protect(.., Protection::Read) {
    ///     // SAFETY: the page is readable.
    ///     Ok(()) => assert_eq!(unsafe { table.as_ptr().read() }, 7),
    ///     Err(error) => assert!(error.is_unsupported()),
    /// }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn protect(
        &mut self,
        range: impl RangeBounds<usize>,
        protection: Protection,
    ) -> Result<(), SystemError> {
        self.call("protect", range, |start, len| {
            // SAFETY: as in `commit`.
            unsafe { os::protect(start, len, protection) }
        })
    }

    /// Advises the kernel of future accesses, or lets it take pages back.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit), and if the platform does not support the advice.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::{Advice, Mapping};
    ///
    /// let mut buffer = Mapping::new(1 << 20)?;
    /// // SAFETY: the pages are readable and writable.
    /// unsafe { buffer.as_ptr().write(7) };
    /// match buffer.advise(.., Advice::DontNeed) {
    ///     // SAFETY: as above.
    ///     Ok(()) => assert_eq!(unsafe { buffer.as_ptr().read() }, 0),
    ///     Err(error) => assert!(error.is_unsupported()),
    /// }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn advise(
        &mut self,
        range: impl RangeBounds<usize>,
        advice: Advice,
    ) -> Result<(), SystemError> {
        self.call(advice.call(), range, |start, len| {
            // SAFETY: as in `commit`.
            unsafe { os::advise(start, len, advice) }
        })
    }

    /// Makes committed pages resident and keeps them in memory: they are not swapped out.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit), and if the process may not lock this many bytes (`RLIMIT_MEMLOCK`).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::Mapping;
    ///
    /// let mut secret = Mapping::new(1)?;
    /// if let Err(error) = secret.lock(..) {
    ///     eprintln!("the key may be written to disk: {error}");
    /// } else {
    ///     secret.unlock(..)?;
    /// }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn lock(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: as in `commit`.
        self.call("lock", range, |start, len| unsafe { os::lock(start, len) })
    }

    /// Allows pages to be swapped out again.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit).
    pub fn unlock(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: as in `commit`.
        self.call("unlock", range, |start, len| unsafe { os::unlock(start, len) })
    }

    /// Changes the length of the mapping to `len` bytes, rounded up to pages. The bytes within both lengths keep
    /// their contents. New pages read as zero and have the protection of the last old page.
    ///
    /// The mapping may move to another address. Nothing is copied: the same pages are mapped there.
    ///
    /// # Errors
    ///
    /// [`SystemError`] if there is no room, if `len` is zero, or if the pages do not all have the same protection.
    /// The error is unsupported if the platform has no such call, or if the mapping has guard pages or an alignment
    /// of its own. The mapping is unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::Mapping;
    ///
    /// let mut log = Mapping::new(1)?;
    /// // SAFETY: the page is readable and writable.
    /// unsafe { log.as_ptr().write(7) };
    /// match log.resize(1 << 20) {
    ///     Ok(()) => assert_eq!(log.len(), 1 << 20),
    ///     Err(error) => assert!(error.is_unsupported()),
    /// }
    /// // SAFETY: as above.
    /// assert_eq!(unsafe { log.as_ptr().read() }, 7);
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn resize(&mut self, len: usize) -> Result<(), SystemError> {
        self.remap(len, true)
    }

    /// Like [`resize`](Self::resize), but the address stays the same.
    ///
    /// # Errors
    ///
    /// As for [`resize`](Self::resize), and if other pages are in the way.
    ///
    /// # Examples
    ///
    /// A buffer that other threads hold pointers into returns its upper pages:
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::Mapping;
    ///
    /// let mut buffer = Mapping::new(1 << 20)?;
    /// let start = buffer.as_ptr();
    /// if let Err(error) = buffer.resize_in_place(1 << 16) {
    ///     assert!(error.is_unsupported());
    /// }
    /// assert_eq!(buffer.as_ptr(), start);
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn resize_in_place(&mut self, len: usize) -> Result<(), SystemError> {
        self.remap(len, false)
    }

    fn remap(&mut self, len: usize, may_move: bool) -> Result<(), SystemError> {
        let error = |errno| SystemError::new("resize", errno).of(len);
        let rounded = round_up(len).ok_or_else(|| error(INVALID))?;
        if self.region.len() != self.len {
            return Err(SystemError::unsupported("resize a mapping with guard pages").of(len));
        }
        // SAFETY: the region is the mapping's own and has the same length (just checked), and only raw pointers lead
        // into it.
        let region = unsafe { os::remap(self.region.cast(), self.len, rounded, may_move) };
        self.region = NonNull::slice_from_raw_parts(region.map_err(error)?, rounded);
        self.len = rounded;
        Ok(())
    }

    /// Returns the pages and gives up their ownership. They stay mapped until [`from_raw`](Self::from_raw) takes them
    /// back.
    pub(crate) fn into_raw(self) -> NonNull<[u8]> {
        debug_assert_eq!(self.region.len(), self.len, "guard pages would be lost");
        mem::ManuallyDrop::new(self).region
    }

    /// Takes ownership of pages that [`into_raw`](Self::into_raw) returned.
    ///
    /// # Safety
    ///
    /// [`into_raw`](Self::into_raw) returned the pages, with this length, from a mapping with neither guard pages nor
    /// an alignment of its own. Their ownership is taken only once.
    pub(crate) const unsafe fn from_raw(pages: NonNull<[u8]>) -> Self {
        Self { region: pages, offset: 0, len: pages.len() }
    }

    /// Runs `call` on the pages of `range`.
    fn call(
        &self,
        name: &'static str,
        range: impl RangeBounds<usize>,
        call: impl FnOnce(NonNull<u8>, usize) -> Result<(), Errno>,
    ) -> Result<(), SystemError> {
        let Range { start, end } = self.pages(&range).ok_or_else(|| {
            SystemError::new("address whole pages within a mapping", INVALID).of(self.len)
        })?;
        if start == end {
            return Ok(());
        }
        // SAFETY: `start` is at most the mapping's length.
        let low = unsafe { self.as_ptr().add(start) };
        call(low, end - start).map_err(|errno| SystemError::new(name, errno).of(end - start))
    }

    /// Converts `range` to byte offsets; `None` if it does not consist of whole pages of the mapping.
    fn pages(&self, range: &impl RangeBounds<usize>) -> Option<Range<usize>> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1)?,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        let page = page_size();
        let whole = start.is_multiple_of(page) && end.is_multiple_of(page);
        (whole && start <= end && end <= self.len).then_some(start..end)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the region is the mapping's own and whole, and is not used from here on.
        let outcome = unsafe { os::unmap(self.region.cast(), self.region.len()) };
        debug_assert_eq!(outcome, Ok(()), "a whole region can always be unmapped");
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("start", &self.as_ptr()).field("len", &self.len).finish()
    }
}

impl Advice {
    /// Returns the name of the call in errors.
    const fn call(self) -> &'static str {
        match self {
            Self::Normal => "advise normal",
            Self::Sequential => "advise sequential",
            Self::Random => "advise random",
            Self::WillNeed => "advise will-need",
            Self::DontNeed => "advise dont-need",
            Self::Free => "advise free",
            Self::HugePage => "advise huge-page",
            Self::NoHugePage => "advise no-huge-page",
            Self::PopulateRead => "advise populate-read",
            Self::PopulateWrite => "advise populate-write",
            Self::Cold => "advise cold",
            Self::PageOut => "advise page-out",
            Self::DontDump => "advise dont-dump",
            Self::DoDump => "advise do-dump",
        }
    }
}

/// Rounds `len` up to whole pages. Returns `None` for zero bytes, and for more than any address space has.
fn round_up(len: usize) -> Option<usize> {
    let rounded = len.checked_next_multiple_of(page_size())?;
    (len > 0 && rounded <= isize::MAX.unsigned_abs()).then_some(rounded)
}
