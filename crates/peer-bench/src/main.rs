//! nebula-memory beside the best crates of each kind.
//!
//! ```text
//! cargo run --release                       every case, minimum and median in nanoseconds
//! cargo run --release -- --instructions     instructions per operation as well, by valgrind
//! cargo run --release -- --case b,c2        some cases
//! cargo run --release -- --markdown         tables for docs/BENCHMARKS.md
//! ```
//!
//! The subjects of a case run in turn, round by round, so that a disturbance of the machine affects all of
//! them. The minimum is the cost of the code. The median includes the disturbances.

mod blocks;
mod budgets;
mod growth;
mod harness;
mod heaps;
mod managers;
mod memory;
mod options;
mod pools;
mod queues;
mod report;
mod responses;
mod scopes;
mod slabs;
mod steady;
mod subjects;
mod system;
mod threads;
mod tracking;
mod trees;
mod typed;
mod values;
mod vectors;
mod waiters;

use options::{Mode, Options};
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: memory::Counting = memory::Counting;

fn main() -> ExitCode {
    let mut bench = harness::Bench::default();
    values::register(&mut bench);
    vectors::register(&mut bench);
    scopes::register(&mut bench);
    blocks::register(&mut bench);
    threads::register(&mut bench);
    typed::register(&mut bench);
    system::register(&mut bench);
    budgets::register(&mut bench);
    responses::register(&mut bench);
    tracking::register(&mut bench);
    waiters::register(&mut bench);
    managers::register(&mut bench);
    steady::register(&mut bench);
    trees::register(&mut bench);
    queues::register(&mut bench);
    pools::register(&mut bench);
    slabs::register(&mut bench);

    let done = Options::parse(std::env::args().skip(1)).and_then(|options| match &options.mode {
        Mode::Table => {
            bench.run(&options)?;
            memory::run(&options)
        }
        Mode::Single { case, subject, times } => bench.single(case, subject, *times),
        Mode::Probe { subject } => memory::probe(subject),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("peer-bench: {message}");
            ExitCode::from(2)
        }
    }
}
