//! The options of a mapping.

use super::{Advice, INVALID, Mapping, Protection, os, page_size, round_up};
use crate::core::SystemError;
use core::ptr::NonNull;

/// Options of a [`Mapping`].
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
    /// Returns the defaults: readable and writable, pages not resident yet, no guard pages, aligned to a page.
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

    /// Reserves address space without memory; see [`Mapping::reserve`].
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

    /// Makes every page resident at once. If there is not enough memory, [`map`](Self::map) returns an error. Later
    /// accesses cause no page faults. It has no effect on a [reserved](Self::reserved) mapping, which has no pages.
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

    /// Puts an inaccessible page before and after the mapping, so that an access beyond either end faults. Guard
    /// pages take addresses, but no memory. They have no effect on platforms that take memory from the heap.
    pub const fn guards(mut self, guards: bool) -> Self {
        self.guards = guards;
        self
    }

    /// Aligns the first byte to `align` bytes, a power of two. An alignment above the page size takes up to `align`
    /// more bytes of address space, but no memory.
    pub const fn align(mut self, align: usize) -> Self {
        self.align = align;
        self
    }

    /// Maps `len` bytes, rounded up to pages.
    ///
    /// # Errors
    ///
    /// The same as for [`Mapping::new`]. Also if the alignment is not a power of two.
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

/// Makes all pages of a readable and writable mapping resident, by one call if the platform has it, otherwise by a
/// write to each page.
fn populate(mapping: &mut Mapping) -> Result<(), SystemError> {
    match mapping.advise(.., Advice::PopulateWrite) {
        // `EINVAL` comes from a kernel older than this advice.
        Err(error) if error.is_unsupported() || error.errno == INVALID => {}
        outcome => return outcome,
    }
    for at in (0..mapping.len()).step_by(page_size()) {
        // SAFETY: the offset lies within the mapping.
        let byte = unsafe { mapping.as_ptr().add(at) };
        // SAFETY: the page is readable and writable, and no other code has a pointer into the mapping yet.
        unsafe { byte.write_volatile(0) };
    }
    Ok(())
}
