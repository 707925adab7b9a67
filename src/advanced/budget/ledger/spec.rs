//! The description of a node.

use super::{account::UNLIMITED, share::Sharing};
use crate::core::{Label, Priority};
use std::boxed::Box;

/// A node's name, held inline if it is short.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    /// The whole name, or what reports show of a long one.
    pub(crate) label: Label,
    long: Option<Box<str>>,
}

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        let long = (name.len() > Label::CAPACITY).then(|| name.into());
        Self { label: Label::new(name), long }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.label == Label::new("")
    }

    pub(crate) fn as_str(&self) -> &str {
        self.long.as_deref().unwrap_or_else(|| self.label.as_str())
    }
}

/// The description of a node before it is made, as the builder has checked it.
#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    pub(crate) limit: usize,
    pub(crate) guarantee: usize,
    /// `None` for the parent's.
    pub(crate) priority: Option<Priority>,
    pub(crate) weight: u32,
    pub(crate) sharing: Sharing,
    pub(crate) workers: u32,
    pub(crate) is_hidden: bool,
    pub(crate) is_temporary: bool,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            limit: UNLIMITED,
            guarantee: 0,
            priority: None,
            weight: 1,
            sharing: Sharing::STRICT,
            workers: 0,
            is_hidden: false,
            is_temporary: false,
        }
    }
}
