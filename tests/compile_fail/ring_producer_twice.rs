// E0599
//! A ring has one producer.

use nebula_memory::lockfree::ring;

fn main() {
    let (producer, _consumer) = ring::<u64>(4);
    #[cfg(feature = "escape")]
    let _second = producer.clone();
    drop(producer);
}
