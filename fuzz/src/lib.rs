//! The models of `tests/common/model/mod.rs` as functions of bytes.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/model/mod.rs"]
mod model;

/// The names of all targets.
pub fn targets() -> impl Iterator<Item = &'static str> {
    model::TARGETS.iter().map(|(name, _)| *name)
}

/// Runs the target of that name on as many operations as `data` has room for.
///
/// # Panics
///
/// If the subject contradicts the model, or if there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let (_, run) = model::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    run(data.as_chunks().0);
}
