// E0521 none
//! A value does not leave a scope in a cell behind a shared reference.

use nebula_memory::arena::Arena;
use std::cell::RefCell;

fn main() {
    let mut arena = Arena::new();
    let kept: RefCell<Option<&str>> = RefCell::new(None);
    arena.scope(|scope| {
        let text = &*scope.alloc_str("gone");
        assert!(!text.is_empty());
        #[cfg(feature = "escape")]
        kept.replace(Some(text));
    });
    kept.take();
}
