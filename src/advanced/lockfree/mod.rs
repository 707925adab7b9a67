//! Queues, stacks, slabs and a free list. Their memory can be charged to a budget. All but [`LocalSlab`] are for
//! several threads.
//!
//! ```text
//!   Queue<T>      many producers ──►  ┌──┬──┬──┬──┐  ──► many consumers    any values; batches
//!   IndexQueue    many producers ──►  │  │  │  │  │  ──► many consumers    indices of an array; never blocks
//!   ring::<T>     one Producer   ──►  └──┴──┴──┴──┘  ──► one Consumer      any values; batches in place
//!   Stack<T>      many threads   ◄─►  the latest value first               any values; batches
//! ```
//!
//! | | progress | a push | a pop | bytes per slot |
//! |---|---|---|---|---|
//! | [`Queue`] | blocking at the slot | 1 compare-and-swap | 1 compare-and-swap | value + 8 |
//! | [`IndexQueue`] | lock-free | 2 compare-and-swaps | 1 compare-and-swap | 8 |
//! | [`ring()`] | wait-free | 1 store | 1 store | value |
//! | [`Stack`] | lock-free | 2 compare-and-swaps | 2 compare-and-swaps | value + 4 |
//! | [`FreeList`] | wait-free while the thread has indices of its own, else a lock | loads and stores; a lock once in 32 | like a push | 4 |
//!
//! *Wait-free*: each operation ends after a bounded number of its own steps. *Lock-free*: at least one of the running
//! operations always ends, even if other threads stop for ever. *Blocking at the slot*: a thread that stops in the
//! middle of an operation holds up the threads that reach its slot.
//!
//! The memory of the structures in the table is allocated when they are created. It is charged to the budget that is
//! passed to them. A full structure refuses a value and returns it.
//!
//! An [`UnboundedStack`] allocates a node for each value, and charges it until it is freed.
//!
//! A [`WeightedQueue`] is bounded by the bytes that its values own, as well as by their number. It takes the locks of
//! the ledger. It is the only structure here whose functions can wait for room and for values.
//!
//! A [`FreeList`] has the free indices of an array, in no order: [`give`](FreeList::give) is its push and
//! [`take`](FreeList::take) its pop. Each thread keeps some of them, and a thread that finds none takes those of others.
//!
//! A [`LocalSlab`] and a [`Slab`] have values in numbered slots, which are found by a [`Handle`] and removed in any order.
//! They grow, and are charged when they do. A reader of an [`EpochSlab`] writes nothing that other threads read; in
//! return, a removed value is dropped later.
//!
//! Your code, such as the drop of a value, runs after an operation has taken effect, and outside of locks. So a panic
//! loses no other value and leaves no slot unusable. Values of an `EpochSlab` may be dropped in operations of any
//! `EpochSlab` or `UnboundedStack`.
//!
//! # When not to use it
//!
//! Only a [`WeightedQueue`] wakes threads. A thread that has nothing else to do while a queue is empty should use a
//! channel or a `WeightedQueue`. No queue grows. An `UnboundedStack` frees the memory of popped values later, and an
//! `EpochSlab` drops removed values later.

mod backoff;
pub(crate) mod blocks;
mod free_list;
mod full;
mod garbage;
mod index_queue;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod order;
mod queue;
mod ring;
mod slab;
mod stack;
pub(crate) mod tagged;
mod weighted;

pub use self::{
    free_list::FreeList,
    full::Full,
    index_queue::IndexQueue,
    queue::Queue,
    ring::{Consumer, Producer, ring, try_ring, try_ring_in},
    slab::{
        EpochSlab, Handle, LocalSlab, OwnedSlabGuard, Slab, SlabGuard, SlabReader, VacantEntry,
    },
    stack::{PopAll, Stack, UnboundedStack},
    weighted::{PushError, WeightedQueue, WeightedQueueOptions},
};
