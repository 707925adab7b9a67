//! The README agrees with `Cargo.toml`, and has no link that is dead in the documentation.
#![cfg(not(miri))]

use std::{fs, path::Path};
use toml::{Table, Value};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn every_feature_and_dependency_is_in_the_section_on_features() {
    let (manifest, readme) = (read("Cargo.toml").parse::<Table>().unwrap(), read("README.md"));
    let section = readme.split("## Features").nth(1).unwrap().split("\n## ").next().unwrap();

    let features = manifest["features"].as_table().unwrap().keys();
    for feature in features.filter(|feature| *feature != "default") {
        assert!(section.contains(&format!("\n| `{feature}`")), "no row of feature `{feature}`");
    }
    let of_targets = manifest["target"].as_table().unwrap().iter();
    // Model checkers are for the crate's own tests.
    let of_tests = ["cfg(loom)", "cfg(shuttle)"];
    let of_targets = of_targets.filter(|(target, _)| !of_tests.contains(&target.as_str()));
    let of_targets = of_targets.filter_map(|(_, target)| target.get("dependencies"));
    let tables = of_targets.chain([&manifest["dependencies"]]).map(|it| it.as_table().unwrap());
    let mut checked = 0;
    for (name, dependency) in tables.flatten() {
        let name = dependency.get("package").and_then(Value::as_str).unwrap_or(name);
        assert!(section.contains(&format!("`{name}`")), "no word of dependency `{name}`");
        checked += 1;
    }
    assert!(checked >= 6, "the dependencies were found");
}

#[test]
fn no_link_is_relative() {
    let readme = read("README.md");
    let links = readme.match_indices("](").map(|(at, _)| &readme[at + 2..]);
    let relative: Vec<_> = links
        .filter_map(|link| link.split(')').next())
        .filter(|link| link.contains('/') && !link.starts_with("https://"))
        .collect();
    assert!(relative.is_empty(), "dead on docs.rs: {relative:?}");
}
