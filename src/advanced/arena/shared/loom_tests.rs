//! Tests of leases in every interleaving of threads. Every use of a cursor touches
//! [`Alone`](crate::utils::sync::Alone), which the model checker follows. Two uses without an order
//! between them fail the test.

use super::{
    raw::RawShared,
    thread::{Cache, Life, retire},
};
use crate::{
    advanced::arena::chunk::{charge::Charge, sizing::Growth},
    allocator::{SystemAllocator, bump::Down},
    core::AllocationError,
};
use core::{alloc::Layout, ptr::NonNull};
use loom::thread;
use std::{sync::Arc, vec::Vec};

type Shared = RawShared<SystemAllocator, Down, 8>;

fn shared(max_bytes: usize) -> Shared {
    let growth = Growth::new(128, 256, Some(max_bytes));
    Shared::new(growth, Charge::nobody(), SystemAllocator)
}

/// Takes the place of a thread. Its drop does the same as the thread-local destructor.
struct Worker {
    cache: Cache,
    life: Arc<Life>,
}

impl Worker {
    fn new() -> Self {
        Self { cache: Cache::new(), life: Arc::new(Life::new()) }
    }

    /// Allocates a block, to which this thread writes.
    fn alloc(&self, arena: &Shared, mark: u64) -> Result<NonNull<u64>, AllocationError> {
        let block = arena.alloc_for(&self.cache, &self.life, Layout::new::<u64>())?.cast();
        // SAFETY: the block is for a `u64`.
        unsafe { block.write(mark) };
        Ok(block)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        retire(Some(&self.cache), &self.life);
    }
}

/// Checks that every block still has its mark. Blocks are passed on as addresses of memory that
/// stays.
fn check(blocks: &[(usize, u64)]) {
    for (address, mark) in blocks {
        // SAFETY: the arena is alive, and the thread that wrote the mark was joined.
        assert_eq!(unsafe { NonNull::new(*address as *mut u64).unwrap().read() }, *mark);
    }
}

fn allocate(arena: &Shared, marks: &[u64]) -> Vec<(usize, u64)> {
    let worker = Worker::new();
    let blocks = marks.iter().map(|mark| (worker.alloc(arena, *mark), *mark));
    blocks.filter_map(|(block, mark)| Some((block.ok()?.expose_provenance().get(), mark))).collect()
}

/// A thread ends while another begins. The second gets a lease of its own or takes over the
/// first's, and never uses that lease at the same time as the first.
#[test]
fn a_lease_is_taken_over_after_its_owner_has_ended_and_not_before() {
    loom::model(|| {
        let arena = Arc::new(shared(1 << 12));
        let first = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || allocate(&arena, &[1, 2]))
        };
        let mut blocks = allocate(&arena, &[3, 4]);
        blocks.extend(first.join().unwrap());
        blocks.extend(allocate(&arena, &[5]));
        assert_eq!(blocks.len(), 5);
        check(&blocks);
        assert!(arena.held() <= 256, "the third found what one of the two left");
    });
}

/// If there is no more memory, the free bytes of threads that have ended are gathered, but not
/// those of a live thread.
#[test]
fn only_free_bytes_of_ended_threads_are_gathered() {
    loom::model(|| {
        let arena = Arc::new(shared(256));
        let first = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || allocate(&arena, &[1]))
        };
        let worker = Worker::new();
        let large = Layout::new::<[u64; 8]>();
        let mut blocks = Vec::new();
        if let Ok(block) = worker.alloc(&arena, 2) {
            blocks.push((block.expose_provenance().get(), 2));
        }
        for mark in 3..5 {
            if let Ok(block) = arena.alloc_for(&worker.cache, &worker.life, large) {
                // SAFETY: the block is longer than a `u64`.
                unsafe { block.cast::<u64>().write(mark) };
                blocks.push((block.expose_provenance().get(), mark));
            }
        }
        blocks.extend(first.join().unwrap());
        check(&blocks);
        assert!(arena.held() <= 256);
    });
}

/// Two threads that outlive a trim do not find the leases that the trim has ended, and can use new
/// ones.
#[test]
fn no_lease_survives_a_trim() {
    loom::model(|| {
        let mut arena = Arc::new(shared(1 << 12));
        let mut worker = Worker::new();
        for round in 0..2 {
            let other = {
                let arena = Arc::clone(&arena);
                thread::spawn(move || {
                    let block = worker.alloc(&arena, round).unwrap().expose_provenance().get();
                    drop(arena);
                    (worker, (block, round))
                })
            };
            let mut blocks = allocate(&arena, &[7]);
            let (back, block) = other.join().unwrap();
            worker = back;
            blocks.push(block);
            check(&blocks);
            let arena = Arc::get_mut(&mut arena).unwrap();
            let held = arena.held();
            assert_eq!(arena.trim(usize::MAX * (round & 1) as usize), held * (1 - round as usize));
        }
    });
}

/// Claims keep the limit exactly, even if threads make chunks at the same time.
#[test]
fn the_maximum_is_exact() {
    loom::model(|| {
        let arena = Arc::new(shared(192));
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || allocate(&arena, &[1]).len())
        };
        let own = allocate(&arena, &[2]).len();
        assert!(arena.held() <= 192);
        assert!(own + other.join().unwrap() >= 1);
        assert!(arena.peak() <= 192);
    });
}
