//! The parts of an arena or a scope: cursors, children, reservations.

use super::*;
use nebula_memory::arena::Cursor;

impl Model {
    /// Runs a cursor beside its arena or scope, until one of the two ends. The cursor's values stay.
    pub(super) fn in_cursor<A: Allocator, B: Allocator, D: Direction, const MIN: usize>(
        &mut self,
        mut cursor: Cursor<'_, '_, A, D, MIN>,
        home: &B,
        ground: &Ground,
        ops: &mut Ops<'_>,
    ) {
        for op in ops {
            match op {
                Op::Leave { panics: true, .. } => panic_as_planned(),
                Op::Leave { forgotten, .. } => {
                    if forgotten {
                        mem::forget(cursor);
                    }
                    break;
                }
                Op::Typed { which, .. } => {
                    let seed = self.seed();
                    if let Ok(found) = by_cursor(&mut cursor, which, seed) {
                        self.find(found);
                    }
                }
                _ => {
                    ground.step(op);
                    self.step(home, op, false);
                }
            }
            ground.check_ledger();
        }
    }

    /// Runs a child beside its parent until one of the two ends. No value of the child stays.
    pub(super) fn beside_a_child<A: Allocator, B: Allocator, D: Direction, const MIN: usize>(
        &mut self,
        mut child: Arena<A, D, MIN>,
        parent: &B,
        ground: &Ground,
        ops: &mut Ops<'_>,
    ) {
        self.enter();
        while let Some(op) = ops.next() {
            match op {
                Op::Leave { .. } => break,
                Op::Reset | Op::Trim(_) => {
                    self.leave();
                    let before = child.used_bytes();
                    if let Op::Trim(keep) = op {
                        let freed = child.trim(keep);
                        assert!(child.used_bytes() <= keep && child.used_bytes() + freed == before);
                    } else {
                        child.reset();
                        assert_eq!(child.used_bytes(), before);
                    }
                    self.enter();
                }
                Op::Typed { which, len } if which < 128 => self.typed(&child, which, len),
                Op::Part(which) if which < 64 => {
                    survive(|| self.in_cursor(child.cursor(), &&child, ground, ops));
                }
                Op::Reserve(bytes) => {
                    self.reserve(&&child, |bytes| child.try_reserve(bytes), bytes, ground);
                }
                Op::Resize { which, .. } | Op::Free(which) if which % 2 == 1 => {
                    self.of_the_parent(|model| model.step(parent, op, false));
                }
                Op::Allocate { zeroed: true, .. } => {
                    self.of_the_parent(|model| model.step(parent, op, false));
                }
                _ => {
                    ground.step(op);
                    self.step(&&child, op, false);
                }
            }
            assert!(child.used_bytes() < ground.check_ledger().max(1), "within the parent's");
            assert!(child.peak_bytes() >= child.used_bytes());
        }
        self.check();
        drop(child);
        self.leave();
    }

    fn of_the_parent(&mut self, run: impl FnOnce(&mut Self)) {
        self.depth -= 1;
        run(self);
        self.depth += 1;
    }

    /// Reserves bytes ahead. They can then be allocated without a further chunk.
    pub(super) fn reserve(
        &mut self,
        arena: &impl Allocator,
        try_reserve: impl FnOnce(usize) -> Result<(), AllocationError>,
        bytes: usize,
        ground: &Ground,
    ) {
        let before = ground.check_ledger();
        if try_reserve(bytes).is_err() {
            assert_eq!(ground.check_ledger(), before, "nothing was taken");
            return;
        }
        let held = ground.check_ledger();
        let layout = Layout::from_size_align(bytes, 1).unwrap();
        let block = arena.allocate(layout).expect("reserved");
        self.adopt(block, layout, self.depth);
        assert_eq!(ground.check_ledger(), held, "a chunk for what was reserved");
    }
}

fn by_cursor<A: Allocator, D: Direction, const MIN: usize>(
    cursor: &mut Cursor<'_, '_, A, D, MIN>,
    which: u8,
    seed: u8,
) -> Found {
    match which % 6 {
        0 => found(cursor.try_alloc(seed)?, vec![seed]),
        1 => found(cursor.try_alloc([seed; 3])?, vec![seed; 3]),
        2 => found(cursor.try_alloc(Aligned([seed; 128]))?, vec![seed; 128]),
        3 => found(cursor.try_alloc([0_u64; 0])?, vec![]),
        4 => found(cursor.try_alloc([seed; 700])?, vec![seed; 700]),
        _ => {
            let words = [u64::from(seed); 2];
            found(cursor.try_alloc(words)?, words.iter().flat_map(|w| w.to_ne_bytes()).collect())
        }
    }
}
