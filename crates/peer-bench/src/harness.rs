//! Rounds in turn, and instructions by valgrind.

use crate::{
    options::Options,
    report::{self, Row},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Time of one round, well above what a clock or an interrupt costs.
const ROUND: Duration = Duration::from_micros(400);

/// Does a case's operations so many times, and says how long that took.
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

#[derive(Default)]
pub struct Bench {
    cases: Vec<Case>,
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

    /// Adds a subject of several threads, whose body sums up what its threads took.
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

    pub fn run(&mut self, options: &Options) -> Result<(), String> {
        self.cases.sort_by_key(|case| case.name);
        let names: Vec<_> = self.cases.iter().map(|case| case.name).collect();
        let subjects = self.cases.iter().flat_map(|case| &case.subjects);
        options.check(&names, subjects.map(|subject| subject.name))?;
        if options.instructions && Command::new("valgrind").arg("--version").output().is_err() {
            return Err("--instructions needs valgrind, which is not installed".to_owned());
        }
        let mut summary = Vec::new();
        for case in self.cases.iter().filter(|case| options.wants(case.name)) {
            let rows = case.run(options)?;
            if !rows.is_empty() {
                report::case(case.name, case.about, &rows, options.markdown);
                summary.push((case.name, rows));
            }
        }
        report::summary(&summary, options.markdown);
        Ok(())
    }

    pub fn single(&self, case: &str, subject: &str, times: u32) -> Result<(), String> {
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

    /// Instructions per operation, by callgrind: two runs of different length, so that what is done
    /// once cancels. The measuring loop's own stay in, for every subject alike.
    fn instructions(&self, subject: &str) -> Result<f64, String> {
        let run = |times: u32| -> Option<f64> {
            let output = Command::new("valgrind")
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(std::env::current_exe().ok()?)
                .args(["--single", self.name, subject, &times.to_string()])
                .output()
                .ok()?;
            let text = String::from_utf8(output.stderr).ok()?;
            let line = text.lines().find(|line| line.contains("Collected"))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        // As many bodies as make the noise of the start small, and as few as valgrind is slow.
        let times = (100_000 / self.operations).clamp(2, 10_000);
        let failed = || format!("valgrind did not count {} of {subject}", self.name);
        let few = run(times).ok_or_else(failed)?;
        let many = run(2 * times).ok_or_else(failed)?;
        Ok((many - few) / f64::from(times) / f64::from(self.operations))
    }
}

/// This thread on one core, until dropped.
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
