// E0499
//! Vacant slots are not written to once another value was pushed there.

use nebula_memory::lockfree::ring;

fn main() {
    let (mut producer, _consumer) = ring::<u64>(4);
    let (first, _) = producer.spare();
    #[cfg(feature = "escape")]
    producer.push(7).unwrap();
    first[0].write(8);
    producer.push(9).unwrap();
}
