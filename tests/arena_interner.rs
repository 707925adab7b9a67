//! An interner against a map: equal texts, equal symbols, and every byte on the ledger.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError,
    arena::{InternError, Interner, Symbol},
    core::MemoryUsage,
};
use proptest::prelude::*;
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

#[derive(Clone, Debug)]
enum Step {
    Intern(String),
    Reset,
    Trim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => "[ab]{0,5}".prop_map(Step::Intern),
        10 => "[a-zäß]{0,60}".prop_map(Step::Intern),
        1 => Just(Step::Reset),
        1 => (0..5000_usize).prop_map(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_interner_is_a_map_both_ways(
        steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 30 } else { 200 }),
        limit in prop_oneof![2 => Just(usize::MAX), 1 => 1..10_000_usize],
        max_symbols in prop_oneof![2 => Just(u32::MAX), 1 => 0..40_u32],
    ) {
        let budget = Budget::root("run").limit(limit).build()?;
        let mut interner = Interner::options().budget(&budget).build_interner()?.max_symbols(max_symbols);
        let mut symbols = HashMap::<String, Symbol>::new();
        let mut texts = Vec::<String>::new();
        for step in steps {
            match step {
                Step::Intern(text) => match interner.try_intern(&text) {
                    Ok(symbol) => {
                        if let Some(known) = symbols.get(&text) {
                            prop_assert_eq!(symbol, *known);
                        } else {
                            texts.push(text.clone());
                            prop_assert_eq!(usize::try_from(symbol.to_u32()).unwrap(), texts.len());
                            symbols.insert(text, symbol);
                        }
                    }
                    Err(error) => {
                        prop_assert!(!symbols.contains_key(&text), "known texts need nothing");
                        let full = texts.len() == usize::try_from(max_symbols).unwrap();
                        prop_assert_eq!(error == InternError::Full { symbols: max_symbols }, full);
                        prop_assert!(full || limit < usize::MAX);
                    }
                },
                Step::Reset => {
                    let held = interner.used_bytes();
                    interner.reset();
                    prop_assert_eq!(interner.used_bytes(), held);
                    (symbols, texts) = Default::default();
                }
                Step::Trim(keep) => {
                    let held = interner.used_bytes();
                    prop_assert_eq!(interner.trim(keep), held - interner.used_bytes());
                    prop_assert!(interner.used_bytes() <= keep);
                    (symbols, texts) = Default::default();
                }
            }
            prop_assert_eq!(budget.usage().used, interner.used_bytes());
            prop_assert!(interner.peak_bytes() >= interner.used_bytes());
            prop_assert_eq!((interner.len(), interner.is_empty()), (texts.len(), texts.is_empty()));
        }
        prop_assert!(interner.iter().map(|(_, text)| text).eq(texts.iter().map(String::as_str)));
        for (symbol, text) in interner.iter().rev() {
            prop_assert_eq!(symbols[text], symbol);
            prop_assert_eq!((interner.get(text), interner.resolve(symbol)), (Some(symbol), Some(text)));
            prop_assert_eq!(&interner[symbol], text);
        }
        prop_assert_eq!(interner.get("not interned 0"), None);
        drop(interner);
        prop_assert_eq!(budget.usage().used, 0);
    }
}

#[test]
fn symbols_of_others_are_unknown_or_stand_for_what_is_there() {
    let mut many = Interner::new();
    let mut few = Interner::default();
    let symbols: Vec<_> = (0..10).map(|i| many.intern(&i.to_string())).collect();
    few.intern("x");
    assert_eq!(few.resolve(symbols[0]), Some("x"));
    assert_eq!(few.resolve(symbols[1]), None);
    assert_eq!(few.resolve(Symbol::from_u32(u32::MAX).unwrap()), None);
    assert_eq!(Symbol::from_u32(0), None);
    many.reset();
    assert!(symbols.iter().all(|symbol| many.resolve(*symbol).is_none()));
    assert!(catch_unwind(AssertUnwindSafe(|| many[symbols[3]].len())).is_err());
}

#[test]
fn a_full_interner_says_so_and_still_knows_its_texts() {
    let mut interner = Interner::new().max_symbols(2);
    let (a, b) = (interner.intern("a"), interner.intern(""));
    let error = interner.try_intern("c").unwrap_err();
    assert_eq!(error, InternError::Full { symbols: 2 });
    assert_eq!(MemoryError::from(error).code(), "MEM:ALLOC:EXHAUSTED");
    assert_eq!((interner.intern("a"), interner.intern("")), (a, b));
    assert!(catch_unwind(AssertUnwindSafe(|| interner.intern("c"))).is_err());
    assert!(Interner::new().max_symbols(0).try_intern("").is_err());
}

#[test]
fn a_budget_that_refuses_the_index_or_the_text_leaves_all_as_it_was() {
    let budget = Budget::root("run").limit(600).build().unwrap();
    let mut interner =
        Interner::options().budget(&budget).initial_chunk_bytes(64).build_interner().unwrap();
    let mut count = 0;
    while interner.try_intern(&format!("text {count}")).is_ok() {
        count += 1;
    }
    assert!(count >= 8, "{count}");
    assert_eq!(interner.len(), count);
    assert_eq!(budget.usage().used, interner.used_bytes());
    let error = interner.try_intern("another").unwrap_err();
    assert!(matches!(error, InternError::Allocation(_)), "{error}");
    assert!((0..count).all(|i| interner.get(&format!("text {i}")).is_some()));
}

#[test]
fn many_threads_read_at_once() {
    let mut interner = Interner::new();
    let count = if cfg!(miri) { 50 } else { 2000 };
    let symbols: Vec<_> = (0..count).map(|i| interner.intern(&i.to_string())).collect();
    let interner = &interner;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (i, symbol) in symbols.iter().enumerate() {
                    let text = i.to_string();
                    assert_eq!(interner.resolve(*symbol), Some(&text[..]));
                    assert_eq!(interner.get(&text), Some(*symbol));
                }
            });
        }
    });
    assert!(format!("{interner:?}").contains("texts"));
}
