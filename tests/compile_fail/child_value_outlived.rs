// E0597
//! A child's values end with the child, though its parent stays.

use nebula_memory::arena::Arena;

fn main() {
    let parent = Arena::new();
    let kept = {
        let child = parent.child();
        let x = child.alloc(7);
        #[cfg(not(feature = "escape"))]
        let x = parent.alloc(*x);
        x
    };
    println!("{kept}");
}
