//! Runs the subjects in turn, round by round, and counts instructions with valgrind.

use crate::{
    growth,
    options::Options,
    report::{self, Row},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Time of one round, far above the cost of a clock or an interrupt.
const ROUND: Duration = Duration::from_micros(400);

/// Does a case's operations so many times, and returns the time.
type Body = Box<dyn FnMut(u32) -> Duration>;

struct Subject {
    name: &'static str,
    make: Box<dyn Fn() -> Body>,
}

struct Case {
    name: &'static str,
    about: &'static str,
    operations: u32,
    threads: bool,
    subjects: Vec<Subject>,
}

/// The highest cost that our subject may have in a case.
#[derive(Clone, Copy)]
pub enum Target {
    /// This many nanoseconds.
    Most(f64),
    /// The same, and this many instructions.
    Instructions(f64, f64),
    /// This many times the time of this floor.
    Floor(f64, &'static str),
}

#[derive(Default)]
pub struct Bench {
    cases: Vec<Case>,
    targets: Vec<(&'static str, Target)>,
    /// The cases whose sizes grow.
    pub growth: Vec<growth::Case>,
}

impl Bench {
    /// Adds a subject to a case. `make` prepares it and returns a body of `operations` operations.
    pub fn add<F: FnMut() + 'static>(
        &mut self,
        case: (&'static str, &'static str),
        operations: usize,
        subject: &'static str,
        make: impl Fn() -> F + 'static,
    ) {
        self.push(case, operations, false, subject, move || {
            let mut body = make();
            Box::new(move |times| {
                let start = Instant::now();
                for _ in 0..times {
                    body();
                }
                start.elapsed()
            })
        });
    }

    /// Adds a subject of several threads. Its body returns the sum of its threads' times.
    pub fn add_threads<F: FnMut() -> Duration + 'static>(
        &mut self,
        case: (&'static str, &'static str),
        operations: usize,
        subject: &'static str,
        make: impl Fn() -> F + 'static,
    ) {
        self.push(case, operations, true, subject, move || {
            let mut body = make();
            Box::new(move |times| (0..times).map(|_| body()).sum())
        });
    }

    fn push(
        &mut self,
        (name, about): (&'static str, &'static str),
        operations: usize,
        threads: bool,
        subject: &'static str,
        make: impl Fn() -> Body + 'static,
    ) {
        let operations = u32::try_from(operations).expect("a body is short");
        let at = self.cases.iter().position(|case| case.name == name).unwrap_or_else(|| {
            self.cases.push(Case { name, about, operations, threads, subjects: Vec::new() });
            self.cases.len() - 1
        });
        let case = &mut self.cases[at];
        assert_eq!(case.operations, operations, "all subjects of a case do the same");
        case.subjects.push(Subject { name: subject, make: Box::new(make) });
    }

    /// Sets the target of a case.
    pub fn target(&mut self, case: &'static str, target: Target) {
        self.targets.push((case, target));
    }

    pub fn run(&mut self, options: &Options) -> Result<(), String> {
        self.cases.sort_by_key(|case| case.name);
        self.growth.sort_by_key(growth::Case::name);
        let growing = self.growth.iter().map(growth::Case::name);
        let names: Vec<_> = self.cases.iter().map(|case| case.name).chain(growing).collect();
        let subjects = self.cases.iter().flat_map(|case| &case.subjects);
        let growing = self.growth.iter().flat_map(growth::Case::subjects);
        options.check(&names, subjects.map(|subject| subject.name).chain(growing))?;
        if options.instructions && Command::new("valgrind").arg("--version").output().is_err() {
            return Err("--instructions needs valgrind, which is not installed".to_owned());
        }
        let mut summary = Vec::new();
        for case in self.cases.iter().filter(|case| options.wants(case.name)) {
            let rows = case.run(options)?;
            if !rows.is_empty() {
                let target = self.targets.iter().find(|target| target.0 == case.name);
                let target = target.map(|target| target.1);
                report::case(case.name, case.about, &rows, target, options.markdown);
                summary.push((case.name, rows, target));
            }
        }
        if !summary.is_empty() {
            report::summary(&summary, options.markdown);
        }
        self.growth
            .iter()
            .filter(|case| options.wants(case.name()))
            .try_for_each(|case| case.run(options))
    }

    pub fn single(&self, case: &str, subject: &str, times: u32) -> Result<(), String> {
        let growing = self.growth.iter().find(|known| known.name() == case);
        if let Some(()) = growing.and_then(|known| known.single(subject, times)) {
            return Ok(());
        }
        let found = self
            .cases
            .iter()
            .filter(|known| known.name == case)
            .flat_map(|case| &case.subjects)
            .find(|known| known.name == subject)
            .ok_or_else(|| format!("there is no {case} of {subject}"))?;
        (found.make)()(times);
        Ok(())
    }
}

impl Case {
    fn run(&self, options: &Options) -> Result<Vec<Row>, String> {
        let _pinned = match options.pin {
            Some(core) if !self.threads => Some(Pinned::to(core)?),
            _ => None,
        };
        let mut running: Vec<_> = self
            .subjects
            .iter()
            .filter(|subject| options.wants_subject(subject.name))
            .map(|subject| {
                let mut body = (subject.make)();
                let once = (body(2) / 2).max(Duration::from_nanos(50));
                let times = (ROUND.as_nanos() / once.as_nanos()).clamp(1, 100_000);
                let times = u32::try_from(times).expect("clamped");
                (subject.name, body, times, Vec::with_capacity(options.rounds))
            })
            .collect();
        for _ in 0..options.rounds {
            for (_, body, times, figures) in &mut running {
                let operations = f64::from(*times) * f64::from(self.operations);
                figures.push(body(*times).as_secs_f64() * 1e9 / operations);
            }
        }
        running
            .into_iter()
            .map(|(name, _, _, mut figures)| {
                figures.sort_by(f64::total_cmp);
                let instructions =
                    if options.instructions { Some(self.instructions(name)?) } else { None };
                Ok(Row {
                    name,
                    least: figures[0],
                    median: figures[figures.len() / 2],
                    instructions,
                })
            })
            .collect()
    }

    fn instructions(&self, subject: &str) -> Result<f64, String> {
        // Runs enough bodies that the start adds little noise, but few, as valgrind is slow.
        let times = (100_000 / self.operations).clamp(2, 10_000);
        Ok(instructions(self.name, subject, times)? / f64::from(self.operations))
    }
}

/// Counts the instructions of one body with callgrind. The difference of two runs of different lengths
/// removes the set-up. The instructions of the measuring loop stay in, for every subject alike.
pub fn instructions(case: &str, subject: &str, times: u32) -> Result<f64, String> {
    let run = |times: u32| -> Option<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?)
            .args(["--single", case, subject, &times.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("Collected"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let failed = || format!("valgrind did not count {case} of {subject}");
    let few = run(times).ok_or_else(failed)?;
    let many = run(2 * times).ok_or_else(failed)?;
    Ok((many - few) / f64::from(times))
}

/// Keeps this thread on one core until it is dropped.
struct Pinned(rustix::thread::CpuSet);

impl Pinned {
    fn to(core: usize) -> Result<Self, String> {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let refused = |error| format!("--pin {core}: {error}");
        let before = sched_getaffinity(None).map_err(refused)?;
        if core >= CpuSet::MAX_CPU || !before.is_set(core) {
            return Err(format!("--pin {core}: this process may not run on that core"));
        }
        let mut one = CpuSet::new();
        one.set(core);
        sched_setaffinity(None, &one).map_err(refused)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        rustix::thread::sched_setaffinity(None, &self.0).expect("the cores of before");
    }
}
