//! The same answers from a plain implementation: no index, no budget, and no code of the engine's.

use crate::{corpus::Corpus, posting::Posting, queries::Answer, tokenizer::DEFINING};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
};

/// The answer for each of `words`, by reading every file once more; and the files that it could not
/// read.
pub(crate) fn answers(corpus: &Corpus, words: &[Box<[u8]>]) -> (Vec<Answer>, BTreeSet<usize>) {
    let wanted: HashMap<&[u8], usize> =
        words.iter().enumerate().map(|(index, word)| (&word[..], index)).collect();
    let mut answers = vec![Answer::default(); words.len()];
    let mut unreadable = BTreeSet::new();
    for (file, entry) in corpus.files.iter().enumerate() {
        // Too large for the engine, too.
        let small = u32::try_from(entry.bytes).is_ok();
        let text = small.then(|| fs::read(corpus.path(file)).ok()).flatten();
        let Some(text) = text.filter(|text| text.len() as u64 == entry.bytes) else {
            unreadable.insert(file);
            continue;
        };
        if !text.contains(&0) {
            for (index, posting) in postings(&text, &wanted) {
                answers[index].add(entry.tenant, file, posting);
            }
        }
    }
    (answers, unreadable)
}

fn postings(text: &[u8], wanted: &HashMap<&[u8], usize>) -> HashMap<usize, Posting> {
    let mut found = HashMap::new();
    let mut defining = false;
    for (line, content) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let mut rest = content;
        while !rest.is_empty() {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let word_bytes = rest.iter().take_while(|byte| is_word(byte)).count();
            let (word, after) = rest.split_at(word_bytes.max(1));
            rest = after;
            if word_bytes == 0 {
                defining = defining && matches!(word, b" " | b"\t" | b"\r" | b"\x0c" | b"!");
                continue;
            }
            // A wanted word is an identifier.
            if let Some(&index) = wanted.get(word) {
                let posting =
                    found.entry(index).or_insert(Posting { definitions: 0, uses: 0, line });
                if defining && posting.definitions == 0 {
                    posting.line = line;
                }
                *if defining { &mut posting.definitions } else { &mut posting.uses } += 1;
            }
            defining = DEFINING.iter().any(|keyword| keyword.as_bytes() == word);
        }
    }
    found
}
