//! nebula-memory beside the best crates of each kind.
//!
//! ```text
//! cargo run --release                       every case, minimum and median in nanoseconds
//! cargo run --release -- --instructions     instructions per operation as well, by valgrind
//! cargo run --release -- --case b,c2        some cases
//! ```
//!
//! The subjects of a case are run in turn, round by round, so that whatever else the machine does
//! falls on all of them. The minimum is what the code costs; the median is what the machine made of it.

mod arenas;
mod blocks;
mod harness;
mod system;

use harness::{Bench, Options};
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut bench = Bench::default();
    arenas::register(&mut bench);
    blocks::register(&mut bench);
    system::register(&mut bench);
    bench.run(&options)
}
