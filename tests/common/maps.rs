//! A program that allocates from several threads.

use std::{collections::HashMap, thread};

/// Fills maps of texts on four threads. Returns whether every text is unchanged.
pub(crate) fn maps_on_threads_agree() -> bool {
    let threads: Vec<_> = (0..4_usize)
        .map(|i| {
            thread::spawn(move || {
                let texts: HashMap<usize, String> =
                    (i..i + 50).map(|i| (i, i.to_string())).collect();
                texts.iter().all(|(i, text)| text.parse() == Ok(*i))
            })
        })
        .collect();
    threads.into_iter().all(|thread| thread.join().unwrap())
}
