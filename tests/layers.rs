//! The arrows between the modules run one way, as `docs/ARCHITECTURE.md` draws them.
#![cfg(not(miri))]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers, bottom first. A module may import from its own path and from lower layers only.
const LAYERS: &[&[&str]] = &[
    &["utils", "macros"],
    &["core"],
    &["integration::traits"],
    &["syscalls"],
    &["allocator"],
    &["advanced::lockfree"],
    &["advanced::budget"],
    &["advanced::arena", "advanced::pool", "advanced::cache"],
    &["integration::monitoring"],
];

/// Names that must not come back at any depth.
const BANNED: &[&str] =
    &["platform", "compression", "extensions", "stats", "streaming", "advanced_lifecycle"];

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(!BANNED.contains(&name), "{} must not exist", path.display());
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module that a file is, or is part of: `src/advanced/pool/guard.rs` → `advanced::pool::guard`.
fn module_of(file: &Path, src: &Path) -> String {
    let relative = file.strip_prefix(src).unwrap().with_extension("");
    let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
    parts.join("::").trim_end_matches("::mod").to_string()
}

fn layer_of(module: &str) -> Option<(usize, &'static str)> {
    LAYERS.iter().enumerate().find_map(|(rank, names)| {
        let name = names.iter().find(|name| {
            module.strip_prefix(**name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })?;
        Some((rank, *name))
    })
}

/// Every path that begins with `crate::`, with groups in braces written out.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$') {
            expand(&code[at + "crate::".len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one path, or a group of them, after `prefix`; returns what is left of `text`.
fn expand<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(rest, prefix, paths).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                _ => break,
            }
        }
        return rest.trim_start_matches(',').trim_start().trim_start_matches('}');
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(rest, &format!("{path}::"), paths),
        None => {
            paths.push(path);
            let rest = &text[end..];
            match rest.trim_start().strip_prefix("as ") {
                Some(rest) => {
                    let rest = rest.trim_start();
                    &rest[rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0)..]
                }
                None => rest,
            }
        }
    }
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_run_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the walk found the sources");

    let (mut wrong, mut checked) = (Vec::new(), 0);
    for file in files {
        let module = module_of(&file, &src);
        let Some((rank, name)) = layer_of(&module) else {
            continue; // `lib.rs` and the folders that only list their modules.
        };
        for path in crate_paths(&without_comments(&fs::read_to_string(&file).unwrap())) {
            checked += 1;
            match layer_of(&path) {
                Some((to, other)) if to < rank || other == name => {}
                Some(_) => wrong.push(format!("{module} imports {path}: the arrow runs upwards")),
                None => wrong.push(format!("{module} imports {path}: name the module it is in")),
            }
        }
    }
    assert!(checked > 30, "the scan found the imports");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_groups_and_renames() {
    let code = "use crate::{core::{A, b::C as D}, utils::e}; let x = crate::advanced::pool::f();";
    let paths = crate_paths(code);
    assert_eq!(paths, ["core::A", "core::b::C", "utils::e", "advanced::pool::f"]);
    assert!(layer_of("advanced::pool::f") > layer_of("core::A"));
    assert_eq!(layer_of("advanced::poolish"), None);
}
