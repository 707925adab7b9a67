//! Programs that the compiler must refuse, as a value would escape. Each is a file of its own in
//! `tests/compile_fail`.
//!
//! A program compiles without the feature `escape`. With that feature it does not: the feature adds the one
//! step too far, so nothing but this step can be the error. A program's first line names the permitted error
//! codes, with `none` for an error without a code. Messages are not compared, as they differ between
//! compilers.
#![cfg(all(feature = "allocator-api2-04", not(miri)))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The error codes and messages, by program.
type Errors = BTreeMap<String, Vec<(String, String)>>;

/// The programs, by name.
fn programs() -> BTreeMap<String, PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// A package in the target directory: a binary for each program, and one with all programs.
fn package(programs: &BTreeMap<String, PathBuf>) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&dir).unwrap();
    let mut manifest = format!(
        "[package]\nname = \"compile-fail\"\nedition = \"2024\"\n[workspace]\n\
         [features]\nescape = []\n[dependencies]\n\
         nebula-memory = {{ path = {root:?}, features = [\"full\"] }}\n\
         allocator_api2_04 = {{ package = \"allocator-api2\", version = \"0.4\" }}\n\
         [[bin]]\nname = \"all\"\npath = \"all.rs\"\n"
    );
    let mut all = String::from("fn main() {}\n");
    for (name, path) in programs {
        writeln!(manifest, "[[bin]]\nname = {name:?}\npath = {path:?}").unwrap();
        writeln!(all, "#[path = {path:?}]\nmod {name};").unwrap();
    }
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("all.rs"), all).unwrap();
    // The package uses the dependencies that are already downloaded.
    let _ = fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock"));
    dir
}

/// Checks these binaries and returns the compiler's errors, by program.
fn check<'a>(package: &Path, escape: bool, binaries: impl IntoIterator<Item = &'a str>) -> Errors {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--keep-going", "--message-format", "json"])
        .args(["--features", if escape { "escape" } else { "" }])
        .args(binaries.into_iter().flat_map(|name| ["--bin", name]))
        .arg("--target-dir")
        .arg(package.join("target"))
        .current_dir(package)
        .output()
        .expect("cargo runs");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut errors = Errors::new();
    let mut ran = false;
    for line in lines.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        ran |= message["reason"] == "build-finished";
        let error = &message["message"];
        if message["reason"] != "compiler-message" || error["level"] != "error" {
            continue;
        }
        // The compiler's last error, which states the number of errors, has no location.
        let spans = error["spans"].as_array().into_iter().flatten();
        for place in spans.filter(|span| span["is_primary"] == true) {
            let file = Path::new(place["file_name"].as_str().unwrap()).file_stem().unwrap();
            let code = error["code"]["code"].as_str().unwrap_or("none").to_owned();
            let text = error["rendered"].as_str().unwrap_or_default().to_owned();
            errors.entry(file.to_str().unwrap().to_owned()).or_default().push((code, text));
        }
    }
    assert!(ran, "cargo failed: {}", String::from_utf8_lossy(&output.stderr));
    errors
}

#[test]
fn no_value_escapes_and_all_that_is_left_compiles() {
    let programs = programs();
    assert!(programs.len() >= 110);
    let package = package(&programs);
    let legal = check(&package, false, ["all"]);
    assert!(legal.is_empty(), "does not compile without the escape: {legal:#?}");

    // One compilation reports nearly all errors. A program whose error is hidden by another program's error
    // is checked alone.
    let mut errors = check(&package, true, ["all"]);
    let alone: Vec<_> = programs.keys().filter(|name| !errors.contains_key(*name)).collect();
    if !alone.is_empty() {
        errors.extend(check(&package, true, alone.into_iter().map(|name| &name[..])));
    }
    let mut wrong = String::new();
    for (name, path) in &programs {
        let source = fs::read_to_string(path).unwrap();
        let codes = source.lines().next().and_then(|line| line.strip_prefix("// ")).unwrap();
        let allowed: BTreeSet<_> = codes.split(' ').collect();
        match errors.get(name) {
            None => writeln!(wrong, "{name} compiles").unwrap(),
            Some(errors) => {
                for (code, text) in errors.iter().filter(|(code, _)| !allowed.contains(&code[..])) {
                    writeln!(wrong, "{name}: {code} is not one of {codes}:\n{text}").unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
