// E0597
//! A value does not outlive its arena.

use nebula_memory::arena::Arena;

fn main() {
    let mut kept = &mut 0;
    {
        let arena = Arena::new();
        let x = arena.alloc(7);
        *kept += *x;
        #[cfg(feature = "escape")]
        {
            kept = x;
        }
    }
    *kept += 1;
}
