// none E0521
//! A value does not leave a scope in an iterator that borrows the value.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut later: Box<dyn Iterator<Item = i32>> = Box::new(std::iter::empty());
    arena.scope(|scope| {
        let all = &*scope.alloc_slice_copy(&[1, 2, 3]);
        assert_eq!(all.len(), 3);
        #[cfg(feature = "escape")]
        {
            later = Box::new(all.iter().copied());
        }
    });
    later.next();
}
