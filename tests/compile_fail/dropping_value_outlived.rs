// E0597
//! A value does not outlive the arena that drops it.

use nebula_memory::arena::DropArena;

fn main() {
    #[cfg(not(feature = "escape"))]
    let arena = DropArena::new();
    let kept = {
        #[cfg(feature = "escape")]
        let arena = DropArena::new();
        arena.alloc(String::from("seven"))
    };
    println!("{kept}");
}
