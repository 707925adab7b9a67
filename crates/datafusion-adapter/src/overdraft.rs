//! A charge that cannot be refused, until the library has one: a method of that name on [`SharedReservation`] itself
//! takes precedence over this trait, which then goes.

use nebula_memory::{Budget, budget::SharedReservation};
use std::iter;

pub trait Grow {
    /// Adds `bytes` that exist already. Beyond a limit, nothing is admitted until they are given back.
    fn grow(&self, bytes: usize);
}

impl Grow for SharedReservation {
    fn grow(&self, bytes: usize) {
        let mut limits: Vec<(Budget, usize)> = Vec::new();
        while let Err(refused) = self.try_grow(bytes) {
            let path = iter::successors(Some(self.budget().clone()), Budget::parent);
            let node = path.into_iter().find(|node| node.id() == refused.node);
            let Some((node, limit)) = node.and_then(|node| Some((node.clone(), node.limit()?)))
            else {
                break;
            };
            // Its limit is in the way no more than once.
            if node.set_limit(node.usage().used.saturating_add(bytes)).is_err() {
                break;
            }
            limits.push((node, limit));
        }
        for (node, limit) in limits {
            node.set_limit(limit).expect("it was the node's limit before");
        }
    }
}
