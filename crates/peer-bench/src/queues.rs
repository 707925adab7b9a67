//! Values that pass from thread to thread: q1 to q6 by a queue for many threads, o1 to o4 by a stack, y1 to y3 by a ring
//! for two threads. x1 and x2 take free indices and return them, by a free list, a stack or a queue.
//!
//! The time of several threads is that from the first start to the last end, for each value. A thread that finds a queue
//! full or empty pauses, and yields after 64 attempts, with every subject alike.

use crate::harness::{Bench, Target};
use nebula_memory::lockfree::{
    Consumer, FreeList, IndexQueue, Producer, Queue, Stack, UnboundedStack, ring,
};
use ringbuf::traits::{Consumer as _, Producer as _, Split as _};
use std::{
    collections::VecDeque,
    hint::{black_box, spin_loop},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The room in each queue.
const ROOM: usize = 1024;

/// The values that a body passes.
const MANY: usize = 100_000;

/// The values in one batch.
const BATCH: usize = 32;

/// Runs all tasks, each on a thread of its own. Returns the time from the first start to the last end.
pub fn together<'a>(tasks: Vec<Box<dyn FnOnce() + Send + 'a>>) -> Duration {
    let (ready, count) = (AtomicUsize::new(0), tasks.len());
    let timed = |task: Box<dyn FnOnce() + Send + 'a>| {
        ready.fetch_add(1, Ordering::Relaxed);
        wait_until(|| ready.load(Ordering::Relaxed) == count);
        let start = Instant::now();
        task();
        (start, Instant::now())
    };
    thread::scope(|scope| {
        let timed = &timed;
        let mut tasks = tasks.into_iter();
        let own = tasks.next().expect("a task");
        let others: Vec<_> = tasks.map(|task| scope.spawn(move || timed(task))).collect();
        let mut spans = vec![timed(own)];
        spans.extend(others.into_iter().map(|other| other.join().expect("no panic")));
        let start = spans.iter().map(|span| span.0).min().expect("a task");
        spans.iter().map(|span| span.1).max().expect("a task") - start
    })
}

/// Attempts `step` until it returns `true`.
#[inline(always)]
pub fn wait_until(mut step: impl FnMut() -> bool) {
    let mut failed = 0_u32;
    while !step() {
        failed += 1;
        if failed.is_multiple_of(64) {
            thread::yield_now();
        }
        spin_loop();
    }
}

/// A queue for many threads. Peers move a batch value by value, except the lock.
trait Many: Sync + Send + 'static {
    const NAME: &'static str;
    fn make() -> Self;
    fn push(&self, value: u64) -> bool;
    fn pop(&self) -> Option<u64>;
    /// Pushes from the front of `values`, which lie in reverse unless the queue takes batches.
    #[inline(always)]
    fn push_batch(&self, values: &mut Vec<u64>) {
        while let Some(value) = values.pop() {
            if !self.push(value) {
                values.push(value);
                return;
            }
        }
    }
    #[inline(always)]
    fn pop_batch(&self, values: &mut Vec<u64>) {
        while values.len() < BATCH
            && let Some(value) = self.pop()
        {
            values.push(value);
        }
    }
}

impl Many for Queue<u64> {
    const NAME: &'static str = "nebula";
    fn make() -> Self {
        Queue::try_with_capacity(ROOM).expect("there is memory")
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        Queue::push(self, value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        Queue::pop(self)
    }
    #[inline(always)]
    fn push_batch(&self, values: &mut Vec<u64>) {
        self.push_many(values);
    }
    #[inline(always)]
    fn pop_batch(&self, values: &mut Vec<u64>) {
        self.pop_many(values, BATCH);
    }
}

impl Many for crossbeam_queue::ArrayQueue<u64> {
    const NAME: &'static str = "crossbeam ArrayQueue";
    fn make() -> Self {
        Self::new(ROOM)
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        self.push(value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.pop()
    }
}

impl Many for concurrent_queue::ConcurrentQueue<u64> {
    const NAME: &'static str = "concurrent-queue";
    fn make() -> Self {
        Self::bounded(ROOM)
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        self.push(value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.pop().ok()
    }
}

impl Many for Box<heapless::mpmc::Queue<u64, ROOM>> {
    const NAME: &'static str = "heapless mpmc";
    fn make() -> Self {
        #[expect(
            deprecated,
            reason = "the queue is not lock-free, which this comparison shows too"
        )]
        Box::new(heapless::mpmc::Queue::new())
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        self.enqueue(value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.dequeue()
    }
}

impl Many for Mutex<VecDeque<u64>> {
    const NAME: &'static str = "Mutex<VecDeque>";
    fn make() -> Self {
        Mutex::new(VecDeque::with_capacity(ROOM))
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        let mut queue = self.lock().expect("no panic");
        let has_room = queue.len() < ROOM;
        if has_room {
            queue.push_back(value);
        }
        has_room
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.lock().expect("no panic").pop_front()
    }
    #[inline(always)]
    fn push_batch(&self, values: &mut Vec<u64>) {
        let mut queue = self.lock().expect("no panic");
        let count = values.len().min(ROOM - queue.len());
        queue.extend(values.drain(..count));
    }
    #[inline(always)]
    fn pop_batch(&self, values: &mut Vec<u64>) {
        let mut queue = self.lock().expect("no panic");
        let count = BATCH.min(queue.len());
        values.extend(queue.drain(..count));
    }
}

impl Many for Stack<u64> {
    const NAME: &'static str = "nebula";
    fn make() -> Self {
        Stack::try_with_capacity(ROOM).expect("there is memory")
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        Stack::push(self, value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        Stack::pop(self)
    }
    #[inline(always)]
    fn push_batch(&self, values: &mut Vec<u64>) {
        self.push_many(values);
    }
    #[inline(always)]
    fn pop_batch(&self, values: &mut Vec<u64>) {
        self.pop_many(values, BATCH);
    }
}

impl Many for UnboundedStack<u64> {
    const NAME: &'static str = "nebula, unbounded";
    fn make() -> Self {
        Self::new()
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        self.try_push(value).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.pop()
    }
}

impl Many for Mutex<Vec<u64>> {
    const NAME: &'static str = "Mutex<Vec>";
    fn make() -> Self {
        Mutex::new(Vec::with_capacity(ROOM))
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        let mut stack = self.lock().expect("no panic");
        let has_room = stack.len() < ROOM;
        if has_room {
            stack.push(value);
        }
        has_room
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.lock().expect("no panic").pop()
    }
    #[inline(always)]
    fn push_batch(&self, values: &mut Vec<u64>) {
        let mut stack = self.lock().expect("no panic");
        let count = values.len().min(ROOM - stack.len());
        stack.extend(values.drain(..count));
    }
    #[inline(always)]
    fn pop_batch(&self, values: &mut Vec<u64>) {
        let mut stack = self.lock().expect("no panic");
        let from = stack.len() - BATCH.min(stack.len());
        values.extend(stack.drain(from..));
    }
}

impl Many for FreeList {
    const NAME: &'static str = "nebula";
    /// All indices are out.
    fn make() -> Self {
        let list = FreeList::try_with_capacity(ROOM).expect("there is memory");
        while list.take().is_some() {}
        list
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        self.give(value as usize)
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        self.take().map(|index| index as u64)
    }
}

impl Many for IndexQueue {
    const NAME: &'static str = "nebula IndexQueue";
    fn make() -> Self {
        IndexQueue::try_with_capacity(ROOM).expect("there is memory")
    }
    #[inline(always)]
    fn push(&self, value: u64) -> bool {
        IndexQueue::push(self, value as usize).is_ok()
    }
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        IndexQueue::pop(self).map(|value| value as u64)
    }
}

/// Passes values from `pairs` producers to as many consumers.
fn pass<Q: Many>(queue: &Q, pairs: usize) -> Duration {
    let each = MANY / pairs;
    let producer = || {
        for value in 0..each as u64 {
            wait_until(|| queue.push(value));
        }
    };
    let consumer = || {
        for _ in 0..each {
            wait_until(|| queue.pop().map(black_box).is_some());
        }
    };
    let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for _ in 0..pairs {
        tasks.push(Box::new(producer));
        tasks.push(Box::new(consumer));
    }
    together(tasks)
}

/// Like [`pass`], in batches.
fn pass_batches<Q: Many>(queue: &Q, pairs: usize) -> Duration {
    let each = MANY / pairs / BATCH;
    let left = AtomicUsize::new(each * pairs * BATCH);
    let producer = || {
        let mut values = Vec::with_capacity(BATCH);
        for batch in 0..each as u64 {
            values.extend(batch..batch + BATCH as u64);
            wait_until(|| {
                queue.push_batch(&mut values);
                values.is_empty()
            });
        }
    };
    let consumer = || {
        let mut values = Vec::with_capacity(BATCH);
        wait_until(|| {
            values.clear();
            queue.pop_batch(&mut values);
            black_box(&values);
            let count = values.len();
            count > 0 && left.fetch_sub(count, Ordering::Relaxed) == count
                || count == 0 && left.load(Ordering::Relaxed) == 0
        });
    };
    let mut tasks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for _ in 0..pairs {
        tasks.push(Box::new(producer));
        tasks.push(Box::new(consumer));
    }
    together(tasks)
}

fn alone<Q: Many>(bench: &mut Bench, case: (&'static str, &'static str)) {
    bench.add(case, 2 * BATCH, Q::NAME, || {
        let queue = Q::make();
        move || {
            for value in 0..BATCH as u64 {
                black_box(queue.push(black_box(value)));
            }
            for _ in 0..BATCH {
                black_box(queue.pop());
            }
        }
    });
}

fn threads<Q: Many>(bench: &mut Bench) {
    bench.add(("q1", "queue, one thread: a u64 pushed and popped"), 64, Q::NAME, || {
        let queue = Q::make();
        move || {
            for value in 0..32 {
                black_box(queue.push(black_box(value)));
                black_box(queue.pop());
            }
        }
    });
    alone::<Q>(bench, ("q6", "queue, one thread: 32 u64 pushed, 32 popped"));
    bench.add_threads(("q2", "queue, 1 producer, 1 consumer: a u64"), MANY, Q::NAME, || {
        let queue = Q::make();
        move || pass(&queue, 1)
    });
    bench.add_threads(("q3", "queue, 2 producers, 2 consumers: a u64"), MANY, Q::NAME, || {
        let queue = Q::make();
        move || pass(&queue, 2)
    });
    bench.add_threads(
        ("q4", "queue, 1 producer, 1 consumer: a u64, 32 at once"),
        MANY,
        Q::NAME,
        || {
            let queue = Q::make();
            move || pass_batches(&queue, 1)
        },
    );
    bench.add_threads(
        ("q5", "queue, 2 producers, 2 consumers: a u64, 32 at once"),
        MANY,
        Q::NAME,
        || {
            let queue = Q::make();
            move || pass_batches(&queue, 2)
        },
    );
}

fn stacks<S: Many>(bench: &mut Bench) {
    bench.add(("o1", "stack, one thread: a u64 pushed and popped"), 64, S::NAME, || {
        let stack = S::make();
        move || {
            for value in 0..32 {
                black_box(stack.push(black_box(value)));
                black_box(stack.pop());
            }
        }
    });
    alone::<S>(bench, ("o2", "stack, one thread: 32 u64 pushed, 32 popped"));
    bench.add_threads(("o3", "stack, 1 producer, 1 consumer: a u64"), MANY, S::NAME, || {
        let stack = S::make();
        move || pass(&stack, 1)
    });
    bench.add_threads(
        ("o4", "stack, 1 producer, 1 consumer: a u64, 32 at once"),
        MANY,
        S::NAME,
        || {
            let stack = S::make();
            move || pass_batches(&stack, 1)
        },
    );
}

fn indices<Q: Many>(bench: &mut Bench) {
    indices_as::<Q>(bench, Q::NAME);
}

/// All indices are in the queue. Each thread takes one and returns it.
fn indices_as<Q: Many>(bench: &mut Bench, name: &'static str) {
    let full = || {
        let queue = Q::make();
        for index in 0..ROOM as u64 {
            assert!(queue.push(index));
        }
        queue
    };
    let turn = |queue: &Q| {
        // The queue is never empty. A peer may say so while another thread is in the middle of a push.
        let mut index = None;
        wait_until(|| {
            index = queue.pop();
            index.is_some()
        });
        let index = index.expect("popped above");
        wait_until(|| queue.push(black_box(index)));
    };
    bench.add(
        ("x1", "free list of indices, one thread: taken and returned"),
        64,
        name,
        move || {
            let queue = full();
            move || (0..32).for_each(|_| turn(&queue))
        },
    );
    bench.add_threads(
        ("x2", "free list of indices, two threads: taken and returned"),
        2 * MANY,
        name,
        move || {
            let queue = full();
            move || {
                let task = || (0..MANY / 2).for_each(|_| turn(&queue));
                together(vec![Box::new(task), Box::new(task)])
            }
        },
    );
}

/// A queue for one producer and one consumer.
trait Pair: 'static {
    const NAME: &'static str;
    type Producer: Send;
    type Consumer: Send;
    fn make() -> (Self::Producer, Self::Consumer);
    fn push(to: &mut Self::Producer, value: u64) -> bool;
    fn pop(from: &mut Self::Consumer) -> Option<u64>;
    fn push_slice(to: &mut Self::Producer, values: &[u64]) -> usize;
    fn pop_slice(from: &mut Self::Consumer, values: &mut [u64]) -> usize;
}

struct Nebula;
impl Pair for Nebula {
    const NAME: &'static str = "nebula";
    type Producer = Producer<u64>;
    type Consumer = Consumer<u64>;
    fn make() -> (Producer<u64>, Consumer<u64>) {
        ring(ROOM)
    }
    #[inline(always)]
    fn push(to: &mut Producer<u64>, value: u64) -> bool {
        to.push(value).is_ok()
    }
    #[inline(always)]
    fn pop(from: &mut Consumer<u64>) -> Option<u64> {
        from.pop()
    }
    #[inline(always)]
    fn push_slice(to: &mut Producer<u64>, values: &[u64]) -> usize {
        to.push_slice(values)
    }
    #[inline(always)]
    fn pop_slice(from: &mut Consumer<u64>, values: &mut [u64]) -> usize {
        from.pop_slice(values)
    }
}

struct Rtrb;
impl Pair for Rtrb {
    const NAME: &'static str = "rtrb";
    type Producer = rtrb::Producer<u64>;
    type Consumer = rtrb::Consumer<u64>;
    fn make() -> (Self::Producer, Self::Consumer) {
        rtrb::RingBuffer::new(ROOM)
    }
    #[inline(always)]
    fn push(to: &mut Self::Producer, value: u64) -> bool {
        to.push(value).is_ok()
    }
    #[inline(always)]
    fn pop(from: &mut Self::Consumer) -> Option<u64> {
        from.pop().ok()
    }
    #[inline(always)]
    fn push_slice(to: &mut Self::Producer, values: &[u64]) -> usize {
        to.push_partial_slice(values).0.len()
    }
    #[inline(always)]
    fn pop_slice(from: &mut Self::Consumer, values: &mut [u64]) -> usize {
        from.pop_partial_slice(values).0.len()
    }
}

struct Ringbuf;
impl Pair for Ringbuf {
    const NAME: &'static str = "ringbuf";
    type Producer = ringbuf::CachingProd<std::sync::Arc<ringbuf::HeapRb<u64>>>;
    type Consumer = ringbuf::CachingCons<std::sync::Arc<ringbuf::HeapRb<u64>>>;
    fn make() -> (Self::Producer, Self::Consumer) {
        ringbuf::HeapRb::new(ROOM).split()
    }
    #[inline(always)]
    fn push(to: &mut Self::Producer, value: u64) -> bool {
        to.try_push(value).is_ok()
    }
    #[inline(always)]
    fn pop(from: &mut Self::Consumer) -> Option<u64> {
        from.try_pop()
    }
    #[inline(always)]
    fn push_slice(to: &mut Self::Producer, values: &[u64]) -> usize {
        to.push_slice(values)
    }
    #[inline(always)]
    fn pop_slice(from: &mut Self::Consumer, values: &mut [u64]) -> usize {
        from.pop_slice(values)
    }
}

fn rings<R: Pair>(bench: &mut Bench) {
    bench.add(("y1", "ring, one thread: 32 u64 pushed, 32 popped"), 2 * BATCH, R::NAME, || {
        let (mut to, mut from) = R::make();
        move || {
            for value in 0..BATCH as u64 {
                black_box(R::push(&mut to, black_box(value)));
            }
            for _ in 0..BATCH {
                black_box(R::pop(&mut from));
            }
        }
    });
    bench.add_threads(("y2", "ring, two threads: a u64"), MANY, R::NAME, || {
        let (mut to, mut from) = R::make();
        move || {
            let producer = || {
                for value in 0..MANY as u64 {
                    wait_until(|| R::push(&mut to, value));
                }
            };
            let consumer = || {
                for _ in 0..MANY {
                    wait_until(|| R::pop(&mut from).map(black_box).is_some());
                }
            };
            together(vec![Box::new(producer), Box::new(consumer)])
        }
    });
    bench.add_threads(("y3", "ring, two threads: a u64, 32 at once"), MANY, R::NAME, || {
        let (mut to, mut from) = R::make();
        move || {
            let producer = || {
                let values: [u64; BATCH] = std::array::from_fn(|at| at as u64);
                for _ in 0..MANY / BATCH {
                    let mut rest = &values[..];
                    wait_until(|| {
                        rest = &rest[R::push_slice(&mut to, black_box(rest))..];
                        rest.is_empty()
                    });
                }
            };
            let consumer = || {
                let (mut values, mut left) = ([0; BATCH], MANY / BATCH * BATCH);
                wait_until(|| {
                    left -= R::pop_slice(&mut from, &mut values);
                    black_box(&values);
                    left == 0
                });
            };
            together(vec![Box::new(producer), Box::new(consumer)])
        }
    });
}

pub fn register(bench: &mut Bench) {
    threads::<Queue<u64>>(bench);
    threads::<crossbeam_queue::ArrayQueue<u64>>(bench);
    threads::<concurrent_queue::ConcurrentQueue<u64>>(bench);
    threads::<Box<heapless::mpmc::Queue<u64, ROOM>>>(bench);
    threads::<Mutex<VecDeque<u64>>>(bench);
    stacks::<Stack<u64>>(bench);
    stacks::<UnboundedStack<u64>>(bench);
    stacks::<Mutex<Vec<u64>>>(bench);
    indices::<FreeList>(bench);
    indices::<IndexQueue>(bench);
    indices_as::<Stack<u64>>(bench, "nebula Stack");
    indices::<crossbeam_queue::ArrayQueue<u64>>(bench);
    indices::<concurrent_queue::ConcurrentQueue<u64>>(bench);
    indices::<Box<heapless::mpmc::Queue<u64, ROOM>>>(bench);
    indices::<Mutex<Vec<u64>>>(bench);
    rings::<Nebula>(bench);
    rings::<Rtrb>(bench);
    rings::<Ringbuf>(bench);
    bench.target("q1", Target::Most(4.6));
    bench.target("q2", Target::Most(10.0));
    bench.target("q3", Target::Most(25.0));
    bench.target("q4", Target::Most(3.2));
    bench.target("q5", Target::Most(14.0));
    bench.target("x1", Target::Most(2.0));
    bench.target("x2", Target::Most(1.5));
}
