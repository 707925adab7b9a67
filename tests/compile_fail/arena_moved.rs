// E0505
//! An arena does not move while one of its values is used.

use nebula_memory::arena::Arena;

fn main() {
    let arena = Arena::new();
    let x = arena.alloc(7);
    *x += 1;
    let elsewhere = Box::new(arena);
    #[cfg(feature = "escape")]
    println!("{x}");
    elsewhere.alloc(8);
}
