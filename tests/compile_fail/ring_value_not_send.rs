// E0277
//! A ring does not pass values to another thread that are not `Send`.

use nebula_memory::lockfree::ring;
use std::rc::Rc;

fn main() {
    let (producer, consumer) = ring::<Rc<u64>>(4);
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || drop(producer));
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 7);
    });
    drop(consumer);
}
