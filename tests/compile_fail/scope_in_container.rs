// E0521 none
//! A value does not leave a scope in a container from outside the scope.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut kept: Vec<&i32> = vec![&0];
    arena.scope(|scope| {
        let x = &*scope.alloc(7);
        assert_ne!(x, kept[0]);
        #[cfg(feature = "escape")]
        kept.push(x);
    });
    kept.clear();
}
