//! Runs targets without a fuzzer. `replay arena FILE…` runs one target on inputs that a fuzzer found. `replay
//! COUNT` runs all targets on as many pseudo-random inputs.

use std::{env, fs};

/// The longest input, in bytes.
const MOST: u64 = 2000;

/// The `xorshift64*` generator (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments[..] {
        [count] if count.parse::<u64>().is_ok() => {
            let count = count.parse().expect("just parsed");
            for target in nebula_memory_fuzz::targets() {
                let mut random = Random(0x9E37_79B9_7F4A_7C15);
                for _ in 0..count {
                    let len = random.next() % MOST;
                    let data: Vec<_> = (0..len).map(|_| random.next().to_be_bytes()[0]).collect();
                    nebula_memory_fuzz::run(target, &data);
                }
                println!("{target}: {count} inputs");
            }
        }
        [target, files @ ..] if !files.is_empty() => {
            for file in files {
                nebula_memory_fuzz::run(target, &fs::read(file).expect("a readable file"));
                println!("{target}: {file}");
            }
        }
        _ => eprintln!("usage: replay COUNT | replay TARGET FILE…"),
    }
}
