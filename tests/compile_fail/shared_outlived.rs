// E0597 E0505
//! A value of a shared arena does not outlive it, though the thread that made it is gone.

use nebula_memory::arena::SharedArena;

fn main() {
    let arena = SharedArena::new();
    let x = std::thread::scope(|threads| threads.spawn(|| arena.alloc(7)).join().unwrap());
    assert_eq!(*x, 7);
    #[cfg(feature = "escape")]
    drop(arena);
    assert_eq!(*x, 7);
}
