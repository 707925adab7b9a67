// none E0521
//! A value leaves a transaction only in the result, as the transaction may be undone.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scope = arena.as_scope();
    let mut escaped = None;
    let failed = scope.transact::<(), ()>(|scope| {
        let x: &mut i32 = scope.alloc(7);
        #[cfg(not(feature = "escape"))]
        {
            escaped = Some(*x);
        }
        #[cfg(feature = "escape")]
        {
            escaped = Some(x);
        }
        Err(())
    });
    assert_eq!(failed, Err(()));
    println!("{escaped:?}");
}
