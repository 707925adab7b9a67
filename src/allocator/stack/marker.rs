//! Markers: heights that a stack goes back to, in any order. A stale marker is refused.

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
    /// Marks the current height of the stack. [`release`](Self::release) later frees all blocks
    /// above it.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if the stack has no room for the three words that a marker takes.
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

    /// Returns the number by which markers know their stack. A stack that moves keeps its number. A
    /// later stack in the same region has another one.
    fn id(&self) -> NonZeroU64 {
        self.id.get().unwrap_or_else(|| {
            let id = unique_id();
            self.id.set(Some(id));
            id
        })
    }

    /// Frees the marker and all blocks above it.
    ///
    /// # Errors
    ///
    /// [`StaleMarker`], and nothing is freed, if the marker was released already, alone or with a
    /// marker below it. The error is the same if a reset took the marker, or if it belongs to
    /// another stack, even to an earlier stack in the same region.
    ///
    /// # Complexity
    ///
    /// Linear in the number of blocks above the marker.
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

    /// Returns the serial number in a marker's block.
    fn serial(&self, at: NonZeroUsize) -> u64 {
        debug_assert!(self.header(at).has(MARKER));
        // SAFETY: the offset of a block lies within the region.
        let place = unsafe { self.start().add(at.get()) };
        // SAFETY: `mark` wrote the number, aligned, and no caller gets the block. As for headers, a
        // region that has moved took its bytes along.
        unsafe { place.cast().read() }
    }
}

/// A height of a stack that the stack can go back to; from [`StackAllocator::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a marker that is not released stays on the stack until it is reset"]
pub struct Marker {
    stack: NonZeroU64,
    at: usize,
    serial: u64,
}

/// The error for a [`Marker`] of another stack, or for one that is no longer on its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the marker is not on this stack: released already, or of another stack")]
pub struct StaleMarker;
