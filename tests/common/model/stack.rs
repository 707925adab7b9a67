use super::{lockfree::Counted, *};
use nebula_memory::lockfree::{Full, Stack, UnboundedStack};

fn numbers(values: &[Counted]) -> impl Iterator<Item = u32> + '_ {
    values.iter().map(|value| value.number)
}

/// Runs a bounded stack for many threads on one, beside a vector.
pub(crate) fn bounded_stack(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let capacity = usize::from(first[0] % 20);
    let stack = Stack::try_with_capacity(capacity).unwrap();
    assert_eq!(stack.capacity(), capacity.max(1));
    let mut model = Vec::new();
    for (number, [op, count, flag, _]) in (0..).zip(rest.iter().copied()) {
        let room = stack.capacity() - model.len();
        let value = |number| Counted::new(number, &alive, flag % 8 == 0);
        let count = usize::from(count % 24);
        match op % 4 {
            0 => match stack.push(value(number)) {
                Ok(()) => model.push(number),
                Err(Full(back)) => {
                    assert_eq!((back.number, room), (number, 0));
                    survive(|| drop(back));
                }
            },
            1 => {
                let popped = stack.pop();
                assert_eq!(popped.as_ref().map(|value| value.number), model.pop());
                survive(|| drop(popped));
            }
            2 => {
                let mut values: Vec<_> = (number..).take(count).map(value).collect();
                assert_eq!(stack.push_many(&mut values), count.min(room));
                assert!(numbers(&values).eq((number..).take(count).skip(room)));
                model.extend((number..).take(count.min(room)));
                survive(|| drop(values));
            }
            _ => {
                let mut values = Vec::with_capacity(usize::from(flag % 8));
                let popped = count.min(model.len());
                assert_eq!(stack.pop_many(&mut values, count), popped);
                assert!(numbers(&values).eq(model.drain(model.len() - popped..).rev()));
                survive(|| drop(values));
            }
        }
        assert_eq!((stack.is_empty(), alive.get()), (model.is_empty(), model.len()));
    }
    survive(|| drop(stack));
    assert_eq!(alive.get(), 0, "each value was dropped once");
}

/// Runs an unbounded stack for many threads on one, beside a vector.
pub(crate) fn unbounded_stack(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let bytes = UnboundedStack::<Counted>::NODE_BYTES;
    let limit = bytes * (1 + usize::from(first[1]));
    let budget = Budget::root("model").limit(limit).build().unwrap();
    let has_budget = first[0] % 2 == 1;
    let stack = if has_budget { UnboundedStack::new_in(&budget) } else { UnboundedStack::new() };
    let mut model = Vec::new();
    for (number, [op, count, flag, _]) in (0..).zip(rest.iter().copied()) {
        let value = || Counted::new(number, &alive, flag % 8 == 0);
        match op % 8 {
            0..4 => match stack.try_push(value()) {
                Ok(()) => model.push(number),
                Err(Full(back)) => {
                    assert!(has_budget && back.number == number);
                    assert!(budget.usage().used + bytes > limit);
                    survive(|| drop(back));
                }
            },
            4 | 5 => {
                let popped = stack.pop();
                assert_eq!(popped.as_ref().map(|value| value.number), model.pop());
                survive(|| drop(popped));
            }
            6 => {
                let mut all = stack.pop_all();
                let values: Vec<_> = all.by_ref().take(usize::from(count % 8)).collect();
                let left = model.len() - values.len();
                assert!(numbers(&values).eq(model.drain(left..).rev()));
                assert_eq!(alive.get(), left + values.len());
                model.clear();
                survive(|| drop(values));
                survive(|| drop(all));
            }
            _ => stack.collect(),
        }
        assert_eq!((stack.is_empty(), alive.get()), (model.is_empty(), model.len()));
        let used = budget.usage().used;
        assert!(used.is_multiple_of(bytes) && used <= limit);
        assert!(if has_budget { used >= model.len() * bytes } else { used == 0 });
    }
    survive(|| drop(stack));
    assert_eq!(alive.get(), 0, "each value was dropped once");
}
