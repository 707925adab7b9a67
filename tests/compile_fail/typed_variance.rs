// none E0597 E0308
//! An arena of long-lived references is not one of short-lived references.

use nebula_memory::arena::TypedArena;

#[cfg(not(feature = "escape"))]
fn fill<'a>(arena: &TypedArena<&'a str>, text: &'a str) {
    arena.alloc(text);
}

#[cfg(feature = "escape")]
fn fill<'a>(arena: &TypedArena<&'static str>, text: &'a str) {
    let arena: &TypedArena<&'a str> = arena;
    arena.alloc(text);
}

fn main() {
    let text = String::from("gone");
    let mut arena = TypedArena::new();
    fill(&arena, &text);
    assert_eq!(arena.iter_mut().count(), 1);
}
