//! What a program does that allocates from several threads.

use std::{collections::HashMap, thread};

/// Maps of texts on four threads; whether each text is what was put in.
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
