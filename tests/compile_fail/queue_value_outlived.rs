// E0597
//! A value in a queue may not refer to a value that is dropped before the queue.

use nebula_memory::lockfree::Queue;

fn main() {
    let outer = String::from("seven");
    let queue = Queue::try_with_capacity(4).unwrap();
    {
        let inner = String::from("eight");
        #[cfg(feature = "escape")]
        queue.push(&inner).unwrap();
        #[cfg(not(feature = "escape"))]
        queue.push(&outer).unwrap();
        println!("{inner}");
    }
    println!("{:?} {outer}", queue.pop());
}
