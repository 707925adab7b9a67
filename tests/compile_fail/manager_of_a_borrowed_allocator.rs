// E0597
//! A manager may outlive every scope, so it takes no borrowed allocator.

use nebula_memory::{
    allocator::AllocatorManager,
    arena::{ArcArena, SharedArena},
};

fn main() {
    let arena = SharedArena::new();
    #[cfg(not(feature = "escape"))]
    let base = ArcArena::from(arena);
    #[cfg(feature = "escape")]
    let base = &arena;
    let manager = AllocatorManager::new("arena", base).unwrap();
    assert_eq!(manager.names(), ["arena"]);
}
