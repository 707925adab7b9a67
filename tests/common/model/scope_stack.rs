use super::*;
use nebula_memory::arena::{ScopeStack, Slot};

/// What was put on a stack, and the number of the block that it is in the model.
struct Put {
    slot: Slot<[u8]>,
    born: usize,
}

/// Runs scopes that data opens and closes: a slot gives its value as long as the scope is open that it
/// was put in, or was committed to, and never again afterwards, nor to another stack.
pub(crate) fn scope_stack(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    match first[0] % 3 {
        0 => run::<Down, 8>(first, ops),
        1 => run::<Down, 1>(first, ops),
        _ => run::<Up, 16>(first, ops),
    }
}

fn run<D: Direction, const MIN: usize>(first: Code, mut ops: Ops<'_>) {
    let ground = Ground::new(first);
    let options = Arena::options().budget(&ground.budget).max_bytes(ground.max_bytes);
    let options = options.initial_chunk_bytes(48 + usize::from(first[3]) * 8);
    let options = options.direction::<D>().min_align::<MIN>();
    let mut arena = options.build_in(&ground.base).unwrap();
    let (mut model, mut puts) = (Model::default(), Vec::new());
    while ops.codes.len() > 0 {
        let filled = arena.filled_bytes();
        model.enter();
        let stack = arena.scopes();
        on_a_stack(stack, &mut model, &mut puts, &ground, &mut ops);
        model.leave();
        assert_eq!(arena.filled_bytes(), filled, "as full as before");
        outside(&&arena, &mut model, &ground, &mut ops);
        ground.check(arena.used_bytes(), arena.peak_bytes());
        if puts.len() % 3 == 0 {
            model.clear();
            arena.reset();
        }
    }
    model.check();
    drop(arena);
    ground.finish();
}

fn on_a_stack<D: Direction, const MIN: usize>(
    mut stack: ScopeStack<'_, &Awkward, D, MIN>,
    model: &mut Model,
    puts: &mut Vec<Put>,
    ground: &Ground,
    ops: &mut Ops<'_>,
) {
    // Those before are of stacks that are gone.
    let (base, own) = (model.depth, puts.len());
    for op in ops {
        match op {
            Op::Enter => {
                stack.open();
                model.enter();
            }
            Op::Leave { panics, .. } => {
                let close = if panics { ScopeStack::commit } else { ScopeStack::close };
                assert_eq!(close(&mut stack), model.depth > base);
                match (model.depth > base, panics) {
                    (false, _) => {}
                    (true, true) => model.merge(),
                    (true, false) => model.leave(),
                }
            }
            Op::Typed { len, .. } => {
                let contents: Vec<u8> = pattern(model.seed(), len).collect();
                if let Ok(slot) = stack.keep(|arena| arena.try_alloc_slice_copy(&contents)) {
                    let value = stack.get(slot).expect("just put there");
                    let start = NonNull::from(value).cast();
                    let (layout, depth, born) =
                        (Layout::for_value(value), model.depth, model.born());
                    model.add(Block { start, layout, contents, depth, born, raw: false });
                    puts.push(Put { slot, born });
                }
            }
            Op::Release(_) => break,
            Op::Mark if puts.len() > own => {
                // Written through the slot.
                let put = &puts[own + model.born % (puts.len() - own)];
                if let Some(value) = stack.get_mut(put.slot) {
                    value.fill(7);
                    let block = model.blocks.iter_mut().find(|block| block.born == put.born);
                    let block = block.expect("there, as it was found");
                    block.contents.fill(7);
                    // By the reference from before the writing it may not be looked at any more.
                    block.start = NonNull::from(stack.get(put.slot).expect("as before")).cast();
                }
            }
            _ => {
                ground.step(op);
                model.step(&&*stack, op, false);
            }
        }
        assert_eq!(stack.depth(), model.depth - base);
        for (at, put) in puts.iter().enumerate() {
            let known = model.blocks.iter().find(|block| block.born == put.born);
            let known = known.filter(|_| at >= own).map(|block| &block.contents[..]);
            assert_eq!(stack.get(put.slot), known);
        }
        ground.check_ledger();
    }
    model.check();
    while model.depth > base {
        model.merge();
    }
}

/// A few operations of the arena itself.
fn outside<A: Allocator>(arena: &A, model: &mut Model, ground: &Ground, ops: &mut Ops<'_>) {
    for op in ops.take(3) {
        ground.step(op);
        model.step(arena, op, false);
    }
    model.check();
}
