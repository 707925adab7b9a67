use super::*;
use nebula_memory::arena::DropArena;

/// Values that are dropped together: their numbers, in order.
type Together = Vec<usize>;

/// A value with one more field and another alignment.
#[repr(align(64))]
struct Wide(#[expect(dead_code, reason = "it is dropped")] Noted);

/// Runs an arena of values of any type: each is dropped once and the newest first, whatever panics.
pub(crate) fn drop_arena(codes: &[Code]) {
    let Some((first, ops)) = begin(codes) else { return };
    let ground = Ground::new(first);
    if first[3] < 128 {
        let options = Arena::options().budget(&ground.budget).max_bytes(ground.max_bytes);
        let arena = options.build_dropping().unwrap();
        let held = || ground.budget.usage().used;
        run(arena, ops, held, |_| ());
    } else {
        let held = || ground.base.live().iter().map(Layout::size).sum();
        run(DropArena::new_in(&ground.base), ops, held, |op| ground.step(op));
    }
    ground.finish();
}

/// A record of drops.
struct Log {
    drops: Rc<RefCell<VecDeque<usize>>>,
    next: usize,
}

impl Log {
    fn new_value(&mut self, panics: bool) -> Noted {
        self.next += 1;
        Noted { number: self.next, panics, log: Rc::clone(&self.drops) }
    }

    /// Asserts that only the `expected` values were dropped since the last call.
    #[track_caller]
    fn is(&self, expected: impl IntoIterator<Item = usize>) {
        assert!(self.drops.take().into_iter().eq(expected), "once, and in order");
    }
}

fn run<A: Allocator>(
    mut arena: DropArena<'_, A>,
    ops: Ops<'_>,
    held: impl Fn() -> usize,
    ground_step: impl Fn(Op),
) {
    let mut log = Log { drops: Rc::default(), next: 0 };
    let mut alive: Vec<Together> = Vec::new();
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Allocate { layout, zeroed } => {
                let value = log.new_value(zeroed && layout.size() % 8 == 7);
                let number = value.number;
                let mut place = None;
                survive(|| {
                    place = if layout.align() < 16 {
                        arena.try_alloc(value).ok().map(place_of)
                    } else {
                        arena.try_alloc(Wide(value)).ok().map(place_of)
                    };
                });
                if let Some(place) = place {
                    model.occupy(place);
                    alive.push(vec![number]);
                } else {
                    log.is([number]);
                }
            }
            Op::Resize { which, zeroed, .. } => {
                // A closure makes the value in place. The closure uses the arena and may panic.
                let (inner, outer) = (log.new_value(false), log.new_value(which == 7));
                let (first, second) = (inner.number, outer.number);
                let (mut went_in, mut made) = (false, false);
                survive(|| {
                    let place = arena.try_alloc_with(|| {
                        made = true;
                        went_in = arena
                            .try_alloc(inner)
                            .map(|inner| model.occupy(place_of(inner)))
                            .is_ok();
                        if zeroed {
                            drop(outer);
                            panic_as_planned();
                        }
                        [outer]
                    });
                    if let Ok(place) = place {
                        assert_eq!(place[0].number, second);
                        model.occupy(place_of(place));
                        alive.push(vec![second]);
                    }
                });
                let kept = alive.last() == Some(&vec![second]);
                if went_in {
                    // The inner value was finished first.
                    alive.insert(alive.len() - usize::from(kept), vec![first]);
                }
                let mut gone: Vec<_> = log.drops.take().into();
                gone.sort_unstable();
                let expected = [(first, !went_in), (second, !kept)];
                let expected = expected.into_iter().filter(|(_, gone)| *gone);
                assert!(gone.into_iter().eq(expected.map(|(number, _)| number)));
                assert!(made || !(went_in || kept));
            }
            Op::Typed { which, len } if which < 96 => {
                let values: Vec<_> =
                    iter::repeat_with(|| log.new_value(false)).take(len % 40).collect();
                let numbers: Together = values.iter().map(|value| value.number).collect();
                let bad = if which % 3 == 0 { len / 2 } else { usize::MAX };
                let mut kept = false;
                survive(|| {
                    let values = values.into_iter().enumerate().map(|(at, value)| {
                        drop(arena.try_alloc_str("meanwhile"));
                        if at == bad {
                            panic_as_planned();
                        }
                        value
                    });
                    if let Ok(places) = arena.try_alloc_extend(values) {
                        assert!(
                            places.iter().map(|value| value.number).eq(numbers.iter().copied())
                        );
                        model.occupy(place_of(places));
                        kept = true;
                    }
                });
                if kept {
                    alive.push(numbers);
                    log.is([]);
                } else {
                    let mut gone: Vec<_> = log.drops.take().into();
                    gone.sort_unstable();
                    assert_eq!(gone, numbers, "each, and once");
                }
            }
            // A text has no drop, but contents.
            Op::Typed { len, .. } => {
                let text: String =
                    pattern(model.seed(), len).map(|b| char::from(b % 128)).collect();
                if let Ok(place) = arena.try_alloc_str(&text) {
                    assert_eq!(*place, *text);
                    let found = found(place, text.into_bytes()).unwrap();
                    model.find(found);
                }
            }
            Op::Reset | Op::Trim(_) => {
                model.clear();
                let before = arena.used_bytes();
                survive(|| match op {
                    Op::Trim(keep) => {
                        let freed = arena.trim(keep);
                        assert!(arena.used_bytes() <= keep);
                        assert_eq!(arena.used_bytes() + freed, before);
                    }
                    _ => arena.reset(),
                });
                log.is(mem::take(&mut alive).into_iter().rev().flatten());
            }
            _ => ground_step(op),
        }
        log.is([]);
        assert_eq!(arena.used_bytes(), held());
        assert!(arena.peak_bytes() >= arena.used_bytes());
    }
    model.check();
    survive(|| drop(arena));
    log.is(alive.into_iter().rev().flatten());
}

/// Returns a value's address and layout.
fn place_of<T: ?Sized>(value: &mut T) -> (NonNull<u8>, Layout) {
    let layout = Layout::for_value(value);
    (NonNull::from(value).cast(), layout)
}

impl Model {
    /// Takes in a range of memory whose contents belong to its type.
    fn occupy(&mut self, (start, layout): (NonNull<u8>, Layout)) {
        let range = (start.addr().get(), start.addr().get() + layout.size());
        assert!(range.0.is_multiple_of(layout.align()), "{layout:?} is not aligned");
        let apart = |(from, to): (usize, usize)| to <= range.0 || range.1 <= from || from == to;
        assert!(
            self.blocks.iter().all(|block| apart(block.range())),
            "{layout:?} lies over a text"
        );
        assert!(self.occupied.iter().all(|known| apart(*known)), "{layout:?} lies over a value");
        self.occupied.push(range);
    }
}
