//! An iterator that knows its length.

use core::iter::{self, FusedIterator};

/// An iterator of known length.
///
/// # Invariants
///
/// `values` yields `left` more values.
pub(super) struct Counted<I> {
    pub(super) values: iter::Fuse<I>,
    pub(super) left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        let value = self.values.next()?;
        self.left -= 1;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }

    fn fold<B, F: FnMut(B, I::Item) -> B>(self, first: B, step: F) -> B {
        self.values.fold(first, step)
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

impl<I: Iterator> FusedIterator for Counted<I> {}
