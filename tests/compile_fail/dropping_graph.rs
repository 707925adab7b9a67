// E0597 E0505 E0713
//! Values that the arena drops do not refer to each other, as one of them is dropped first.

use nebula_memory::arena::DropArena;

struct Node<'a>(Option<&'a String>);

impl Drop for Node<'_> {
    fn drop(&mut self) {
        println!("{:?}", self.0);
    }
}

fn main() {
    let arena = DropArena::new();
    let name = arena.alloc(String::from("ada"));
    assert_eq!(name, "ada");
    #[cfg(not(feature = "escape"))]
    arena.alloc(Node(None));
    #[cfg(feature = "escape")]
    arena.alloc(Node(Some(name)));
}
