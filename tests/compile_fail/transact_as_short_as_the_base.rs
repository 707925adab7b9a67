// E0597
//! A transaction's result may live as short as the arena's base allocator, and then ends with it.

use nebula_memory::{allocator::SystemAllocator, arena::Arena};

fn main() {
    let outer = SystemAllocator;
    let mut arena = Arena::new_in(&outer);
    let mut scope = arena.as_scope();
    let kept = {
        let value = 7;
        #[cfg(not(feature = "escape"))]
        let _ = &value;
        #[cfg(not(feature = "escape"))]
        let kept = scope.transact::<&'static i32, ()>(|scope| Ok(scope.alloc(7)));
        #[cfg(feature = "escape")]
        let kept = scope.transact::<&'static i32, ()>(|_| Ok(&value));
        kept.unwrap()
    };
    assert_eq!(*kept, 7);
}
