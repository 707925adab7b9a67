// E0277
//! A queue does not pass values to another thread that are not `Send`.

use nebula_memory::lockfree::Queue;
use std::rc::Rc;

fn main() {
    let queue = Queue::<Rc<u64>>::try_with_capacity(4).unwrap();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| queue.pop());
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
    });
    drop(queue);
}
