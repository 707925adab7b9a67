use super::{Budget, NodeSnapshot};
use crate::core::{
    NodeId,
    error::{Refused, RefusedReason},
    types::{Visible, human},
};
use core::{cmp::Reverse, fmt};
use std::{
    borrow::ToOwned as _,
    string::{String, ToString as _},
    vec::Vec,
};

/// The largest number of holders that are named.
const HOLDERS: usize = 5;

/// The explanation of a refusal: the largest holders of the bytes that the request needs, and a remedy; from
/// [`Budget::explain`].
///
/// Print it for an operator.
#[derive(Clone, Debug)]
pub struct Explanation {
    refused: Refused,
    /// The nodes at and below the binding one with the most bytes of their own, the largest first.
    holders: Vec<Holder>,
    /// Bytes that managers at and below the binding node offer.
    reclaimable: usize,
    /// Bytes of unused guarantees.
    idle_guarantees: usize,
    held: usize,
}

/// A node, and the bytes that are reserved from it directly.
#[derive(Clone, Debug)]
struct Holder {
    node: NodeId,
    path: String,
    bytes: usize,
}

/// A name as a part of a path. A name that could be mistaken for a path is quoted.
struct Part<'a>(&'a str);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = *self;
        match name.contains(['.', '"']) {
            true => write!(f, "{name:?}"),
            false => Visible(name).fmt(f),
        }
    }
}

impl Explanation {
    /// Reads the tree as it is now, which may be a moment after the refusal. Returns `None` if the refusing node
    /// is not `from` or above it.
    pub(super) fn new(from: &Budget, refused: Refused) -> Option<Self> {
        let mut node = Some(from.clone());
        let mut asks = Vec::new();
        let binding = loop {
            let here = node?;
            if here.id() == refused.node {
                break here;
            }
            asks.push(here.id());
            node = here.parent();
        };
        let snapshot = binding.snapshot();
        let mut this = Self {
            refused,
            holders: Vec::new(),
            reclaimable: takeable(&snapshot, &asks),
            idle_guarantees: 0,
            held: snapshot.usage.used,
        };
        this.look(&snapshot, None);
        this.holders.sort_by_key(|holder| Reverse(holder.bytes));
        let same =
            |n: usize| this.holders.iter().filter(|one| one.path == this.holders[n].path).count();
        let is_shared: Vec<_> = (0..this.holders.len().min(HOLDERS)).map(|n| same(n) > 1).collect();
        this.holders.truncate(HOLDERS);
        for (holder, is_shared) in this.holders.iter_mut().zip(is_shared) {
            if is_shared {
                holder.path += &std::format!(" ({})", holder.node);
            }
        }
        Some(this)
    }

    fn look(&mut self, node: &NodeSnapshot, path: Option<&str>) {
        let mut own = node.usage.used;
        for child in &node.children {
            let drawn = child.usage.used.max(child.guarantee);
            own = own.saturating_sub(drawn);
            self.idle_guarantees += drawn - child.usage.used;
            let name = Part(&child.name);
            let path = path.map_or_else(|| name.to_string(), |path| std::format!("{path}.{name}"));
            self.look(child, Some(&path));
        }
        if own > 0 {
            let path = path.map_or_else(|| Visible(&node.name).to_string(), str::to_owned);
            self.holders.push(Holder { node: node.id, path, bytes: own });
        }
    }

    /// Returns the refusal that this explains.
    #[must_use]
    pub const fn refused(&self) -> Refused {
        self.refused
    }

    /// Returns the largest holders at and below the binding node with their bytes, the largest first; at most five.
    ///
    /// The name of a holder is the path of names below the binding node, joined with dots. A name with a dot is quoted,
    /// and control characters are escaped. If nodes have the same path, their ids follow in parentheses: `twin (#3)`.
    /// The binding node itself has its own name. The bytes are the node's own reservations, without the nodes below it.
    pub fn holders(&self) -> impl Iterator<Item = (&str, usize)> {
        self.holders.iter().map(|holder| (holder.path.as_str(), holder.bytes))
    }

    /// Returns the bytes that managers at and below the binding node could release. For each tenant except the
    /// requesting one, at most its borrowed bytes count.
    #[must_use]
    pub const fn reclaimable(&self) -> usize {
        self.reclaimable
    }
}

/// Returns the bytes that managers at and below a node offer to the requesting nodes. For any other node, at most
/// its borrowed bytes count.
fn takeable(node: &NodeSnapshot, asks: &[NodeId]) -> usize {
    let below = node.children.iter().map(|child| {
        let borrowed = child.usage.used.saturating_sub(child.guarantee);
        let most = if asks.contains(&child.id) { usize::MAX } else { borrowed };
        takeable(child, asks).min(most)
    });
    let own = node.managers.iter().map(|manager| manager.reclaimable);
    own.chain(below).fold(0, usize::saturating_add)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, holders, reclaimable, idle_guarantees, held } = self;
        writeln!(f, "{refused}")?;
        write!(f, "{} holds {}", refused.name, human(*held))?;
        for (n, Holder { path, bytes, .. }) in holders.iter().enumerate() {
            write!(f, "{} {path} {}", if n == 0 { ":" } else { "," }, human(*bytes))?;
        }
        if *idle_guarantees > 0 {
            write!(f, "; {} are guaranteed and not used", human(*idle_guarantees))?;
        }
        let missing = refused.requested.saturating_sub(refused.available);
        match refused.reason {
            RefusedReason::TooLarge => {
                write!(f, "\nonly a limit of at least {} would help", human(refused.requested))
            }
            RefusedReason::Closed | RefusedReason::Cancelled => Ok(()),
            RefusedReason::Deadlock => {
                write!(f, "\nthe rest is held by tasks that wait too, or is kept by guarantees")
            }
            _ if *reclaimable >= missing => {
                write!(f, "\nmanagers offer {}: waiting may help", human(*reclaimable))
            }
            _ => write!(
                f,
                "\n{} must be released, and managers offer {}: raise the limit, or end a holder",
                human(missing),
                human(*reclaimable)
            ),
        }
    }
}
