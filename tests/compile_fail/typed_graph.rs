// E0597
//! Values with a drop do not refer to values of the same arena. They may refer to values of another arena.

use nebula_memory::arena::{Arena, TypedArena};
use std::cell::Cell;

struct Node<'a>(Cell<Option<&'a Node<'a>>>);

fn main() {
    let graph = Arena::new();
    let node = &*graph.alloc(Node(Cell::new(None)));
    node.0.set(Some(node));

    let dropped = TypedArena::new();
    let node = &*dropped.alloc(Node(Cell::new(Some(node))));
    #[cfg(feature = "escape")]
    node.0.set(Some(node));
    node.0.take();
}
