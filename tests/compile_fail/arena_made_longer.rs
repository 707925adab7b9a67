// none E0621
//! A result does not live longer than the borrow of its arena.

use nebula_memory::arena::Arena;

fn kept<'a>(arena: &'a Arena, other: &'a mut u32) -> &'a mut u32 {
    *other += 1;
    arena.alloc(7)
}

#[cfg(feature = "escape")]
fn longer<'a>(arena: &Arena, _other: &'a mut u32) -> &'a mut u32 {
    arena.alloc(7)
}

fn main() {
    kept(&Arena::new(), &mut 0);
}
