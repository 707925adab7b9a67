// E0502
//! Values that were looked at are not dropped while they are borrowed.

use nebula_memory::lockfree::ring;

fn main() {
    let (mut producer, mut consumer) = ring::<String>(4);
    producer.push(String::from("seven")).unwrap();
    let (first, _) = consumer.peek();
    let text = first[0].as_str();
    #[cfg(feature = "escape")]
    consumer.consume(1);
    println!("{text}");
    consumer.consume(1);
}
