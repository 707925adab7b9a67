use super::*;

/// Runs an arena for many threads in each way of using it: by the calling thread, by handles that come and
/// go, and by threads that end and leave their leases to others.
pub(crate) fn shared_arena(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    match first[0] % 4 {
        0 => run::<Down, 8>(first, ops),
        1 => run::<Down, 1>(first, ops),
        2 => run::<Up, 8>(first, ops),
        _ => run::<Up, 16>(first, ops),
    }
}

type Shared<'g, D, const MIN: usize> = SharedArena<OneAtATime<&'g Awkward>, D, MIN>;

fn run<D: Direction, const MIN: usize>(first: Code, mut ops: Ops<'_>) {
    let mut ground = Ground::new(first);
    ground.max_bytes = ground.max_bytes.max(128);
    let options = Arena::options().budget(&ground.budget).max_bytes(ground.max_bytes);
    let options = options.initial_chunk_bytes(48 + usize::from(first[3]) * 8);
    let options = options.direction::<D>().min_align::<MIN>();
    let mut arena = options.build_shared_in(OneAtATime(&ground.base)).unwrap();
    let mut model = Model::default();
    while let Some(op) = between_resets(&arena, &mut model, &ground, &mut ops) {
        model.clear();
        let before = arena.used_bytes();
        if let Op::Trim(keep) = op {
            let freed = if keep % 2 == 0 { arena.trim(keep) } else { arena.trim_to_high_water() };
            assert_eq!(arena.used_bytes() + freed, before);
            assert!(arena.used_bytes() <= keep || keep % 2 == 1);
        } else {
            arena.reset();
            assert_eq!(arena.used_bytes(), before);
        }
        ground.check(arena.used_bytes(), arena.peak_bytes());
    }
    model.clear();
    // After a reset all bytes can be allocated again, also the leases of dropped handles. Only the ends of
    // chunks are lost.
    arena.reset();
    ground.base.most.set(0);
    let (held, chunks) = (arena.used_bytes(), ground.base.live().len());
    if held <= 1 << 16 {
        let lost =
            held - LINE * iter::from_fn(|| arena.handle().try_alloc([1_u8; LINE]).ok()).count();
        assert!(lost <= 4 * LINE * (chunks + 1), "{lost} bytes of {held} in {chunks} chunks");
    }
    drop(arena);
    ground.finish();
}

/// The distance between the bytes of two threads.
const LINE: usize = 64;

/// Runs until the operation that empties the arena, and returns it.
fn between_resets<'g, D: Direction, const MIN: usize>(
    arena: &Shared<'g, D, MIN>,
    model: &mut Model,
    ground: &'g Ground,
    ops: &mut Ops<'_>,
) -> Option<Op> {
    let mut handles: Vec<SharedArenaHandle<'_, _, D, MIN>> = Vec::new();
    // At zero the calling thread allocates. Other numbers choose a handle.
    let mut way = 0;
    while let Some(op) = ops.next() {
        match op {
            Op::Reset | Op::Trim(_) => return Some(op),
            Op::Enter if handles.len() < 8 => handles.push(arena.handle()),
            Op::Leave { forgotten, .. } => {
                if let Some(handle) = handles.pop()
                    && forgotten
                {
                    mem::forget(handle);
                }
            }
            Op::Mark | Op::Release(_) => way += 1,
            Op::Reserve(bytes) => match way % (handles.len() + 1) {
                0 => model.reserve(&arena, |bytes| arena.try_reserve(bytes), bytes, ground),
                handle => {
                    let handle = &handles[handle - 1];
                    model.reserve(&handle, |bytes| handle.try_reserve(bytes), bytes, ground);
                }
            },
            Op::Part(count) => {
                // A thread that runs several operations. Other threads get its lease afterwards.
                on_a_thread(|| {
                    for op in ops.take(usize::from(count % 8)) {
                        step(arena, model, ground, op);
                    }
                });
            }
            _ => match way % (handles.len() + 1) {
                0 => step(arena, model, ground, op),
                handle => step(&handles[handle - 1], model, ground, op),
            },
        }
        ground.check(arena.used_bytes(), arena.peak_bytes());
    }
    None
}

fn step<F: Face>(face: &F, model: &mut Model, ground: &Ground, op: Op)
where
    for<'f> &'f F: Allocator,
{
    if let Op::Typed { which, len } = op {
        model.typed(face, which, len);
    } else {
        ground.step(op);
        model.step(&face, op, false);
    }
}
