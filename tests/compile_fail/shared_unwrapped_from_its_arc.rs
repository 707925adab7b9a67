// E0502 E0505 E0506
//! A value borrows the `Arc` that it was allocated from, which is not moved meanwhile.

use nebula_memory::arena::{ArcArena, SharedArena};
use std::sync::Arc;

fn main() {
    let share = ArcArena::from(SharedArena::new());
    let x = share.alloc(7);
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    let x = 7;
    Arc::try_unwrap(share.into_arc()).unwrap().reset();
    println!("{x}");
}
