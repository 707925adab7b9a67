//! The free indices that each thread keeps. While the *gate* is open, each thread uses its own indices without a lock.
//! The *closer* is a thread that closes the gate, and takes the indices of all threads.
//!
//! ```text
//!   word of a thread   │ generation (56 bits) │ inside (1) │ count (7) │     items: the oldest first
//!
//!   a thread                             the closer, which has the lock of the depot
//!   word = word | inside                 generation = generation + 1
//!   light barrier                        heavy barrier
//!   generation as in the word?           waits until no word is inside
//!     yes: takes or puts an item         takes the items of all words of the previous generation
//!     no: leaves, and takes the lock
//!   word = word with the new count
//! ```
//!
//! This is T. Dekker's protocol for two parties, as E. W. Dijkstra describes it (*Cooperating sequential processes*,
//! 1965): each writes its own word, and then reads the word of the other. At least one of them sees the other's write,
//! if each executes a full barrier between its write and its read. That barrier would cost a thread more than the rest
//! of its operation. So where the kernel can execute a barrier on all threads ([`barrier`]), the closer executes it for
//! both: the light barrier of a thread only keeps the compiler from reordering. Elsewhere both barriers are
//! sequentially consistent fences.
//!
//! A word of an old generation is ignored, because its items were taken. So the closer never writes to a word. A thread that
//! was stopped before it entered may still store its old word, which has no effect. The thread starts a word of the new
//! generation once it has the lock.
//!
//! A thread enters and leaves without waiting. The closer waits for threads that are inside, which execute a few
//! instructions there.
#![forbid(unsafe_code)]

use super::links::Item;
use crate::{
    advanced::lockfree::memory::Plan,
    core::AllocationError,
    syscalls::barrier,
    utils::sync::{AtomicU32, AtomicU64, Ordering, fence, yield_now},
};
use alloc::boxed::Box;
use core::sync::atomic::compiler_fence;
use crossbeam_utils::CachePadded;

/// The threads that keep indices. The others take the lock.
pub(super) const CACHES: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// The most indices that a thread keeps.
pub(super) const ROOM: usize = if cfg!(any(loom, miri)) { 4 } else { 64 };

/// The bytes of one [`Cache`], with padding.
pub(super) const CACHE_BYTES: usize = size_of::<CachePadded<Cache>>();

/// The mask of the count in a word.
const COUNT: u64 = INSIDE - 1;

/// Set in a word while its thread is inside.
const INSIDE: u64 = 1 << 7;

/// The lowest bit of the generation.
const GENERATION: u32 = 8;

const _: () = assert!(ROOM as u64 <= COUNT);

pub(super) struct Caches {
    /// The current generation. Words of others are ignored.
    generation: AtomicU64,
    /// Whether `close` executes a barrier on all threads, so that `inside` needs none.
    is_asymmetric: bool,
    /// The most items that one thread keeps.
    most: u64,
    all: Box<[CachePadded<Cache>]>,
}

/// The indices that one thread keeps.
pub(super) struct Cache {
    /// Written by the thread with one number only.
    word: AtomicU64,
    /// Written by that thread, while it is inside or has the lock, and read by it and by the closer.
    ///
    /// Relaxed: the word orders them.
    items: [AtomicU32; ROOM],
}

impl Caches {
    /// Makes `count` caches, of at most `most` items each.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the heap is exhausted.
    pub(super) fn new(plan: Plan<'_>, count: usize, most: usize) -> Result<Self, AllocationError> {
        let cache = |_| {
            let items = core::array::from_fn(|_| AtomicU32::new(0));
            CachePadded::new(Cache { word: AtomicU64::new(0), items })
        };
        let (all, _) = Plan { beside: 0, budget: None, ..plan }.slots(count, cache)?;
        Ok(Self {
            generation: AtomicU64::new(0),
            is_asymmetric: barrier::prepare(),
            most: most.min(ROOM) as u64,
            all,
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Enters, calls `change` if the word is of the current generation, and leaves. `change` returns a result and the
    /// new word. Returns the result, or `None` if the word is of an old generation.
    #[inline(always)]
    fn inside<R>(&self, cache: &Cache, word: u64, change: impl FnOnce() -> (R, u64)) -> Option<R> {
        cache.word.store(word | INSIDE, Ordering::Relaxed);
        if self.is_asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: pairs with the fence of `close`.
            fence(Ordering::SeqCst);
        }
        // Relaxed: the thread uses only items that it stored itself in this generation, which it began under the lock.
        let is_open = self.generation.load(Ordering::Relaxed) == word >> GENERATION;
        let (result, after) = if is_open {
            let (result, after) = change();
            (Some(result), after)
        } else {
            (None, word)
        };
        // Release: pairs with the acquire of `close`, so that the items are seen.
        cache.word.store(after, Ordering::Release);
        result
    }

    /// Takes the item that the thread with a number has put last. `None` if it keeps none, or if the gate was closed.
    #[inline(always)]
    pub(super) fn take(&self, thread: usize) -> Option<Item> {
        let cache = self.all.get(thread)?;
        let word = cache.word.load(Ordering::Relaxed);
        if word & COUNT == 0 {
            return None;
        }
        self.inside(cache, word, || (cache.item((word & COUNT) - 1), word - 1))?
    }

    /// Puts an item. Returns `false` if the thread with this number keeps as many as it may, or if the gate was closed.
    #[inline(always)]
    pub(super) fn put(&self, thread: usize, item: Item) -> bool {
        let Some(cache) = self.all.get(thread) else { return false };
        let word = cache.word.load(Ordering::Relaxed);
        if word & COUNT >= self.most {
            return false;
        }
        let put = || {
            cache.set(word & COUNT, item);
            ((), word + 1)
        };
        self.inside(cache, word, put).is_some()
    }

    /// Returns what the calling thread keeps, whose number is `thread`: nothing, if the gate was closed since. The thread has
    /// the lock of the depot.
    pub(super) fn own(&self, thread: usize) -> Option<Own<'_>> {
        let cache = self.all.get(thread)?;
        let generation = self.generation.load(Ordering::Relaxed);
        if cache.word.load(Ordering::Relaxed) >> GENERATION != generation {
            // Relaxed: the next closer has the same lock, so it sees this store and all stores of `Own`.
            cache.word.store(generation << GENERATION, Ordering::Relaxed);
        }
        Some(Own { cache, most: self.most })
    }

    /// Closes the gate. Returns an iterator over the items of all threads, which waits for each thread that is still inside.
    /// An item that it returns is the caller's. The caller has the lock of the depot until the end of the iterator. Returns
    /// `None`, and leaves the gate open, if the kernel no longer executes barriers.
    #[cold]
    pub(super) fn close(&self) -> Option<impl Iterator<Item = Item>> {
        let before = self.generation.load(Ordering::Relaxed);
        self.generation.store(before + 1, Ordering::Relaxed);
        // SeqCst: pairs with the barrier of `inside`. Each thread that enters later sees the generation, and each that has
        // entered before is seen here.
        fence(Ordering::SeqCst);
        if self.is_asymmetric && !barrier::on_all_threads() {
            self.generation.store(before, Ordering::Relaxed);
            return None;
        }
        Some(self.all.iter().flat_map(move |cache| {
            let word = loop {
                // Acquire: pairs with the release of `inside`, so that the items are seen.
                let word = cache.word.load(Ordering::Acquire);
                if word & INSIDE == 0 {
                    break word;
                }
                yield_now();
            };
            let count = if word >> GENERATION == before { word & COUNT } else { 0 };
            (0..count).filter_map(|at| cache.item(at))
        }))
    }
}

impl Cache {
    #[inline(always)]
    fn place(&self, at: u64) -> &AtomicU32 {
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let at = at as usize;
        // It is below `ROOM`: the remainder spares the check of the bounds.
        &self.items[at % ROOM]
    }

    #[inline(always)]
    fn item(&self, at: u64) -> Option<Item> {
        Item::new(self.place(at).load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set(&self, at: u64, item: Item) {
        self.place(at).store(item.get(), Ordering::Relaxed);
    }
}

/// The indices that the calling thread keeps, while it has the lock of the depot.
pub(super) struct Own<'c> {
    cache: &'c Cache,
    most: u64,
}

impl Own<'_> {
    fn count(&self) -> u64 {
        self.cache.word.load(Ordering::Relaxed) & COUNT
    }

    fn add(&self, change: i64) {
        let word = self.cache.word.load(Ordering::Relaxed);
        self.cache.word.store(word.wrapping_add_signed(change), Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Option<Item> {
        let item = self.cache.item(self.count().checked_sub(1)?);
        self.add(-1);
        item
    }

    /// Puts an item. Returns `false` if there is no room.
    pub(super) fn put(&self, item: Item) -> bool {
        let count = self.count();
        if count >= self.most {
            return false;
        }
        self.cache.set(count, item);
        self.add(1);
        true
    }

    /// Removes the `most` items that were put first, or all if there are fewer, and calls `each` with each of them.
    pub(super) fn take_oldest(&self, most: usize, mut each: impl FnMut(Item)) {
        let (count, taken) = (self.count(), self.count().min(most as u64));
        (0..taken).filter_map(|at| self.cache.item(at)).for_each(&mut each);
        for at in taken..count {
            if let Some(item) = self.cache.item(at) {
                self.cache.set(at - taken, item);
            }
        }
        self.add(-taken.cast_signed());
    }
}
