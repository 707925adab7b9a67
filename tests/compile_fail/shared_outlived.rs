// E0597 E0505
//! A value does not outlive its shared arena, even if the thread that made the value has ended.

use nebula_memory::arena::SharedArena;

fn main() {
    let arena = SharedArena::new();
    let x = std::thread::scope(|threads| threads.spawn(|| arena.alloc(7)).join().unwrap());
    assert_eq!(*x, 7);
    #[cfg(feature = "escape")]
    drop(arena);
    assert_eq!(*x, 7);
}
