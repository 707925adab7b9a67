//! How a mapping is made.

use super::{Advice, INVALID, Mapping, Protection, os, page_size, round_up};
use crate::core::SystemError;
use core::ptr::NonNull;

/// The description of a [`Mapping`].
///
/// # Examples
///
/// A stack of 1 MiB that faults instead of overflowing, aligned to huge pages:
///
/// ```
/// use nebula_memory::syscalls::direct::Mapping;
///
/// let stack = Mapping::options().guards(true).align(2 << 20).map(1 << 20)?;
/// assert_eq!(stack.as_ptr().addr().get() % (2 << 20), 0);
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is mapped before `map`"]
pub struct MapOptions {
    reserved: bool,
    populated: bool,
    guards: bool,
    align: usize,
}

impl MapOptions {
    /// Readable and writable, not yet resident, no guard pages, aligned to a page.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::MapOptions;
    ///
    /// const BUFFERS: MapOptions = MapOptions::new().guards(true);
    /// assert!(BUFFERS.map(1)?.len() > 1, "a page");
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub const fn new() -> Self {
        Self { reserved: false, populated: false, guards: false, align: 1 }
    }

    /// Address space alone; see [`Mapping::reserve`].
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::Mapping;
    ///
    /// let mut heap = Mapping::options().reserved(true).guards(true).map(64 << 20)?;
    /// heap.commit(..1 << 20)?;
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub const fn reserved(mut self, reserved: bool) -> Self {
        self.reserved = reserved;
        self
    }

    /// Makes every page resident at once, so that a missing page is an error of
    /// [`map`](Self::map) and costs no fault later. Has no effect on what is
    /// [reserved](Self::reserved), which has no pages.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::direct::Mapping;
    ///
    /// // None of these pages is a fault in the middle of a request.
    /// let buffers = Mapping::options().populated(true).map(1 << 20)?;
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub const fn populated(mut self, populated: bool) -> Self {
        self.populated = populated;
        self
    }

    /// Puts an inaccessible page before and after, so that running over either end is a fault. They
    /// cost addresses, no memory. Without effect where memory is the heap's.
    ///
    /// # Examples
    ///
    /// See [`MapOptions`].
    pub const fn guards(mut self, guards: bool) -> Self {
        self.guards = guards;
        self
    }

    /// Aligns the first byte to `align` bytes, a power of two. Costs up to as many addresses, no
    /// memory, above the page size.
    ///
    /// # Examples
    ///
    /// See [`MapOptions`].
    pub const fn align(mut self, align: usize) -> Self {
        self.align = align;
        self
    }

    /// Maps `len` bytes, rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`SystemError`] as for [`Mapping::new`], and where the alignment is no power of two.
    ///
    /// # Examples
    ///
    /// See [`MapOptions`].
    pub fn map(self, len: usize) -> Result<Mapping, SystemError> {
        let error = |errno| SystemError::new("map", errno).of(len);
        if !self.align.is_power_of_two() {
            return Err(
                SystemError::new("align to what is no power of two", INVALID).of(self.align)
            );
        }
        let len = round_up(len).ok_or_else(|| error(INVALID))?;

        let page = page_size();
        let guard = if self.guards { page } else { 0 };
        let detour = self.align.max(page) - page;
        let total = [detour, guard, guard].into_iter().try_fold(len, usize::checked_add);
        let total = total.and_then(round_up).ok_or_else(|| error(INVALID))?;

        let plain = total == len;
        let access = if plain && !self.reserved { Protection::ReadWrite } else { Protection::None };
        let region = os::map(total, access).map_err(error)?;
        let first = region.addr().get() + guard;
        let offset = guard + (first.next_multiple_of(self.align.max(page)) - first);
        let region = NonNull::slice_from_raw_parts(region, total);
        let mut mapping = Mapping { region, offset, len };

        if !self.reserved {
            if !plain {
                mapping.commit(..)?;
            }
            if self.populated {
                populate(&mut mapping)?;
            }
        }
        Ok(mapping)
    }
}

impl Default for MapOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes all pages of a readable and writable mapping resident: by one call where there is one,
/// else by a write to each.
fn populate(mapping: &mut Mapping) -> Result<(), SystemError> {
    match mapping.advise(.., Advice::PopulateWrite) {
        // `EINVAL` of a kernel that is older than the advice.
        Err(error) if error.is_unsupported() || error.errno == INVALID => {}
        outcome => return outcome,
    }
    for at in (0..mapping.len()).step_by(page_size()) {
        // SAFETY: the offset lies within the mapping.
        let byte = unsafe { mapping.as_ptr().add(at) };
        // SAFETY: the page is readable and writable, and nobody else knows the mapping yet.
        unsafe { byte.write_volatile(0) };
    }
    Ok(())
}
