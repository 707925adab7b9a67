//! Random operations on every allocator and arena, against the model that the fuzz targets use too.
#![cfg(feature = "std")]

mod common;
#[path = "common/model/mod.rs"]
mod model;

use proptest::prelude::*;

/// One property test for each target.
macro_rules! models {
    ($($target:ident)+) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: if cfg!(miri) { 2 } else { ProptestConfig::default().cases },
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $target(
                    codes in proptest::collection::vec(
                        any::<model::Code>(),
                        0..if cfg!(miri) { 30 } else { 400 },
                    ),
                ) {
                    model::$target(&codes);
                }
            )+
        }

        #[test]
        fn no_target_is_left_out() {
            let tested = [$(stringify!($target)),+];
            assert!(model::TARGETS.iter().map(|(name, _)| *name).eq(tested));
        }
    };
}

models! {
    arena typed_arena drop_arena shared_arena bump stack block_pool shared_block_pool manager
    system ledger queue index_queue spsc_ring local_slab shared_slab epoch_slab
    bounded_stack unbounded_stack free_list
}
