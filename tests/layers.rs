//! The arrows between the modules run one way, as `docs/ARCHITECTURE.md` draws them.
#![cfg(not(miri))]

use std::{
    collections::{BTreeMap, BTreeSet},
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
    &["advanced::budget"],
    &["advanced::lockfree"],
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
            let is_allowed = path.ends_with("src/allocator/stats");
            assert!(is_allowed || !BANNED.contains(&name), "{} must not exist", path.display());
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

/// Returns every path that begins with `crate::`, with groups in braces written out.
fn crate_paths(code: &str) -> Vec<String> {
    paths_from("crate::", code)
}

/// Returns every path that begins with `start`, without `start`.
fn paths_from(start: &str, code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && !"_$:".contains(c)) {
            expand(&code[at + start.len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one path, or a group of paths, after `prefix`. Returns the rest of `text`.
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

    let (mut wrong, mut checked, mut found) = (Vec::new(), 0, BTreeSet::new());
    for file in files {
        let module = module_of(&file, &src);
        let Some((rank, name)) = layer_of(&module) else {
            continue; // `lib.rs` and the folders that only list their modules.
        };
        found.insert(name);
        for path in crate_paths(&without_comments(&fs::read_to_string(&file).unwrap())) {
            checked += 1;
            match layer_of(&path) {
                Some((to, other)) if to < rank || other == name => {}
                Some(_) => wrong.push(format!("{module} imports {path}: the arrow runs upwards")),
                None => wrong.push(format!("{module} imports {path}: name the module it is in")),
            }
        }
    }
    for name in LAYERS.iter().copied().flatten() {
        assert!(found.contains(name), "no file is in {name}");
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
    assert!(layer_of("advanced::lockfree::queue") > layer_of("advanced::budget"));
    assert!(layer_of("advanced::lockfree::queue") < layer_of("advanced::arena"));
    assert_eq!(layer_of("advanced::poolish"), None);
}

/// The imports of all files, as arrows from module to module. A name that a folder re-exports leads to the
/// file that defines it.
struct Imports {
    modules: BTreeSet<String>,
    /// The names that a folder's module re-exports, each with its full path.
    exports: BTreeMap<String, BTreeMap<String, String>>,
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    fn of(sources: &[(String, String)]) -> Self {
        let modules = sources.iter().map(|(module, _)| module.clone()).collect();
        let mut imports = Self { modules, exports: BTreeMap::new(), arrows: BTreeMap::new() };
        for (module, code) in sources {
            let is_export = |statement: &&str| {
                let statement = statement.trim_start();
                statement.starts_with("pub") && statement.contains("use self::")
            };
            let statements = code.split_inclusive(';');
            let exported = statements.filter_map(|text| {
                let at = text.rfind("pub")?;
                Some(&text[at..]).filter(is_export)
            });
            let names = exported.flat_map(|text| paths_from("self::", text)).filter_map(|path| {
                let name = path.rsplit("::").next()?.to_owned();
                Some((name, format!("{module}::{path}")))
            });
            imports.exports.insert(module.clone(), names.collect());
        }
        for (module, code) in sources {
            let absolute = |start: &str, base: &str| {
                let paths = paths_from(start, code).into_iter();
                paths.map(|path| format!("{base}::{path}")).collect::<Vec<_>>()
            };
            let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
            let mut paths = crate_paths(code);
            paths.extend(absolute("super::", parent));
            // A re-export is not an import of the folder.
            let exports = &imports.exports[module];
            let own = absolute("self::", module);
            paths.extend(own.into_iter().filter(|path| !exports.values().any(|it| it == path)));
            let targets = paths.iter().filter_map(|path| imports.target(path));
            // A definition in a folder's own file is for the files within, so their import of it is no arrow.
            let is_folder =
                |target: &String| format!("{module}::").starts_with(&format!("{target}::"));
            let targets = targets.filter(|target| !is_folder(target)).collect();
            imports.arrows.insert(module.clone(), targets);
        }
        imports
    }

    /// Returns the module of the file that defines the path's last name.
    fn target(&self, path: &str) -> Option<String> {
        let path = path.trim_start_matches("::");
        let mut ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        let end = ends.by_ref().filter(|end| self.modules.contains(&path[..*end])).last()?;
        let name = path[end..].trim_start_matches("::").split("::").next()?;
        match self.exports[&path[..end]].get(name) {
            Some(exported) if exported != path => self.target(exported),
            _ => Some(path[..end].to_owned()),
        }
    }

    /// The modules that can be reached from themselves.
    fn circles(&self) -> Vec<&str> {
        let is_in_one = |module: &&String| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![*module]);
            while let Some(at) = next.pop() {
                for target in &self.arrows[at] {
                    if target == *module {
                        return true;
                    }
                    if seen.insert(target) {
                        next.push(target);
                    }
                }
            }
            false
        };
        self.modules.iter().filter(is_in_one).map(String::as_str).collect()
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let is_test = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap();
        name.ends_with("tests") || name == "validate" || name == "lib"
    };
    let read = |file: &PathBuf| {
        let code = without_comments(&fs::read_to_string(file).unwrap());
        let code = code.split("\nmod tests {").next().unwrap().to_owned();
        (module_of(file, &src), code)
    };
    let sources: Vec<_> = files.iter().filter(|file| !is_test(file)).map(read).collect();
    let imports = Imports::of(&sources);
    let arrows: usize = imports.arrows.values().map(BTreeSet::len).sum();
    assert!(arrows > 300, "the scan found the imports: {arrows}");
    let circles: BTreeMap<_, _> =
        imports.circles().into_iter().map(|module| (module, &imports.arrows[module])).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_scan_sees_a_circle_through_a_folder() {
    let files = [
        ("a", "pub use self::{b::B, c::{C, D}}; use self::b::hidden;"),
        ("a::b", "use super::{C, d};"),
        ("a::c", "use crate::a::d::{self, D};"),
        ("a::d", "use super::c;"),
        ("e", "use crate::a::B;"),
    ];
    let imports = Imports::of(&files.map(|(module, code)| (module.to_owned(), code.to_owned())));
    assert_eq!(imports.circles(), ["a::c", "a::d"]);
    let arrows =
        |module: &str| imports.arrows[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(arrows("a"), ["a::b"]);
    assert_eq!(arrows("a::b"), ["a::c", "a::d"]);
    assert_eq!(arrows("e"), ["a::b"]);
}

/// The lines that are neither blank nor comments, up to the tests at the end of a file.
fn lines_of_code(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    let lines = lines.take_while(|line| !(line.starts_with("mod ") && line.ends_with("tests {")));
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn a_file_has_at_most_400_lines_of_code() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let count = |file: &PathBuf| (lines_of_code(&fs::read_to_string(file).unwrap()), file.clone());
    let long: Vec<_> = files.iter().map(count).filter(|(lines, _)| *lines > 400).collect();
    assert!(long.is_empty(), "split by what it does: {long:#?}");
    assert_eq!(
        lines_of_code("use core;\n\n// one\nfn two() {}\nmod loom_tests {\nfn three() {}\n"),
        2
    );
}
