// none E0521
//! The scopes of two arenas do not change places.

use nebula_memory::arena::Arena;

fn main() {
    let (mut one, mut other) = (Arena::new(), Arena::new());
    one.scope(|first| {
        other.scope(|second| {
            assert_eq!(first.alloc(1), second.alloc(1));
            #[cfg(feature = "escape")]
            std::mem::swap(first, second);
        });
    });
}
