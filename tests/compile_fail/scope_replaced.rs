// none E0521 E0308
//! A scope is not stored outside and used after its end.

use nebula_memory::arena::{Arena, Scope};

fn main() {
    let (mut one, mut other) = (Arena::new(), Arena::new());
    let mut kept: Option<&mut Scope<'_>> = None;
    one.scope(|first| {
        first.alloc(1);
        #[cfg(feature = "escape")]
        {
            kept = Some(first);
        }
    });
    other.scope(|second| *second.alloc(2));
    assert!(kept.is_none());
}
