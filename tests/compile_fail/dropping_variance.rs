// none E0597 E0308 E0521
//! An arena of long-lived references is not one of short-lived references.

use nebula_memory::arena::DropArena;

#[cfg(not(feature = "escape"))]
fn fill<'a>(arena: &DropArena<'a>, text: &'a str) {
    arena.alloc(text);
}

#[cfg(feature = "escape")]
fn fill<'a>(arena: &DropArena<'static>, text: &'a str) {
    let arena: &DropArena<'a> = arena;
    arena.alloc(text);
}

fn main() {
    let text = String::from("gone");
    let arena = DropArena::new();
    fill(&arena, &text);
}
