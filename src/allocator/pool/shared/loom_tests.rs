//! Models: two threads never have the same block at once, and a cache passes to another thread as a
//! whole.

use super::SharedBlockPool;
use crate::{allocator::BlockPool, utils::thread_number::Numbers};
use core::ptr::NonNull;
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex},
    thread,
};

/// The value in a block. The model checker sees which thread uses it when.
type Watched = UnsafeCell<u32>;

fn pool() -> SharedBlockPool {
    BlockPool::for_type::<Watched>().first_slab_blocks(2).build_shared().unwrap()
}

fn take(pool: &SharedBlockPool, slot: usize, mark: u32) -> NonNull<Watched> {
    let block = pool.take(slot).unwrap().cast::<Watched>();
    // SAFETY: a new block, of the size and the alignment of the value.
    unsafe { block.write(UnsafeCell::new(mark)) };
    block
}

/// # Safety
///
/// `take` returned `block`, and the block is this thread's.
unsafe fn free(pool: &SharedBlockPool, slot: usize, block: NonNull<Watched>, mark: u32) {
    // SAFETY: `take` wrote it.
    let watched = unsafe { block.as_ref() };
    watched.with_mut(|value| {
        // SAFETY: no other thread uses the value: the model checker would report it.
        let value = unsafe { *value };
        assert_eq!(value, mark, "another thread had it too");
    });
    // SAFETY: it is in use until here.
    unsafe { block.drop_in_place() };
    // SAFETY: taken from this pool, and freed once.
    unsafe { pool.free(slot, block.cast()) };
}

#[test]
fn blocks_are_one_threads_at_a_time() {
    loom::model(|| {
        let pool = Arc::new(pool());
        let work = |slot: usize, mark: u32| {
            let pool = Arc::clone(&pool);
            move || {
                let blocks = [take(&pool, slot, mark), take(&pool, slot, mark + 1)];
                for (block, mark) in blocks.into_iter().zip(mark..) {
                    // SAFETY: taken above.
                    unsafe { free(&pool, slot, block, mark) };
                }
                let block = take(&pool, slot, mark);
                // SAFETY: as above.
                unsafe { free(&pool, slot, block, mark) };
            }
        };
        // One thread has a cache, the other has none.
        let (first, second) = (work(0, 10), work(usize::MAX, 20));
        let first = thread::spawn(first);
        second();
        first.join().unwrap();
    });
}

/// Both threads find the depot empty and request a slab. One of them may have to give its slab
/// back.
#[test]
fn threads_that_grow_at_once_have_blocks_of_their_own_up_to_the_maximum() {
    loom::model(|| {
        let options = BlockPool::for_type::<Watched>().first_slab_blocks(2).max_blocks(2);
        let pool = Arc::new(options.build_shared().unwrap());
        let theirs = Arc::clone(&pool);
        let thread = thread::spawn(move || {
            let block = take(&theirs, usize::MAX, 1);
            // SAFETY: taken above.
            unsafe { free(&theirs, usize::MAX, block, 1) };
        });
        let own = take(&pool, usize::MAX, 2);
        thread.join().unwrap();
        let other = take(&pool, usize::MAX, 3);
        assert!(pool.take(usize::MAX).is_err(), "there are two and no more");
        for (block, mark) in [(own, 2), (other, 3)] {
            // SAFETY: taken above.
            unsafe { free(&pool, usize::MAX, block, mark) };
        }
        assert_eq!(pool.held_bytes(), 2 * pool.block_layout().size() + 16);
    });
}

#[test]
fn a_block_is_freed_by_another_thread() {
    struct Sent(NonNull<Watched>);
    // SAFETY: a block is no thread's own.
    unsafe impl Send for Sent {}

    loom::model(|| {
        let pool = Arc::new(pool());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (theirs, to) = (Arc::clone(&pool), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            for mark in 0..2 {
                let block = take(&theirs, 1, mark);
                to.lock().unwrap().push((Sent(block), mark));
            }
        });
        for mark in 5..7 {
            while let Some((Sent(block), mark)) = { sent.lock().unwrap().pop() } {
                // SAFETY: taken by the other thread, which sent it here.
                unsafe { free(&pool, 0, block, mark) };
            }
            let block = take(&pool, 0, mark);
            // SAFETY: taken above.
            unsafe { free(&pool, 0, block, mark) };
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_number_is_one_threads_at_a_time_and_its_cache_goes_with_it() {
    loom::model(|| {
        let shared = Arc::new((pool(), Numbers::new()));
        let work = |mark: u32| {
            let shared = Arc::clone(&shared);
            move || {
                let (pool, slots) = &*shared;
                let lease = slots.lease();
                let block = take(pool, lease.number(), mark);
                // SAFETY: taken above.
                unsafe { free(pool, lease.number(), block, mark) };
            }
        };
        let (first, second) = (work(1), work(2));
        let first = thread::spawn(first);
        second();
        first.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_sees_two_threads_with_one_number() {
    loom::model(|| {
        let pool = Arc::new(pool());
        let theirs = Arc::clone(&pool);
        let work = |pool: &SharedBlockPool, mark: u32| {
            let block = take(pool, 0, mark);
            // SAFETY: taken above.
            unsafe { free(pool, 0, block, mark) };
        };
        let thread = thread::spawn(move || work(&theirs, 1));
        work(&pool, 2);
        thread.join().unwrap();
    });
}
