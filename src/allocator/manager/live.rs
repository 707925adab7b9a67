//! With debug assertions: which blocks are out, so that misuse is told from use.

use crate::utils::sync::{Mutex, lock};
use core::{alloc::Layout, ptr::NonNull};
use std::collections::{HashMap, VecDeque};

/// Blocks freed lately, as many as are worth telling from foreign ones.
const REMEMBERED: usize = 1024;

/// All blocks of a manager by address, with their layouts and their owners' addresses.
#[derive(Default)]
pub(super) struct LiveBlocks {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<usize, (Layout, usize)>,
    freed: VecDeque<usize>,
}

/// What is wrong with a block that comes back.
enum Misuse {
    Foreign,
    FreedTwice,
    Layout(Layout),
}

impl LiveBlocks {
    pub(super) fn insert(&self, block: NonNull<u8>, layout: Layout, owner: usize) {
        let known = lock(&self.table).live.insert(block.addr().get(), (layout, owner));
        assert!(known.is_none(), "{block:p} was given out twice by a registered allocator");
    }

    /// Takes a block off the table and returns its owner's address.
    pub(super) fn remove(&self, block: NonNull<u8>, layout: Layout) -> usize {
        let removed = lock(&self.table).remove(block.addr().get(), layout);
        let misuse = match removed {
            Ok(owner) => return owner,
            Err(misuse) => misuse,
        };
        match misuse {
            Misuse::Foreign => panic!("{block:p} is not a block of this manager"),
            Misuse::FreedTwice => panic!("{block:p} is freed twice"),
            Misuse::Layout(asked) => {
                panic!("{block:p} was allocated with {asked:?} and comes back with {layout:?}")
            }
        }
    }
}

impl Table {
    fn remove(&mut self, address: usize, layout: Layout) -> Result<usize, Misuse> {
        match self.live.get(&address) {
            Some((asked, _)) if *asked != layout => Err(Misuse::Layout(*asked)),
            Some((_, owner)) => {
                let owner = *owner;
                self.live.remove(&address);
                if self.freed.len() == REMEMBERED {
                    self.freed.pop_front();
                }
                self.freed.push_back(address);
                Ok(owner)
            }
            None if self.freed.contains(&address) => Err(Misuse::FreedTwice),
            None => Err(Misuse::Foreign),
        }
    }
}

/// Panics where the owner behind a block is no longer the one that was written there.
pub(super) fn assert_not_overrun(block: NonNull<u8>, layout: Layout, intact: bool) {
    let size = layout.size();
    assert!(intact, "{block:p} was written to beyond its {size} bytes");
}
