// E0502
//! Two arenas are not swapped while a value of one is used.

use nebula_memory::arena::Arena;

fn main() {
    let (mut one, mut other) = (Arena::new(), Arena::new());
    let x = one.alloc(7);
    *x += 1;
    std::mem::swap(&mut one, &mut other);
    drop(other);
    #[cfg(feature = "escape")]
    println!("{x}");
    one.reset();
}
