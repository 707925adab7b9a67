// E0502
//! What goes through an interner's texts ends before another is added.

use nebula_memory::arena::Interner;

fn main() {
    let mut names = Interner::new();
    names.intern("ada");
    let mut texts = names.iter();
    assert!(texts.next().is_some());
    #[cfg(not(feature = "escape"))]
    drop(texts);
    names.intern("bob");
    #[cfg(feature = "escape")]
    texts.next();
}
