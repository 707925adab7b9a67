//! Memory by the page, straight from the kernel: owned mappings that unmap themselves.
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
//! - Sizes and ranges are in bytes. A length is rounded up to whole [pages](page_size); a range must
//!   begin and end between pages.
//! - New pages, and those that come back after [`Mapping::decommit`], read as zero.
//! - A [`Mapping`] hands out raw pointers and no references, so that none of its methods can
//!   invalidate one. Whoever reads and writes through the pointer answers for the pages being there.
//! - A call that fails is a [`SystemError`] with the call, the bytes it was about and the number; the
//!   mapping is as it was, unless the method says otherwise.
//!
//! # Platforms
//!
//! | | Linux | other Unix | Windows | elsewhere, and under Miri |
//! |---|---|---|---|---|
//! | map, protect | ✓ | ✓ | ✓ | the heap; protection of all or nothing |
//! | reserve, commit, decommit | ✓ | ✓ | ✓ | memory is taken at once and zeroed on decommit |
//! | resize | `mremap` | – | – | – |
//! | lock | ✓ | ✓ | ✓ | – |
//! | advice | all | [`Advice::Normal`] to [`Advice::WillNeed`] | [`Advice::Free`] | [`Advice::DontNeed`]; hints of what comes have no effect |
//!
//! A dash is an error that [is unsupported](SystemError::is_unsupported).
//!
//! # Non-goals
//!
//! Mappings of files and memory that processes share.

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

/// What the kernel says when it refuses.
type Errno = i32;

/// The number of [`SystemError::unsupported`].
const UNSUPPORTED: Errno = 38;

/// The number of an argument that makes no sense: `EINVAL` of every Unix.
const INVALID: Errno = 22;

/// What may be done with the bytes of a page.
///
/// # Examples
///
/// See [`Mapping::protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Nothing: every access is a fault.
    None,
    /// Reads; a write is a fault.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// What the kernel is told about pages. The [module](self) says which platform understands which.
///
/// # Examples
///
/// Advice is good to have, and not worth a failure:
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
/// See [`Mapping::advise`] for one that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// No particular order of accesses: undoes the next two.
    Normal,
    /// Accesses from low to high addresses.
    Sequential,
    /// Accesses in no order.
    Random,
    /// Accesses soon.
    WillNeed,
    /// The pages go back to the kernel at once and read as zero afterwards.
    DontNeed,
    /// The pages go back to the kernel when it needs memory: until it is written to, a byte reads as
    /// it was, or as zero (on Windows: as anything). Cheaper than [`DontNeed`](Self::DontNeed), but
    /// the process's resident size does not fall at once.
    Free,
    /// Back with huge pages where whole ones fit.
    HugePage,
    /// Do not back with huge pages.
    NoHugePage,
    /// Make the pages resident, for reading. Linux 5.14.
    PopulateRead,
    /// Make the pages resident, for writing. Linux 5.14. Where there is no memory for them it is an
    /// error now, and not a fault later.
    PopulateWrite,
    /// The first to be taken when memory is tight. Linux 5.4.
    Cold,
    /// Written to swap now. Linux 5.4.
    PageOut,
    /// Not in a core dump.
    DontDump,
    /// Again in a core dump.
    DoDump,
}

/// Whether a mapping may get another address when it is resized.
///
/// # Examples
///
/// See [`Mapping::resize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relocation {
    /// It stays where it is, or the call fails.
    InPlace,
    /// It may move; nothing is copied, the pages are entered elsewhere.
    MayMove,
}

/// Pages of this process, private and not of a file. They are unmapped when it is dropped.
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
    /// Pages that `os::map` returned or `os::remap` made of them, which nobody else unmaps.
    region: NonNull<[u8]>,
    /// # Invariants
    ///
    /// `offset + len` is at most the region's length; all three are multiples of the page size.
    offset: usize,
    len: usize,
}

// SAFETY: pages belong to the process, not to a thread; the pointer is the mapping's own.
unsafe impl Send for Mapping {}
// SAFETY: by a shared reference one can only read where the pages are.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` bytes, rounded up to pages, zeroed, readable and writable, anywhere.
    ///
    /// Pages become resident when they are first written to.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where the address space, the kernel's limits or its memory do not suffice,
    /// or `len` is zero or larger than any address space.
    ///
    /// # Examples
    ///
    /// See [`Mapping`].
    pub fn new(len: usize) -> Result<Self, SystemError> {
        Self::options().map(len)
    }

    /// Address space for `len` bytes, rounded up to pages, that no memory stands behind: every access
    /// is a fault until its page is [committed](Self::commit).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
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

    /// Starts the description of a mapping: its alignment, its guard pages.
    ///
    /// # Examples
    ///
    /// See [`MapOptions`].
    pub const fn options() -> MapOptions {
        MapOptions::new()
    }

    /// The lowest byte, valid for all [`len`](Self::len) bytes as far as they are committed and their
    /// protection allows. Aligned to a page, or as the options asked.
    #[must_use]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: the offset lies within the region (the invariants).
        unsafe { self.region.cast::<u8>().add(self.offset) }
    }

    /// Bytes between [`as_ptr`](Self::as_ptr) and the end, a multiple of the page size.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least a page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes pages of a [reserved](Self::reserve) mapping readable and writable. Those that are
    /// already keep their contents.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where there is no memory, or the range is not one of whole pages within the
    /// mapping.
    ///
    /// # Examples
    ///
    /// See [`reserve`](Self::reserve).
    pub fn commit(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: the pages are the mapping's own, and nothing but raw pointers leads into them.
        self.call("commit", range, |start, len| unsafe { os::commit(start, len) })
    }

    /// Gives the pages' memory back and keeps their addresses: every access is a fault until they are
    /// [committed](Self::commit) again, as zeroes.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit). The contents may be lost all the same.
    ///
    /// # Examples
    ///
    /// See [`reserve`](Self::reserve).
    pub fn decommit(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: as in `commit`.
        self.call("decommit", range, |start, len| unsafe { os::decommit(start, len) })
    }

    /// Sets what may be done with committed pages.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
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

    /// Tells the kernel what is to come, or lets it take pages back.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and where the platform does not know the advice.
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

    /// Makes committed pages resident and keeps them from being swapped out.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and where the process may not lock as much
    /// (`RLIMIT_MEMLOCK`).
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

    /// Lets pages be swapped out again.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    ///
    /// # Examples
    ///
    /// See [`lock`](Self::lock).
    pub fn unlock(&mut self, range: impl RangeBounds<usize>) -> Result<(), SystemError> {
        // SAFETY: as in `commit`.
        self.call("unlock", range, |start, len| unsafe { os::unlock(start, len) })
    }

    /// Makes the mapping `len` bytes long, rounded up to pages. What both lengths have in common
    /// stays as it is; new pages read as zero and are as accessible as the last one was.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where there is no room, where `len` is zero, where the pages are not all of
    /// the same protection, and, as unsupported, where the platform has no such call or the mapping
    /// has guard pages or an alignment of its own. The mapping is as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::{Mapping, Relocation};
    ///
    /// let mut log = Mapping::new(1)?;
    /// // SAFETY: the page is readable and writable.
    /// unsafe { log.as_ptr().write(7) };
    /// match log.resize(1 << 20, Relocation::MayMove) {
    ///     Ok(()) => assert_eq!(log.len(), 1 << 20),
    ///     Err(error) => assert!(error.is_unsupported()),
    /// }
    /// // SAFETY: as above.
    /// assert_eq!(unsafe { log.as_ptr().read() }, 7);
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn resize(&mut self, len: usize, relocation: Relocation) -> Result<(), SystemError> {
        let error = |errno| SystemError::new("resize", errno).of(len);
        let rounded = round_up(len).ok_or_else(|| error(INVALID))?;
        if self.region.len() != self.len {
            return Err(SystemError::unsupported("resize a mapping with guard pages").of(len));
        }
        // SAFETY: the region is the mapping's own and as long as it (just checked), and nothing but
        // raw pointers leads into it.
        let region = unsafe { os::remap(self.region.cast(), self.len, rounded, relocation) };
        self.region = NonNull::slice_from_raw_parts(region.map_err(error)?, rounded);
        self.len = rounded;
        Ok(())
    }

    /// The pages, which nobody unmaps from here on unless they come [back](Self::from_raw).
    pub(crate) fn into_raw(self) -> NonNull<[u8]> {
        debug_assert_eq!(self.region.len(), self.len, "guard pages would be lost");
        mem::ManuallyDrop::new(self).region
    }

    /// Takes pages over.
    ///
    /// # Safety
    ///
    /// [`into_raw`](Self::into_raw) returned them, as many, of a mapping with neither guard pages nor
    /// an alignment of its own, and they are taken over once.
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

    /// `range` in bytes, if it is one of whole pages within the mapping.
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
        // SAFETY: the region is the mapping's own, whole, and goes unused from here on.
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
    /// What errors call it.
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

/// The length in whole pages; `None` for no bytes, or more than any address space has.
fn round_up(len: usize) -> Option<usize> {
    let rounded = len.checked_next_multiple_of(page_size())?;
    (len > 0 && rounded <= isize::MAX.unsigned_abs()).then_some(rounded)
}
