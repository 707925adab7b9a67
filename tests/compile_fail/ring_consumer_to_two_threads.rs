// E0277
//! An end of a ring is used by one thread at a time.

use nebula_memory::lockfree::ring;

fn main() {
    let (_producer, consumer) = ring::<u64>(4);
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| consumer.peek().0.len());
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || consumer.peek().0.len());
    });
}
