// E0502
//! A value of a shared arena is not used after a trim.

use nebula_memory::arena::SharedArena;

fn main() {
    let mut arena = SharedArena::new();
    let x = arena.alloc_str("seven");
    assert_eq!(x, "seven");
    #[cfg(not(feature = "escape"))]
    let x = "seven";
    arena.trim(0);
    println!("{x}");
}
