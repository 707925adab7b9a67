// none E0521 E0308 E0597 E0505
//! The result of a transaction lives as long as the scope, and no longer.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let kept = {
        let mut scope = arena.as_scope();
        let kept = scope.transact::<&'static mut i32, ()>(|scope| Ok(scope.alloc(7)));
        kept.unwrap()
    };
    assert_eq!(*kept, 7);
    #[cfg(feature = "escape")]
    drop(arena);
    println!("{kept}");
}
