// E0502
//! A text is not used after the interner's memory went.

use nebula_memory::arena::Interner;

fn main() {
    let mut names = Interner::new();
    let ada = names.intern("ada");
    let text = names.resolve(ada);
    #[cfg(not(feature = "escape"))]
    let text = text.map(String::from);
    names.trim(0);
    println!("{text:?}");
}
