//! Runs the example as a user does: right answers inside any limit, and clear errors.
#![cfg(feature = "std")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    thread,
};
use tempfile::TempDir;

/// The program, built once. `cargo test` builds an example with tests of its own only as a test.
static ENGINE: LazyLock<PathBuf> = LazyLock::new(|| {
    let arguments = ["build", "--example", "workflow_engine", "--message-format", "json"];
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let messages = text(&output.stdout).lines();
    let messages = messages.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut programs = messages.filter_map(|message| Some(message["executable"].as_str()?.into()));
    programs.next_back().expect("cargo says what it has built")
});

fn engine() -> Command {
    let mut command = Command::new(&*ENGINE);
    let set = env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"NEBULA_"));
    set.for_each(|(name, _)| _ = command.env_remove(name));
    command
}

/// Three tenants of source-like files, made anew for each test.
struct Input {
    directory: TempDir,
}

impl Input {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for tenant in ["alpha", "beta", "gamma"] {
            let source = directory.path().join(tenant).join("src");
            fs::create_dir_all(&source).unwrap();
            // A directory that contains only directories stands for them, so each tenant has a file, too.
            fs::write(directory.path().join(tenant).join("README"), tenant).unwrap();
            for file in 0..40_u32 {
                let mut text = String::from("// a file of many words\n");
                for word in 0..200 {
                    let shared = (file * 7 + word * word) % 991;
                    text +=
                        &format!("pub fn name_{shared}() {{ call_{word}(own_{tenant}_{file}) }}\n");
                }
                fs::write(source.join(format!("file_{file}.rs")), text).unwrap();
            }
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn report(&self) -> PathBuf {
        self.path().join("picture.html")
    }

    fn run(&self, options: &str) -> Output {
        let mut command = engine();
        command.args(options.split_whitespace()).arg("--report").arg(self.report());
        let tenants = ["alpha", "beta", "gamma"].map(|tenant| self.path().join(tenant));
        command.args(tenants).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The line of a report that begins with `word`.
fn line<'r>(report: &'r str, word: &str) -> &'r str {
    let found = report.lines().find(|line| line.starts_with(word));
    found.unwrap_or_else(|| panic!("no `{word}` in: {report}"))
}

#[test]
fn every_answer_is_right_whatever_the_limit_and_the_threads() {
    let input = Input::new();
    let mut first_answers = None;
    for limit in
        ["--limit 500KiB", "--limit 1000KiB", "--limit 2MiB", "--limit 1GiB", "--unbounded"]
    {
        for threads in [1, 8] {
            let options = format!("--verify --queries 10 --threads {threads} {limit}");
            let output = input.run(&options);
            let report = text(&output.stdout);
            assert!(output.status.success(), "{options}: {report}{}", text(&output.stderr));
            assert!(line(report, "answers").ends_with("verified"), "{report}");
            assert!(line(report, "input").contains("123 files of 3 tenants"), "{report}");
            let given_up = !line(report, "cache").ends_with(" 0 given up");
            assert_eq!(given_up, limit.ends_with("KiB"), "{options}: {report}");
            let spilled = !line(report, "spilled").ends_with(" 0 B of signatures");
            assert_eq!(spilled, limit.ends_with(" 500KiB"), "{options}: {report}");
            if limit != "--unbounded" {
                assert!(line(report, "accounted").ends_with("kept"), "{report}");
            }
            let answers: Vec<_> = report.lines().filter(|line| line.contains("`: def")).collect();
            assert_eq!(answers.len(), 3, "{report}");
            let answers: Vec<_> = answers.into_iter().map(str::to_owned).collect();
            assert_eq!(*first_answers.get_or_insert_with(|| answers.clone()), answers);
        }
    }
}

#[test]
fn a_hostile_tenant_costs_the_others_no_answer() {
    let input = Input::new();
    for threads in [1, 8] {
        let options = "--verify --queries 100 --tenants 3 --hostile --limit 2MiB --threads";
        let output = input.run(&format!("{options} {threads}"));
        let report = text(&output.stdout);
        assert!(output.status.success(), "{report}{}", text(&output.stderr));
        assert!(line(report, "answers").ends_with("verified"), "{report}");
        assert!(line(report, "counters").ends_with("kept"), "{report}");
        let hostile: Vec<_> = line(report, "tenant-3, hostile").split_whitespace().collect();
        assert_ne!(hostile[6], "0", "{report}");
        // A refusal counts at every level, and once at each.
        let refused = |row: &str| row.split_whitespace().next_back().unwrap().parse::<u64>();
        let rows = report.lines().skip_while(|line| !line.starts_with("tenant ")).skip(1);
        let tenants = rows.take_while(|row| !row.is_empty()).map(|row| refused(row).unwrap());
        let all = report.lines().find(|line| line.starts_with("total")).unwrap();
        let sum = tenants.sum::<u64>();
        assert!(sum > 0 && sum <= refused(all).unwrap(), "{report}");
    }
}

/// The resident bytes depend on the machine's load: `ci/resident.sh` measures them.
#[test]
fn the_limit_may_be_the_whole_process_s() {
    let input = Input::new();
    let output = input.run("--verify --queries 30 --threads 2 --limit 64MiB --process-limit");
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}{}", text(&output.stderr));
    assert!(line(report, "answers").ends_with("verified"), "{report}");
    assert!(line(report, "accounted").ends_with("kept"), "{report}");
    assert!(line(report, "counters").ends_with("kept"), "{report}");
    if cfg!(target_os = "linux") {
        assert!(line(report, "resident").contains(", limit + 5 % is 67.2 MiB: "), "{report}");
    }
}

#[test]
fn the_picture_is_one_file_that_needs_no_other() {
    let input = Input::new();
    assert!(input.run("--queries 10").status.success());
    let html = fs::read_to_string(input.report()).unwrap();
    let (tenants, components) = html.split_once("By component").unwrap();
    assert_eq!(components.matches("<polygon").count(), 6, "a component each, and what nobody uses");
    assert_eq!(tenants.matches("<polygon").count(), 4, "shared, and a tenant each");
    assert!(["alpha", "beta", "gamma"].iter().all(|tenant| tenants.contains(tenant)), "{html}");
    assert!(html.contains("stroke-dasharray"), "the limit");
    assert!(html.contains("<title>pressure normal</title>"), "{html}");
    let elsewhere = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http") && !elsewhere.contains("<script"), "{html}");
}

#[test]
fn an_error_of_a_small_limit_names_the_input_and_the_budget() {
    let input = Input::new();
    let error_of = |options: &str| {
        let output = input.run(options);
        assert_eq!(output.status.code(), Some(1), "{options}");
        let error = text(&output.stderr).to_owned();
        assert!(error.contains("the limit is too small for "), "{error}");
        assert!(error.contains("budget `process`"), "{error}");
        assert!(error.ends_with(" is enough for this input\n"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    assert!(error_of("--limit 100KiB").contains(" the directory of 123 files: "));
    // The directory fits, and no file does.
    fs::write(input.path().join("alpha/long.txt"), "word ".repeat(400_000)).unwrap();
    let error = error_of("--limit 850KiB");
    assert!(error.contains(" alpha/long.txt: "), "{error}");
    assert!(error.contains(": larger than its limit of 850.0 KiB"), "{error}");
}

#[test]
fn the_first_refusal_names_a_limit_that_is_enough() {
    let word_of = |text: &str, number: usize| match text {
        "one word" => "word".to_owned(),
        "short words" => ["a", "b", "c", "d", "e"][number % 5].to_owned(),
        "distinct words" => format!("unlike_{number}"),
        "long words" => format!("{number:a>60}"),
        other => unreachable!("{other}"),
    };
    for what in ["one word", "short words", "distinct words", "long words"] {
        let directory = TempDir::new().unwrap();
        for (name, words) in [("large", 16_000), ("larger", 24_000), ("small", 100)] {
            let words: Vec<_> = (0..words).map(|number| word_of(what, number)).collect();
            fs::write(directory.path().join(name), words.join(" ")).unwrap();
        }
        for tenants in ["", "--tenants=2"] {
            let run = |limit: &str| {
                let mut command = engine();
                command.args(["--limit", limit, "--queries", "3", "--verify", "--report"]);
                command.arg(directory.path().join(".report"));
                if !tenants.is_empty() {
                    command.arg(tenants);
                }
                command.arg(directory.path()).output().unwrap()
            };
            let refused = run("160KiB");
            assert_eq!(refused.status.code(), Some(1), "{what}: {refused:?}");
            let error = text(&refused.stderr);
            let (_, enough) = error.split_once("; --limit ").expect(error);
            let (enough, _) = enough.split_once(" is enough").expect(error);
            let output = run(&enough.replace(' ', ""));
            assert!(output.status.success(), "{what}: {error}{}", text(&output.stderr));
        }
    }
}

#[test]
fn without_the_library_the_answers_are_the_same() {
    let input = Input::new();
    let answers = |options: &str| {
        let mut command = engine();
        command.args(options.split_whitespace());
        let tenants = ["alpha", "beta", "gamma"].map(|tenant| input.path().join(tenant));
        let output = command.args(tenants).current_dir(input.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report = text(&output.stdout).to_owned();
        assert!(line(&report, "answers").ends_with("verified"), "{report}");
        let answers: Vec<_> = report.lines().filter(|line| line.contains("`: def")).collect();
        assert_eq!(answers.len(), 3, "{report}");
        answers.join("\n")
    };
    assert_eq!(answers("--verify --bare"), answers("--verify --limit 1MiB"));
    assert_eq!(fs::read_dir(input.path()).unwrap().count(), 4, "one report, of the second run");
}

/// A reader that closes the pipe early, such as `head`.
#[cfg(unix)]
#[test]
fn a_report_that_nobody_reads_to_the_end_is_no_failure() {
    let input = Input::new();
    let mut command = engine();
    command
        .args(["--queries", "10", "--report"])
        .arg(input.report())
        .arg(input.path().join("beta"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert!(fs::read_to_string(input.report()).unwrap().contains("<svg"), "the picture is there");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_work_with_a_report() {
    let input = Input::new();
    let mut command = engine();
    // Longer than any test waits.
    command.args(["--seconds", "600", "--verify", "--report"]).arg(input.report());
    let running = command.arg(input.path().join("alpha")).stdout(Stdio::piped()).spawn().unwrap();
    // The engine creates the report once it waits for ^C, and writes it at the end.
    while !input.report().exists() {
        thread::yield_now();
    }
    let kill = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = running.wait_with_output().unwrap();
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{report}");
    assert!(line(report, "answered").ends_with("; stopped"), "{report}");
    assert!(line(report, "counters").ends_with("kept"), "{report}");
    assert!(fs::read_to_string(input.report()).unwrap().contains("<svg"), "a new picture");
}

#[test]
fn without_a_limit_it_is_a_quarter_of_the_input_within_bounds() {
    let directory = TempDir::new().unwrap();
    let limit_for = |files: u64, bytes: u64| {
        for file in 0..files {
            // The file is sparse, and not text: it takes no room and no time.
            let file = fs::File::create(directory.path().join(format!("zeroes_{file}")));
            file.unwrap().set_len(bytes).unwrap();
        }
        let report = directory.path().join(".report");
        let output = engine().arg("--report").arg(report).arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let accounted = line(text(&output.stdout), "accounted");
        accounted.split_once(", limit ").unwrap().1.to_owned()
    };
    assert_eq!(limit_for(1, 1000), "8.0 MiB (the least by default): kept");
    assert_eq!(limit_for(40, 1 << 20), "10.0 MiB (a quarter of the input): kept");
    assert_eq!(limit_for(260, 1 << 20), "64.0 MiB (the most by default): kept");
}

#[test]
fn the_components_add_up_to_the_accounted_total() {
    let input = Input::new();
    let output = input.run("--limit 16MiB --queries 50 --threads 8");
    let report = text(&output.stdout);
    let rows = report.lines().skip_while(|line| !line.starts_with("component")).skip(1);
    let used = |row: &str| {
        let cells: Vec<_> = row[24..].split_whitespace().take(2).collect();
        let unit = match cells[1] {
            "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            other => panic!("{other} in {row}"),
        };
        cells[0].parse::<f64>().unwrap() * unit
    };
    let rows: Vec<_> = rows.take_while(|row| !row.is_empty()).collect();
    let (total, parts) = rows.split_last().unwrap();
    assert!(total.starts_with("total") && parts.len() == 6, "{report}");
    let sum: f64 = parts.iter().map(|row| used(row)).sum();
    // Each figure is rounded to a tenth of its unit.
    assert!((sum - used(total)).abs() < 0.1 * 1_048_576.0, "{report}");
    assert!(used(parts[5]) > 0.0, "the tenants have less than they are guaranteed: {report}");
}

#[test]
fn files_that_disappear_meanwhile_are_counted_and_not_fatal() {
    let input = Input::new();
    let mut command = engine();
    command.args(["--limit", "1000KiB", "--queries", "100", "--verify", "--report"]);
    command.arg(input.report()).args(["alpha", "beta", "gamma"]).current_dir(input.path());
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for file in 0..40 {
        fs::remove_file(input.path().join(format!("beta/src/file_{file}.rs"))).unwrap();
        thread::yield_now();
    }
    // The files may vanish before they are found, before they are read, or later.
    let output = running.wait_with_output().unwrap();
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_the_work() {
    let input = Input::new();
    fs::write(input.path().join("file"), "").unwrap();
    let run = |report: &str| {
        let mut command = engine();
        command.arg("--report").arg(input.path().join(report)).arg(input.path().join("alpha"));
        command.output().unwrap()
    };
    for report in ["file/picture.html", "beta"] {
        let output = run(report);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
        let error = text(&output.stderr);
        assert!(error.contains("--report") && error.contains(report), "{error}");
    }
    assert!(run("new/and/below/picture.html").status.success(), "directories are created");
}

#[test]
fn a_bad_option_is_named_with_the_allowed_values() {
    for (options, named, allowed) in [
        ("--limit much", "--limit", "64KiB"),
        ("--limit 0", "--limit", "at least 1 B"),
        ("--limit -5", "--limit", "64KiB"),
        ("--limit 99999999TiB", "--limit", "64KiB"),
        ("--limit 101%", "--limit", "75%"),
        ("--bare --limit 1MiB", "--bare", "cannot be used"),
        ("--threads 0", "--threads", "1..=256"),
        ("--queries -1", "--queries", "0..=10000000"),
        ("--hostile", "--hostile", "--tenants"),
        ("--tenants 0", "--tenants", "1..=256"),
        ("--unbounded --limit 1MiB", "--unbounded", "cannot be used"),
        ("/does/not/exist", "/does/not/exist", "No such file"),
    ] {
        let output = Input::new().run(options);
        assert_eq!(output.status.code(), Some(2), "{options}");
        let error = text(&output.stderr);
        assert!(error.contains(named) && error.contains(allowed), "{options}: {error}");
    }
}

#[test]
fn the_environment_is_obeyed_and_the_command_line_goes_first() {
    let input = Input::new();
    let run = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = engine();
        command.env(name, value).args(["--queries", "1", "--report"]).arg(input.report());
        command.args(arguments).arg(input.path().join("alpha")).output().unwrap()
    };
    let output = run("NEBULA_MEMORY__BUDGET__LIMIT", "20MiB", &[]);
    assert!(line(text(&output.stdout), "accounted").contains("limit 20.0 MiB"));
    let output = run("NEBULA_MEMORY__BUDGET__LIMIT", "20MiB", &["--limit", "30MiB"]);
    assert!(line(text(&output.stdout), "accounted").contains("limit 30.0 MiB"));
    let tenant = "NEBULA_MEMORY__BUDGET__CHILDREN__TENANTS__CHILDREN__ALPHA__LIMIT";
    let output = run(tenant, "64KiB", &[]);
    assert!(line(text(&output.stdout), "alpha").contains(" KiB"), "{}", text(&output.stdout));
    let output = run("NEBULA_MEMORY__BUDGET__LIMITS", "1", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`budget.limits`"));
}

#[test]
fn an_unreadable_file_is_counted_and_named_and_not_fatal() {
    let input = Input::new();
    let alpha = input.path().join("alpha");
    fs::write(alpha.join("image.png"), b"\x89PNG\0\0").unwrap();
    // The file is sparse: it takes no room.
    fs::File::create(alpha.join("huge.txt")).unwrap().set_len(5 << 30).unwrap();
    let output = input.run("--verify --queries 50");
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(line(report, "input").ends_with("1 unreadable, 1 binary"), "{report}");
    assert!(report.contains("huge.txt: larger than 4 GiB"), "{report}");
}
