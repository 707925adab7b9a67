//! The slab of one thread.
#![forbid(unsafe_code)]

use super::{Handle, entry::Entry};
use crate::{
    advanced::{
        budget::{Budget, Reservation},
        lockfree::{Full, memory::Plan},
    },
    core::AllocationError,
};
use alloc::vec::Vec;
use core::{fmt, mem};

/// A slab for one thread: values in numbered slots. Each value has a [`Handle`], which finds the value until it is
/// removed, and nothing afterwards.
///
/// Use it where values refer to each other or outlive a function call, and are removed in any order: connections,
/// timers, nodes of a graph. A handle is a number that the program may store anywhere.
///
/// # Layout
///
/// ```text
///   entries: ┌───────────────┬───────────────┬───────────────┐
///            │ generation 1  │ generation 2  │ generation 5  │   odd: a value; even: vacant
///            │ value         │ next: none    │ value         │
///            └───────────────┴───────▲───────┴───────────────┘
///                         vacant ────┘           a list of the vacant entries, the last one first
/// ```
///
/// One vector of entries. A handle has the index of its entry, and the generation that the entry had when the value
/// was inserted. So a lookup is one comparison with the length and one with the generation.
///
/// # Limits
///
/// At most 2³² − 1 entries. An entry is used for 2³¹ values, one after the other. Then it is *retired*: it stays
/// vacant, and another entry is used in its place, also in a slab of fixed capacity. So no handle ever finds a later
/// value of its entry. A program that inserts and removes a value every 3 ns retires an entry in 6 s.
///
/// The entries are freed only when the slab is dropped. Values move when the slab grows.
///
/// # When not to use it
///
/// For values that several threads use. For a list that is only iterated: iteration passes over vacant entries.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::LocalSlab;
///
/// let mut sessions = LocalSlab::new();
/// let first = sessions.insert(String::from("first"));
/// let second = sessions.insert(String::from("second"));
/// sessions[first].push('!');
/// assert_eq!(sessions.remove(first).as_deref(), Some("first!"));
///
/// // The slot is used again. The old handle does not find the new value.
/// let third = sessions.insert(String::from("third"));
/// assert_eq!(third.index(), first.index());
/// assert_eq!(sessions.get(first), None);
/// assert_eq!((sessions[second].as_str(), sessions.len()), ("second", 2));
/// ```
///
/// With a budget, which is charged when the slab grows:
///
/// ```
/// use nebula_memory::{Budget, lockfree::LocalSlab};
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let mut slab = LocalSlab::new_in(&budget);
/// while slab.try_insert(7_u64).is_ok() {}
/// assert_eq!(budget.usage().used, slab.capacity() * LocalSlab::<u64>::ENTRY_BYTES);
/// assert_eq!(slab.try_reserve(1).unwrap_err().code(), "MEM:BUDGET:REFUSED");
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct LocalSlab<T> {
    /// # Invariants
    ///
    /// An entry that is vacant is in the list of vacant entries, or it is retired.
    entries: Vec<Entry<T>>,
    /// The index of the first vacant entry, or [`NONE`].
    vacant: u32,
    len: usize,
    retired: usize,
    /// The most values at once.
    limit: usize,
    charge: Option<Reservation>,
}

const COMPONENT: &str = "slab";

/// The index of no entry.
const NONE: u32 = u32::MAX;

/// The most entries, each with an index below [`NONE`].
const MOST: usize = NONE as usize;

/// The entries that a slab has room for when it grows for the first time.
const FIRST: usize = 4;

impl<T> LocalSlab<T> {
    /// The bytes of one entry: a value and its generation.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// Creates an empty slab, which grows. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), vacant: NONE, len: 0, retired: 0, limit: MOST, charge: None }
    }

    /// Like [`new`](Self::new), and charges `budget` for the entries, from when the slab grows until it is dropped.
    #[must_use]
    pub fn new_in(budget: &Budget) -> Self {
        Self { charge: Some(budget.reservation()), ..Self::new() }
    }

    /// Creates an empty slab for at most `capacity` values at once, and allocates its entries.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there are more than 2³² − 1 entries, or if they do not fit the heap.
    pub fn try_with_capacity(capacity: usize) -> Result<Self, AllocationError> {
        Self::planned(capacity, None)
    }

    /// Like [`try_with_capacity`](Self::try_with_capacity), and charges `budget` for the entries until the slab is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_with_capacity`](Self::try_with_capacity), and if the budget refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::{Full, LocalSlab}};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let mut slab = LocalSlab::try_with_capacity_in(2, &budget)?;
    /// assert_eq!(budget.usage().used, 2 * LocalSlab::<char>::ENTRY_BYTES);
    /// slab.try_insert('a').expect("there is room");
    /// slab.try_insert('b').expect("there is room");
    /// assert_eq!(slab.try_insert('c'), Err(Full('c')));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_with_capacity_in(capacity: usize, budget: &Budget) -> Result<Self, AllocationError> {
        Self::planned(capacity, Some(budget))
    }

    fn planned(capacity: usize, budget: Option<&Budget>) -> Result<Self, AllocationError> {
        if capacity > MOST {
            return Err(AllocationError::capacity_overflow(COMPONENT, capacity, Self::ENTRY_BYTES));
        }
        let plan = Plan { component: COMPONENT, beside: 0, budget };
        let (entries, charge) = plan.room(capacity)?;
        Ok(Self { entries, charge, limit: capacity, ..Self::new() })
    }

    /// Makes room for `additional` more values. Inserting them does not allocate.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the slab's limit, its budget or the heap has no room for them. Nothing is changed.
    pub fn try_reserve(&mut self, additional: usize) -> Result<(), AllocationError> {
        let too_many = AllocationError::capacity_overflow(COMPONENT, additional, Self::ENTRY_BYTES);
        let wanted = self.len.checked_add(additional).ok_or(too_many)?;
        if wanted > self.limit {
            let left = (self.limit - self.len).saturating_mul(Self::ENTRY_BYTES);
            let bytes = additional.saturating_mul(Self::ENTRY_BYTES);
            return Err(AllocationError::exhausted(COMPONENT, bytes, Some(left)));
        }
        let needed = wanted.saturating_add(self.retired);
        if needed > self.entries.capacity() {
            self.grow_to(needed)?;
        }
        Ok(())
    }

    /// Makes room for at least `needed` entries, twice as many as before if it can be.
    #[cold]
    fn grow_to(&mut self, needed: usize) -> Result<(), AllocationError> {
        let too_many = AllocationError::capacity_overflow(COMPONENT, needed, Self::ENTRY_BYTES);
        if needed > MOST {
            return Err(too_many);
        }
        let before = self.entries.capacity();
        let most = self.limit.saturating_add(self.retired).min(MOST);
        let entries = needed.max((2 * before).max(FIRST).min(most));
        let bytes =
            (entries - before).checked_mul(Self::ENTRY_BYTES).filter(|bytes| *bytes <= MAX_BYTES);
        let bytes = bytes.ok_or(too_many)?;
        if let Some(charge) = &mut self.charge {
            charge.try_grow(bytes)?;
        }
        self.entries.try_reserve_exact(entries - self.entries.len()).map_err(|_| {
            if let Some(charge) = &mut self.charge {
                charge.shrink(bytes);
            }
            AllocationError::exhausted(COMPONENT, bytes, None)
        })
    }

    /// Adds a vacant entry, and puts it at the head of the list, which is empty.
    fn add_entry(&mut self) -> Result<(), AllocationError> {
        self.try_reserve(1)?;
        let index = u32::try_from(self.entries.len()).expect("no more than the most entries");
        self.entries.push(Entry::vacant(NONE));
        self.vacant = index;
        Ok(())
    }

    /// Returns a vacant entry, whose [`handle`](VacantEntry::handle) is known before its value.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the slab has as many values as it may, or if its budget or the heap has no room.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::{Handle, LocalSlab};
    ///
    /// struct Node {
    ///     parent: Handle,
    /// }
    /// let mut nodes = LocalSlab::new();
    /// let root = nodes.vacant()?;
    /// // The root is its own parent.
    /// let handle = root.handle();
    /// root.insert(Node { parent: handle });
    /// assert_eq!(nodes[handle].parent, handle);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn vacant(&mut self) -> Result<VacantEntry<'_, T>, AllocationError> {
        if self.vacant == NONE {
            self.add_entry()?;
        }
        Ok(VacantEntry { slab: self })
    }

    /// Inserts a value, and returns its handle.
    ///
    /// # Panics
    ///
    /// If there is no room; see [`try_insert`](Self::try_insert).
    ///
    /// # Complexity
    ///
    /// Constant; amortised while the slab grows, as all values move then.
    #[inline]
    pub fn insert(&mut self, value: T) -> Handle {
        self.try_insert(value).expect("room in the slab")
    }

    /// Inserts a value, and returns its handle.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, if the slab has as many values as it may, or if its budget or the heap has no room.
    /// [`vacant`](Self::vacant) tells which of them.
    #[inline]
    pub fn try_insert(&mut self, value: T) -> Result<Handle, Full<T>> {
        if self.vacant == NONE {
            return self.insert_into_new(value);
        }
        let handle = self.next_handle();
        self.fill(value);
        Ok(handle)
    }

    #[cold]
    #[inline(never)]
    fn insert_into_new(&mut self, value: T) -> Result<Handle, Full<T>> {
        if self.add_entry().is_err() {
            return Err(Full(value));
        }
        let handle = self.next_handle();
        self.fill(value);
        Ok(handle)
    }

    /// Returns the handle of the next value. There is a vacant entry.
    #[inline(always)]
    fn next_handle(&self) -> Handle {
        Handle::new(self.vacant, self.entries[self.vacant as usize].odd_generation())
    }

    /// Puts a value into the first vacant entry, which there is.
    #[inline(always)]
    fn fill(&mut self, value: T) -> &mut Entry<T> {
        let entry = &mut self.entries[self.vacant as usize];
        self.vacant = entry.fill(value);
        self.len += 1;
        entry
    }

    /// Removes and returns a value. `None` if it was removed before.
    ///
    /// # Complexity
    ///
    /// Constant.
    #[inline]
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let entry = self.entries.get_mut(handle.index())?;
        let value = entry.take(handle, self.vacant)?;
        self.len -= 1;
        if entry.is_spent() {
            self.retired += 1;
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "it was 32 bits")]
            let index = handle.index() as u32;
            self.vacant = index;
        }
        Some(value)
    }

    /// Returns a value. `None` if it was removed.
    ///
    /// # Complexity
    ///
    /// Constant.
    #[must_use]
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        self.entries.get(handle.index())?.get(handle)
    }

    /// Returns a value, to change it. `None` if it was removed.
    ///
    /// # Complexity
    ///
    /// Constant.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        self.entries.get_mut(handle.index())?.get_mut(handle)
    }

    /// Returns whether the value of a handle has not been removed.
    #[must_use]
    #[inline]
    pub fn contains(&self, handle: Handle) -> bool {
        self.get(handle).is_some()
    }

    /// Returns the number of values.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no values.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of values that the slab has room for without allocating.
    #[must_use]
    pub fn capacity(&self) -> usize {
        (self.entries.capacity() - self.retired).min(self.limit)
    }

    /// Returns an iterator over all values with their handles, in the order of their indices.
    ///
    /// # Complexity
    ///
    /// Passes over vacant entries too: linear in the most values that there were at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::LocalSlab;
    ///
    /// let mut slab = LocalSlab::new();
    /// let [a, b, c] = ["a", "b", "c"].map(|value| slab.insert(value));
    /// slab.remove(b);
    /// assert!(slab.iter().eq([(a, &"a"), (c, &"c")]));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        let values = (0..).zip(&self.entries).filter_map(|(index, entry)| {
            Some((Handle::new(index, entry.odd_generation()), entry.value()?))
        });
        values.take(self.len)
    }

    /// Like [`iter`](Self::iter), to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut T)> {
        let values = (0..).zip(&mut self.entries).filter_map(|(index, entry)| {
            Some((Handle::new(index, entry.odd_generation()), entry.value_mut()?))
        });
        values.take(self.len)
    }

    /// Removes all values, and returns an iterator over them. When the iterator is dropped, it drops the values that it
    /// has not returned.
    pub fn drain(&mut self) -> impl Iterator<Item = (Handle, T)> {
        Drain { at: 0, slab: self }
    }

    /// Removes each value for which `keep` returns `false`. If `keep` or a drop panics, the values that were not looked
    /// at stay.
    ///
    /// # Complexity
    ///
    /// As [`iter`](Self::iter).
    pub fn retain(&mut self, mut keep: impl FnMut(Handle, &mut T) -> bool) {
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            let Some(handle) = handle_at(index, entry) else { continue };
            if entry.value_mut().is_some_and(|value| !keep(handle, value)) {
                self.remove(handle);
            }
        }
    }

    /// Removes and drops all values. Keeps the entries. If a drop panics, the others are still dropped.
    pub fn clear(&mut self) {
        drop(Drain { at: 0, slab: self });
    }
}

/// Returns the handle of the value in an entry, if there is one.
#[inline(always)]
fn handle_at<T>(index: usize, entry: &Entry<T>) -> Option<Handle> {
    #[expect(clippy::cast_possible_truncation, reason = "no more than the most entries")]
    let index = index as u32;
    entry.value().map(|_| Handle::new(index, entry.odd_generation()))
}

/// The most bytes of an object.
const MAX_BYTES: usize = isize::MAX as usize;

/// Removes one value after the other.
struct Drain<'a, T> {
    at: usize,
    slab: &'a mut LocalSlab<T>,
}

impl<T> Iterator for Drain<'_, T> {
    type Item = (Handle, T);

    fn next(&mut self) -> Option<(Handle, T)> {
        while let Some(entry) = self.slab.entries.get(self.at).filter(|_| self.slab.len > 0) {
            let handle = handle_at(self.at, entry);
            self.at += 1;
            if let Some(handle) = handle {
                return self.slab.remove(handle).map(|value| (handle, value));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.slab.len, Some(self.slab.len))
    }
}

impl<T> Drop for Drain<'_, T> {
    fn drop(&mut self) {
        /// Goes on after a panic.
        struct Rest<'a, 'd, T>(&'a mut Drain<'d, T>);
        impl<T> Drop for Rest<'_, '_, T> {
            fn drop(&mut self) {
                while self.0.next().is_some() {}
            }
        }
        let rest = Rest(self);
        while rest.0.next().is_some() {}
        mem::forget(rest);
    }
}

/// A vacant entry of a [`LocalSlab`], from [`vacant`](LocalSlab::vacant). If it is dropped, the entry stays vacant.
pub struct VacantEntry<'a, T> {
    /// # Invariants
    ///
    /// There is a vacant entry.
    slab: &'a mut LocalSlab<T>,
}

impl<'a, T> VacantEntry<'a, T> {
    /// Returns the handle that the value will have.
    #[must_use]
    #[inline]
    pub fn handle(&self) -> Handle {
        self.slab.next_handle()
    }

    /// Inserts the value.
    ///
    /// # Panics
    ///
    /// Never: the entry is vacant.
    #[inline]
    pub fn insert(self, value: T) -> &'a mut T {
        self.slab.fill(value).value_mut().expect("filled above")
    }
}

impl<T> fmt::Debug for VacantEntry<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VacantEntry").field("handle", &self.handle()).finish_non_exhaustive()
    }
}

impl<T> Default for LocalSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> core::ops::Index<Handle> for LocalSlab<T> {
    type Output = T;

    /// Returns a value.
    ///
    /// # Panics
    ///
    /// If the value was removed.
    #[inline]
    fn index(&self, handle: Handle) -> &T {
        self.get(handle).expect("a value of the slab")
    }
}

impl<T> core::ops::IndexMut<Handle> for LocalSlab<T> {
    #[inline]
    fn index_mut(&mut self, handle: Handle) -> &mut T {
        self.get_mut(handle).expect("a value of the slab")
    }
}

impl<T> fmt::Debug for LocalSlab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSlab")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
