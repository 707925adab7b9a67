//! The links of free indices.
#![forbid(unsafe_code)]

use core::num::NonZeroU32;

/// An index plus one.
pub(super) type Item = NonZeroU32;

/// The bit of a link whose index is free. The other bits are the next item of its list, or 0 at the end. The link of
/// an index that is out is 0.
pub(super) const FREE: u32 = 1 << 31;

/// Returns the item of an index below 2³¹ − 1.
#[inline(always)]
pub(super) const fn item_of(index: usize) -> Option<Item> {
    #[expect(clippy::cast_possible_truncation, reason = "it is below 2³¹ − 1")]
    NonZeroU32::new((index as u32).wrapping_add(1))
}

/// Returns the index of an item.
#[inline(always)]
pub(super) const fn index_of(item: Item) -> usize {
    item.get() as usize - 1
}

/// Returns the link of a free index.
#[inline(always)]
pub(super) fn link_to(next: Option<Item>) -> u32 {
    FREE | next.map_or(0, NonZeroU32::get)
}

/// Returns the next item of the list that a link is in.
#[inline(always)]
pub(super) const fn next_of(link: u32) -> Option<Item> {
    NonZeroU32::new(link & !FREE)
}
