//! The same job without the library: plain collections, no limit, and no counters. The difference between the two is
//! the cost of the ledger, the caches and the arenas.

use crate::{
    corpus::Corpus,
    posting::PostingList,
    queries::{Answer, Vocabulary},
    signature,
    tokenizer::{self, Identifiers},
};
use std::{convert::Infallible, fs, sync::OnceLock};

pub(crate) struct Bare<'c> {
    corpus: &'c Corpus,
    /// One for each file, empty if the file could not be read or is not text.
    files: Vec<OnceLock<Indexed>>,
}

struct Indexed {
    list: PostingList,
    signature: Vec<u8>,
}

impl<'c> Bare<'c> {
    pub(crate) fn new(corpus: &'c Corpus) -> Self {
        Self { corpus, files: corpus.files.iter().map(|_| OnceLock::new()).collect() }
    }

    /// Reads a file and stores its posting list.
    pub(crate) fn index(&self, file: usize, words: &Vocabulary) -> Result<(), Infallible> {
        let expected = self.corpus.files[file].bytes;
        let is_small = u32::try_from(expected).is_ok();
        let text = is_small.then(|| fs::read(self.corpus.path(file)).ok()).flatten();
        let is_text = |text: &Vec<u8>| text.len() as u64 == expected && !text.contains(&0);
        let Some(text) = text.filter(is_text) else { return Ok(()) };
        let mut sorted: Vec<_> = Identifiers::new(&text).collect();
        tokenizer::sort(&text, &mut sorted);
        let distinct = tokenizer::distinct(&text, &sorted);
        let signature = signature::bits(distinct.clone().count(), distinct.clone());
        distinct.for_each(|word| words.offer(word));
        let encoded = PostingList::encoded_bytes(&text, &sorted);
        let list = PostingList::build(&text, &sorted, encoded);
        let indexed = self.files[file].set(Indexed { list, signature });
        assert!(indexed.is_ok(), "a file is indexed by one thread");
        Ok(())
    }

    /// Answers one query.
    pub(crate) fn answer(&self, word: &[u8]) -> Answer {
        let mut answer = Answer::default();
        let files = self.files.iter().zip(&self.corpus.files).enumerate();
        for (number, (indexed, file)) in files {
            if let Some(Indexed { list, signature }) = indexed.get()
                && signature::may_have(signature, word)
                && let Some(posting) = list.find(word)
            {
                answer.add(file.tenant, number, posting);
            }
        }
        answer
    }
}
