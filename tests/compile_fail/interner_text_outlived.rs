// E0597 E0505
//! A text does not outlive its interner.

use nebula_memory::arena::Interner;

fn main() {
    let mut names = Interner::new();
    let ada = names.intern("ada");
    let text = names.resolve(ada);
    assert_eq!(text, Some("ada"));
    #[cfg(feature = "escape")]
    drop(names);
    println!("{text:?}");
}
