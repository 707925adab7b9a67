//! A context's figures while its children end on other threads.

use nebula_memory::{allocator::ContextAllocator, integration::traits::Context};
use std::{
    alloc::System,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

#[global_allocator]
static HEAP: ContextAllocator<System> = ContextAllocator::new(System);

/// The children. A look adds up the figures of all of them, and a child that ends waits for a look that runs.
const MANY: usize = if cfg!(miri) { 20 } else { 2_000 };
const BYTES: usize = 4096;

/// Drops both halves of `contexts` on two threads, while a third one calls `look` again and again.
fn end_while(mut contexts: Vec<Context>, look: impl Fn() + Sync) {
    let right = contexts.split_off(contexts.len() / 2);
    let are_gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = [contexts, right].map(|half| scope.spawn(move || drop(half)));
        let looker = scope.spawn(|| {
            while !are_gone.load(Relaxed) {
                look();
            }
        });
        let ended = workers.map(|worker| worker.join().is_ok());
        are_gone.store(true, Relaxed);
        looker.join().unwrap();
        assert_eq!(ended, [true; 2]);
    });
    look();
}

/// Makes many children with a block each. Returns the blocks and the children.
fn children(root: &Context) -> (Vec<Box<[u8; BYTES]>>, Vec<Context>) {
    let children = (0..MANY).map(|_| {
        let child = root.child("child").build();
        (child.run(|| Box::new([0_u8; BYTES])), child)
    });
    children.unzip()
}

/// Blocks that outlive their contexts are counted in the parent at each moment.
#[test]
fn usage_is_exact_while_children_end() {
    let root = Context::root("root").build();
    let (mut kept, contexts) = children(&root);
    end_while(contexts, || assert_eq!(root.usage().used, MANY * BYTES));
    let half = kept.split_off(MANY / 2);
    drop(half);
    assert_eq!(root.usage().used, MANY / 2 * BYTES);
    drop(kept);
    assert_eq!((root.usage().used, root.allocated_bytes()), (0, MANY * BYTES));
}

/// The same for grandchildren, whose parents end with them.
#[test]
fn usage_is_exact_while_families_end() {
    let root = Context::root("root").build();
    let (mut kept, mut contexts) = (Vec::new(), Vec::new());
    for _ in 0..MANY / 4 {
        let request = root.child("request").build();
        for _ in 0..3 {
            let step = request.child("step").build();
            kept.push(step.run(|| Box::new([0_u8; BYTES])));
            contexts.push(step);
        }
        kept.push(request.run(|| Box::new([0_u8; BYTES])));
    }
    end_while(contexts, || assert_eq!(root.usage().used, MANY / 4 * 4 * BYTES));
    drop(kept);
    assert_eq!(root.usage().used, 0);
}

/// Blocks are freed while their contexts end: the sum falls and never rises.
#[test]
fn usage_falls_steadily_while_blocks_are_freed() {
    let root = Context::root("root").build();
    let (kept, contexts) = children(&root);
    thread::scope(|scope| {
        let freed = scope.spawn(move || drop(kept));
        let ended = scope.spawn(move || drop(contexts));
        let mut last = root.usage().used;
        while !(freed.is_finished() && ended.is_finished()) {
            let used = root.usage().used;
            assert!(used <= last, "{used} after {last}");
            last = used;
        }
    });
    assert_eq!(root.usage().used, 0);
}
