use super::*;
use nebula_memory::lockfree::{FreeList, Full, IndexQueue, Queue, ring};

/// A value that counts the living ones, and may panic when it is dropped.
pub(super) struct Counted {
    pub(super) number: u32,
    alive: Rc<Cell<usize>>,
    pub(super) panics: bool,
}

impl Counted {
    pub(super) fn new(number: u32, alive: &Rc<Cell<usize>>, panics: bool) -> Self {
        alive.set(alive.get() + 1);
        Self { number, alive: Rc::clone(alive), panics }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
        // A second panic would end the process.
        if self.panics && !thread::panicking() {
            panic_as_planned();
        }
    }
}

/// Runs a queue for many threads on one, beside a deque.
pub(crate) fn queue(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let queue = Queue::try_with_capacity(usize::from(first[0] % 20)).unwrap();
    let mut model = VecDeque::new();
    for (number, [op, count, flag, _]) in (0..).zip(rest.iter().copied()) {
        let room = queue.capacity() - model.len();
        let value = |number| Counted::new(number, &alive, flag % 8 == 0);
        let count = usize::from(count % 24);
        match op % 4 {
            0 => match queue.push(value(number)) {
                Ok(()) => model.push_back(number),
                Err(Full(back)) => {
                    assert_eq!((back.number, room), (number, 0));
                    survive(|| drop(back));
                }
            },
            1 => {
                let popped = queue.pop();
                assert_eq!(popped.as_ref().map(|value| value.number), model.pop_front());
                survive(|| drop(popped));
            }
            2 => {
                let mut values: Vec<_> = (number..).take(count).map(value).collect();
                assert_eq!(queue.push_many(&mut values), count.min(room));
                assert!(
                    values.iter().map(|value| value.number).eq((number..).take(count).skip(room))
                );
                model.extend((number..).take(count.min(room)));
                survive(|| drop(values));
            }
            _ => {
                let mut values = Vec::with_capacity(usize::from(flag % 8));
                assert_eq!(queue.pop_many(&mut values, count), count.min(model.len()));
                for value in &values {
                    assert_eq!(Some(value.number), model.pop_front());
                }
                survive(|| drop(values));
            }
        }
        assert_eq!((queue.len(), alive.get()), (model.len(), model.len()));
        assert_eq!(queue.is_empty(), model.is_empty());
        assert_eq!(queue.is_full(), model.len() == queue.capacity());
    }
    survive(|| drop(queue));
    assert_eq!(alive.get(), 0, "each value was dropped once");
}

/// Runs a queue of indices beside a deque.
pub(crate) fn index_queue(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let capacity = 1 + usize::from(first[0] % 20);
    let queue = IndexQueue::try_with_capacity(capacity).unwrap();
    let mut model = VecDeque::new();
    for [op, count, index, _] in rest {
        for at in 0..count % 8 {
            if op % 2 == 0 {
                let index = usize::from(index.wrapping_add(at)) % capacity;
                assert_eq!(queue.push(index).is_ok(), model.len() < capacity);
                if model.len() < capacity {
                    model.push_back(index);
                }
            } else {
                assert_eq!(queue.pop(), model.pop_front());
            }
            assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
        }
    }
}

/// Runs a list of free indices beside the set of indices that are out. Some calls run on another thread, so several
/// threads keep indices.
pub(crate) fn free_list(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let capacity = usize::from(first[0]) + usize::from(first[1] % 4) * 100;
    let budget = Budget::root("model").build().unwrap();
    let free = FreeList::try_with_capacity_in(capacity, &budget).unwrap();
    assert!(budget.usage().used >= 4 * capacity);
    // In the order in which they were taken.
    let mut out = Vec::new();
    for [op, count, choice, place] in rest {
        let mut run = || {
            for at in 0..usize::from(count % 48) {
                match op % 8 {
                    0..4 => match free.take() {
                        Some(index) => {
                            assert!(index < capacity && !out.contains(&index));
                            out.push(index);
                        }
                        None => assert_eq!(out.len(), capacity, "all are out"),
                    },
                    4..7 if !out.is_empty() => {
                        let index = out.swap_remove(usize::from(*choice) % out.len());
                        assert!(free.give(index));
                        assert!(!free.give(index), "given back before");
                    }
                    _ => {
                        let index = (usize::from(*choice) + at) % (capacity + 10);
                        if !out.contains(&index) {
                            assert!(!free.give(index), "not out");
                        }
                    }
                }
            }
        };
        if place % 8 == 0 {
            thread::scope(|scope| scope.spawn(run).join().unwrap());
        } else {
            run();
        }
        if place % 16 == 1 {
            assert_eq!(free.available(), capacity - out.len());
        }
    }
    assert_eq!((free.available(), free.capacity()), (capacity - out.len(), capacity));
    drop(free);
    assert_eq!(budget.usage().used, 0);
}

/// Runs both ends of a ring on one thread, beside a deque.
pub(crate) fn spsc_ring(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let capacity = usize::from(first[0] % 20);
    let (mut producer, mut consumer) = ring(capacity);
    // Plain bytes, for slices. Both rings do the same.
    let (mut bytes_in, mut bytes_out) = ring::<u8>(capacity);
    let (mut model, mut bytes) = (VecDeque::new(), VecDeque::<u8>::new());
    for (number, [op, count, flag, _]) in (0..).zip(rest.iter().copied()) {
        let room = producer.capacity() - model.len();
        let value = |number| Counted::new(number, &alive, flag % 8 == 0);
        let count = usize::from(count % 24);
        match op % 6 {
            0 => match producer.push(value(number)) {
                Ok(()) => model.push_back(number),
                Err(Full(back)) => {
                    assert_eq!((back.number, room), (number, 0));
                    survive(|| drop(back));
                }
            },
            1 => {
                let popped = consumer.pop();
                assert_eq!(popped.as_ref().map(|value| value.number), model.pop_front());
                survive(|| drop(popped));
            }
            2 => {
                let (first, second) = producer.spare();
                assert_eq!(first.len() + second.len(), room);
                let slots = first.iter_mut().chain(second).take(count);
                let written = slots.zip(number..).map(|(slot, number)| {
                    slot.write(value(number));
                });
                let written = written.count();
                // SAFETY: so many slots were written, from the first on.
                unsafe { producer.commit(written) };
                model.extend((number..).take(written));
            }
            3 => {
                let (first, second) = consumer.peek();
                assert!(first.iter().chain(second).map(|value| &value.number).eq(&model));
                let count = count.min(model.len());
                model.drain(..count);
                survive(|| consumer.consume(count));
            }
            4 => {
                let values: Vec<u8> = pattern(flag, count).collect();
                let pushed = bytes_in.push_slice(&values);
                assert_eq!(pushed, count.min(bytes_in.capacity() - bytes.len()));
                bytes.extend(&values[..pushed]);
            }
            _ => {
                let mut values = vec![0; count];
                let popped = bytes_out.pop_slice(&mut values);
                assert_eq!(popped, count.min(bytes.len()));
                assert!(bytes.drain(..popped).eq(values[..popped].iter().copied()));
            }
        }
        assert_eq!(
            (producer.len(), consumer.len(), alive.get()),
            (model.len(), model.len(), model.len())
        );
        assert_eq!(producer.is_full(), model.len() == producer.capacity());
        assert_eq!((bytes_in.len(), bytes_out.is_empty()), (bytes.len(), bytes.is_empty()));
    }
    survive(|| drop(producer));
    assert!(consumer.is_closed());
    survive(|| drop(consumer));
    assert_eq!(alive.get(), 0, "each value was dropped once");
}
