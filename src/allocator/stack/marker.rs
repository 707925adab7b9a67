//! Heights of a stack to go back to, in any order, refused when they are stale.

use super::{StackAllocator, header::MARKER};
use crate::{
    allocator::{AllocError, bump::Place},
    core::MemoryUsage,
    utils::id::unique_id,
};
use core::{
    alloc::Layout,
    num::{NonZeroU64, NonZeroUsize},
};

impl<R: Place> StackAllocator<R> {
    /// Remembers how high the stack is now, to [release](Self::release) later what lies above.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where the stack has no room for the three words that a marker takes.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::{AllocBox, StackAllocator, TypedAllocator}, core::MemoryUsage};
    ///
    /// let mut stack = StackAllocator::with_capacity(4096).unwrap();
    /// let outer = stack.mark().unwrap();
    /// AllocBox::leak(stack.alloc_value([1_u8; 100]).unwrap());
    /// let inner = stack.mark().unwrap();
    /// stack.release(outer).unwrap();
    /// assert_eq!(stack.used_bytes(), 0);
    /// assert!(stack.release(inner).is_err(), "it went with the outer one");
    /// ```
    pub fn mark(&self) -> Result<Marker, AllocError> {
        let serial = self.marks.get();
        let place = self.push(Layout::new::<u64>(), MARKER)?.cast::<u64>();
        // SAFETY: a new block of the size and the alignment of a `u64`.
        unsafe { place.write(serial) };
        self.marks.set(serial + 1);
        let at = place.addr().get() - self.start().addr().get();
        Ok(Marker { stack: self.id(), at, serial })
    }

    /// The number by which markers know their stack, wherever it moves and whatever its region was
    /// before.
    fn id(&self) -> NonZeroU64 {
        self.id.get().unwrap_or_else(|| {
            let id = unique_id();
            self.id.set(Some(id));
            id
        })
    }

    /// Takes back the marker and whatever lies above it.
    ///
    /// # Errors
    ///
    /// [`StaleMarker`], and nothing is taken back, for a marker that was released already, alone or
    /// with one below it, that a reset took, or that is another stack's, be it one that had
    /// the same region before.
    ///
    /// # Complexity
    ///
    /// Linear in the number of blocks above the marker.
    ///
    /// # Examples
    ///
    /// See [`mark`](Self::mark).
    pub fn release(&mut self, marker: Marker) -> Result<(), StaleMarker> {
        if self.id.get() != Some(marker.stack) {
            return Err(StaleMarker);
        }
        let mut block = self.top.get();
        while let Some(at) = block
            && at.get() > marker.at
        {
            block = self.header(at).below;
        }
        let Some(at) = block.filter(|at| at.get() == marker.at) else { return Err(StaleMarker) };
        let header = self.header(at);
        if !header.has(MARKER) || self.serial(at) != marker.serial {
            return Err(StaleMarker);
        }
        self.peak.set(self.peak_bytes());
        self.floor.set(self.floor.get().min(header.restore()));
        self.lower(header.restore(), header.below);
        Ok(())
    }

    /// The serial number in a marker's block.
    fn serial(&self, at: NonZeroUsize) -> u64 {
        debug_assert!(self.header(at).has(MARKER));
        // SAFETY: the offset of a block lies within the region.
        let place = unsafe { self.start().add(at.get()) };
        // SAFETY: `mark` wrote it, aligned, and gives the block to nobody; as for headers, a region that
        // has moved took it along.
        unsafe { place.cast().read() }
    }
}

/// A height of a stack; from [`StackAllocator::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a marker that is not released stays on the stack until it is reset"]
pub struct Marker {
    stack: NonZeroU64,
    at: usize,
    serial: u64,
}

/// A [`Marker`] is of another stack, or no longer on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the marker is not on this stack: released already, or of another stack")]
pub struct StaleMarker;
