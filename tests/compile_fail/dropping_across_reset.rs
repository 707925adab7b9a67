// E0502
//! A value that the arena drops is not used after a reset.

use nebula_memory::arena::DropArena;

fn main() {
    let mut arena = DropArena::new();
    let x = arena.alloc(String::from("seven"));
    x.push('!');
    #[cfg(not(feature = "escape"))]
    let x = "seven!";
    arena.reset();
    println!("{x}");
}
