// E0597
//! A scope's base may be borrowed for a shorter time. The scope then keeps nothing for longer.

use nebula_memory::{
    allocator::SystemAllocator,
    arena::{Arena, Scope},
};

/// The same scope, over a base that is borrowed for as long as `value`.
fn narrowed<'s, 'v: 's>(scope: Scope<'s, &'v SystemAllocator>, _: &'v i32) -> Scope<'s, &'v SystemAllocator> {
    scope
}

fn main() {
    let base = SystemAllocator;
    let mut arena = Arena::new_in(&base);
    let kept = {
        let value = 7;
        let mut scope = narrowed(arena.as_scope(), &value);
        #[cfg(feature = "escape")]
        let kept = scope.transact::<&'static i32, ()>(|_| Ok(&value));
        #[cfg(not(feature = "escape"))]
        let kept = scope.transact::<&'static i32, ()>(|scope| Ok(scope.alloc(7))).map(|kept| *kept);
        kept.unwrap()
    };
    println!("{kept}");
}
