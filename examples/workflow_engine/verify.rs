//! The same answers from a plain implementation, without an index, a budget or code of the engine.

use crate::{corpus::Corpus, posting::Posting, queries::Answer, tokenizer::DEFINING};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Returns the answer for each of `words` by reading every file again, and the files that it could not read.
pub(crate) fn answers(corpus: &Corpus, words: &[Box<[u8]>]) -> (Vec<Answer>, BTreeSet<usize>) {
    let wanted: HashMap<&[u8], usize> =
        words.iter().enumerate().map(|(index, word)| (&word[..], index)).collect();
    let mut answers = vec![Answer::default(); words.len()];
    let mut unreadable = BTreeSet::new();
    for (file, entry) in corpus.files.iter().enumerate() {
        // The engine does not read larger files either.
        let small = u32::try_from(entry.bytes).is_ok();
        let found =
            small.then(|| postings(&corpus.path(file), entry.bytes, &wanted).ok()).flatten();
        let Some(found) = found else {
            unreadable.insert(file);
            continue;
        };
        for (index, posting) in found {
            answers[index].add(entry.tenant, file, posting);
        }
    }
    (answers, unreadable)
}

/// Returns how many of the engine's answers differ.
pub(crate) fn wrong(answers: &[Option<Answer>], plain: &[Answer]) -> usize {
    let pairs = answers.iter().zip(plain);
    pairs.filter(|(got, plain)| got.is_some_and(|answer| answer != **plain)).count()
}

/// Returns the postings of a file, which is read line by line. Empty if the file is not text.
fn postings(
    path: &Path,
    bytes: u64,
    wanted: &HashMap<&[u8], usize>,
) -> io::Result<HashMap<usize, Posting>> {
    let mut text = BufReader::new(File::open(path)?);
    let mut found = HashMap::new();
    let mut defining = false;
    let (mut content, mut read) = (Vec::new(), 0);
    for line in 1.. {
        content.clear();
        read += text.read_until(b'\n', &mut content)? as u64;
        if content.is_empty() {
            break;
        }
        if content.contains(&0) {
            found.clear();
            read = path.metadata()?.len();
            break;
        }
        let mut rest = content.strip_suffix(b"\n").unwrap_or(&content);
        while !rest.is_empty() {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let word_bytes = rest.iter().take_while(|byte| is_word(byte)).count();
            let (word, after) = rest.split_at(word_bytes.max(1));
            rest = after;
            if word_bytes == 0 {
                defining = defining && matches!(word, b" " | b"\t" | b"\r" | b"\x0c" | b"!");
                continue;
            }
            // All wanted words are identifiers.
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
    if read == bytes { Ok(found) } else { Err(io::Error::other("has another length")) }
}
