// E0597 E0505
//! The references of a value must be valid until the arena drops the value.

use nebula_memory::arena::DropArena;

struct Farewell<'a>(&'a str);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

fn main() {
    let name = String::from("ada");
    let arena = DropArena::new();
    arena.alloc(Farewell(&name));
    #[cfg(feature = "escape")]
    drop(name);
    drop(arena);
}
