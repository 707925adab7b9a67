//! Cases that are measured at several sizes. They show how the cost of one operation grows with the number of
//! objects around it.
//!
//! A scene is one subject at one size, and only one scene is alive at a time. A pass measures all sizes and
//! subjects of a case in turn. There are several passes, so that a disturbance of the machine affects all
//! scenes alike. The figure of a scene is its minimum over all passes.
//!
//! A scene is left out if it would take too long, judged by the next smaller size. The table then has a dash.

use crate::{harness, options::Options, report};
use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

/// Passes over all sizes of a case.
const PASSES: usize = 5;

/// Time of one round, far above the cost of a clock or an interrupt.
const ROUND: Duration = Duration::from_micros(400);

/// Operations of the shorter run under valgrind.
const COUNTED: u32 = 5_000;

/// The most time for the rounds of one scene.
const ROUNDS_MOST: Duration = Duration::from_millis(400);

/// A scene that takes longer than this is measured once, with a single operation, and none is larger.
const SLOW: Duration = Duration::from_secs(2);

/// The longest scene that is started. Its time is estimated from the next smaller size, as if it grew with the square of
/// the size.
const SCENE_MOST: Duration = Duration::from_secs(20);

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Nanoseconds per operation.
    Time,
    /// Milliseconds of processor time of the whole process in a second.
    Load,
    /// Bytes of heap.
    Bytes,
}

impl Unit {
    /// Passes over a case with this unit: a load takes a second to measure, and bytes are exact.
    const fn passes(self) -> usize {
        match self {
            Self::Time => PASSES,
            Self::Load => 2,
            Self::Bytes => 1,
        }
    }
}

/// The description of a case.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    /// The things that the size counts.
    pub of: &'static str,
    pub sizes: &'static [usize],
    pub unit: Unit,
    /// The size at which instructions are counted. Only cases of one thread have it.
    pub counted: Option<usize>,
}

/// The highest cost that a subject of ours may have.
#[derive(Clone, Copy)]
pub enum Target {
    /// This figure at this size, in the case's unit.
    Most(f64, usize),
    /// The same, and this many instructions at the size at which they are counted.
    Instructions(f64, usize, f64),
    /// This many times the figure of the smallest size, at this size.
    Growth(f64, usize),
    /// This many times the figure of the best peer, at each of these sizes.
    Peer(f64, &'static [usize]),
}

/// Does the operation a number of times, and returns the sum of the figures.
type Body = Box<dyn FnMut(u32) -> f64>;

struct Subject {
    name: &'static str,
    target: Option<Target>,
    make: Box<dyn Fn(usize) -> Body>,
}

pub struct Case {
    kind: Kind,
    subjects: Vec<Subject>,
}

/// The line of a subject in the table.
pub struct Line {
    pub name: &'static str,
    pub target: Option<Target>,
    pub figures: BTreeMap<usize, f64>,
    pub instructions: Option<f64>,
}

/// Converts a time to nanoseconds.
pub fn nanos(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9
}

/// Times operations that need no preparation. Their results are dropped within that time.
pub fn timed<R>(times: u32, mut operation: impl FnMut() -> R) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        black_box(operation());
    }
    nanos(start.elapsed())
}

/// Times operations that need preparation: `prepare` is given the size of a batch, and is not timed.
pub fn batches<T>(
    times: u32,
    most: usize,
    mut prepare: impl FnMut(usize) -> T,
    mut run: impl FnMut(T),
) -> f64 {
    let (mut left, mut sum) = (times as usize, 0.0);
    while left > 0 {
        let batch = left.min(most);
        left -= batch;
        let prepared = prepare(batch);
        let start = Instant::now();
        run(prepared);
        sum += nanos(start.elapsed());
    }
    sum
}

/// Adds a subject to a case. `make` sets up a scene of the given size and returns its body.
pub fn add<F: FnMut(u32) -> f64 + 'static>(
    cases: &mut Vec<Case>,
    kind: &Kind,
    subject: &'static str,
    target: Option<Target>,
    make: impl Fn(usize) -> F + 'static,
) {
    let at = cases.iter().position(|case| case.kind.name == kind.name).unwrap_or_else(|| {
        cases.push(Case { kind: *kind, subjects: Vec::new() });
        cases.len() - 1
    });
    let make = move |size| Box::new(make(size)) as Body;
    cases[at].subjects.push(Subject { name: subject, target, make: Box::new(make) });
}

/// The measurement of one scene.
struct Scene {
    figure: f64,
    /// Time of the set-up, one operation and the tear-down.
    took: Duration,
}

impl Subject {
    fn scene(&self, unit: Unit, size: usize, rounds: usize) -> Scene {
        let start = Instant::now();
        let mut body = (self.make)(size);
        let made = start.elapsed();
        let first = Instant::now();
        let mut figure = body(1);
        // The time of the other measurements does not depend on the size.
        let mut once = if unit == Unit::Time { first.elapsed() } else { Duration::ZERO };
        if unit == Unit::Time && made + once < SLOW {
            let first = Instant::now();
            figure = figure.min(body(2) / 2.0);
            once = (first.elapsed() / 2).max(Duration::from_nanos(50));
            let times = (ROUND.as_nanos() / once.as_nanos()).clamp(1, 100_000);
            let times = u32::try_from(times).expect("clamped");
            let end = Instant::now() + ROUNDS_MOST;
            for _ in 0..rounds {
                if Instant::now() + once > end {
                    break;
                }
                figure = figure.min(body(times) / f64::from(times));
            }
        }
        let over = Instant::now();
        drop(body);
        Scene { figure, took: made + once + over.elapsed() }
    }
}

impl Case {
    pub const fn name(&self) -> &'static str {
        self.kind.name
    }

    pub fn subjects(&self) -> impl Iterator<Item = &'static str> {
        self.subjects.iter().map(|subject| subject.name)
    }

    pub fn run(&self, options: &Options) -> Result<(), String> {
        let Kind { sizes, unit, counted, .. } = self.kind;
        let subjects = self.subjects.iter().filter(|subject| options.wants_subject(subject.name));
        let line = |subject: &Subject| Line {
            name: subject.name,
            target: subject.target,
            figures: BTreeMap::new(),
            instructions: None,
        };
        let mut lines: Vec<_> = subjects.map(|subject| (subject, line(subject), sizes)).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let rounds = options.rounds.div_ceil(PASSES);
        for _ in 0..unit.passes() {
            for (at, &size) in sizes.iter().enumerate().filter(|size| *size.1 <= options.largest) {
                for (subject, line, left) in &mut lines {
                    if !left.contains(&size) {
                        continue;
                    }
                    let Scene { figure, took } = subject.scene(unit, size, rounds);
                    let least = line.figures.entry(size).or_insert(figure);
                    *least = least.min(figure);
                    let next = sizes.get(at + 1).map_or(0.0, |&next| next as f64 / size as f64);
                    if took > SLOW {
                        *left = &left[..left.partition_point(|left| *left < size)];
                    } else if took.as_secs_f64() * next * next > SCENE_MOST.as_secs_f64() {
                        *left = &left[..left.partition_point(|left| *left <= size)];
                    }
                }
            }
        }
        let mut rows = Vec::new();
        for (subject, mut line, _) in lines {
            if let Some(size) = counted.filter(|_| options.instructions) {
                let subject = format!("{}@{size}", subject.name);
                line.instructions = Some(harness::instructions(self.kind.name, &subject, COUNTED)?);
            }
            rows.push(line);
        }
        report::growth(&self.kind, &rows, options.markdown);
        Ok(())
    }

    /// Runs a subject, named `subject@size`, a number of times. Returns `None` if no subject has that name.
    pub fn single(&self, subject: &str, times: u32) -> Option<()> {
        let (name, size) = subject.rsplit_once('@')?;
        let size = size.parse().ok()?;
        let subject = self.subjects.iter().find(|subject| subject.name == name)?;
        (subject.make)(size)(times);
        Some(())
    }
}
