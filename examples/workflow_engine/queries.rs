//! The stream of queries: which files and tenants define or use an identifier?

use crate::{
    engine::{Engine, Run, RunError},
    posting::Posting,
    signature::{hash, mix},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A sample of the corpus's distinct identifiers: those with the smallest seeded hashes (Broder's bottom-k sketch,
/// 1997). It depends only on the seed and the words, not on the number of threads or their order.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    seed: u64,
    words: Mutex<BTreeMap<u64, Box<[u8]>>>,
    /// The largest hash in `words` once the sample is full. Most words have a larger hash and are rejected without
    /// the lock.
    bound: AtomicU64,
}

impl Vocabulary {
    const WORDS: usize = 1024;

    /// The most bytes of the sample: words of at most 64 bytes, and the nodes of the tree.
    pub(crate) const MEMORY: usize = Self::WORDS * (64 + 64);

    pub(crate) const fn new(seed: u64) -> Self {
        let words = Mutex::new(BTreeMap::new());
        Self { seed, words, bound: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn offer(&self, word: &[u8]) {
        let rank = mix(hash(word) ^ mix(self.seed));
        if rank > self.bound.load(Ordering::Relaxed) {
            return;
        }
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.entry(rank).or_insert_with(|| word.into());
        if words.len() > Self::WORDS {
            words.pop_last();
        }
        if words.len() == Self::WORDS
            && let Some((&largest, _)) = words.last_key_value()
        {
            self.bound.store(largest, Ordering::Relaxed);
        }
    }

    /// Returns the words, the most frequently requested one first.
    pub(crate) fn into_words(self) -> Vec<Box<[u8]>> {
        let words = self.words.into_inner().unwrap_or_else(PoisonError::into_inner);
        words.into_values().collect()
    }
}

/// Chooses the word of each query: word `i` in proportion to `1 / (i + 1)` (Zipf, 1949).
#[derive(Debug)]
pub(crate) struct Stream {
    seed: u64,
    /// The sum of the words' weights, up to and including each word.
    cumulative: Vec<f64>,
}

impl Stream {
    pub(crate) fn new(seed: u64, words: usize) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=u32::try_from(words).unwrap_or(u32::MAX)).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self { seed, cumulative: cumulative.collect() }
    }

    /// Returns the index of the word of query number `query`. There must be a word.
    pub(crate) fn word(&self, query: usize) -> usize {
        let random = mix(self.seed ^ mix(query as u64 + 1));
        // 32 random bits as a fraction of one, which is exact in an `f64`.
        let part = f64::from(u32::try_from(random >> 32).expect("32 bits")) / 4_294_967_296.0;
        let target = part * self.cumulative.last().expect("there is a word");
        self.cumulative.partition_point(|&sum| sum <= target).min(self.cumulative.len() - 1)
    }
}

/// The answer to a query. It has a digest of the files instead of a list, so that an answer is small and two answers
/// can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) files_defining: u32,
    pub(crate) files_using: u32,
    pub(crate) tenants: u32,
    /// The first file that defines the word, or the first that uses it if none defines it, with the line.
    pub(crate) first: Option<(usize, u32)>,
    digest: u64,
    last_tenant: Option<u32>,
    first_defines: bool,
}

impl Answer {
    /// Adds the occurrences in a file. Files must be added in ascending order.
    pub(crate) fn add(&mut self, tenant: u32, file: usize, posting: Posting) {
        let defines = posting.definitions > 0;
        self.files_defining += u32::from(defines);
        self.files_using += u32::from(posting.uses > 0);
        self.tenants += u32::from(self.last_tenant != Some(tenant));
        self.last_tenant = Some(tenant);
        if self.first.is_none() || (defines && !self.first_defines) {
            self.first = Some((file, posting.line));
            self.first_defines = defines;
        }
        let mut hasher = DefaultHasher::new();
        (self.digest, file, posting).hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

/// The first answer for each word, and the words that had different answers.
#[derive(Debug)]
pub(crate) struct Answers {
    first: Vec<OnceLock<Answer>>,
    unsteady: Mutex<BTreeSet<usize>>,
}

impl Answers {
    pub(crate) fn new(words: usize) -> Self {
        let first = (0..words).map(|_| OnceLock::new()).collect();
        Self { first, unsteady: Mutex::default() }
    }

    pub(crate) fn note(&self, word: usize, answer: Answer) {
        if *self.first[word].get_or_init(|| answer) != answer {
            self.unsteady.lock().unwrap_or_else(PoisonError::into_inner).insert(word);
        }
    }

    /// Returns the first answer for each word of a query, and the words that also had another answer.
    pub(crate) fn into_inner(self) -> (Vec<Option<Answer>>, BTreeSet<usize>) {
        let unsteady = self.unsteady.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.first.into_iter().map(OnceLock::into_inner).collect(), unsteady)
    }
}

/// Answers one query from the engine's posting lists.
pub(crate) fn answer(engine: &Engine<'_>, word: &[u8], run: &mut Run) -> Result<Answer, RunError> {
    let mut answer = Answer::default();
    for file in engine.signatures().candidates(word) {
        match engine.posting(file, word, run) {
            Ok(Some(posting)) => answer.add(engine.corpus().files[file].tenant, file, posting),
            // A false positive of the signature, or a file that can no longer be read, which `posting` counts.
            Ok(None) | Err(RunError::Skipped) => {}
            refused => return refused.map(|_| answer),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Answers, Stream, Vocabulary};

    #[test]
    fn a_question_with_two_answers_is_noted_once_and_keeps_the_first() {
        let answers = Answers::new(3);
        let other = Answer { files_using: 1, ..Answer::default() };
        for (word, answer) in [(0, other), (2, other), (2, Answer::default()), (2, other)] {
            answers.note(word, answer);
        }
        answers.note(2, Answer::default());
        let (first, unsteady) = answers.into_inner();
        assert_eq!(first, [Some(other), None, Some(other)]);
        assert!(unsteady.into_iter().eq([2]));
    }

    #[test]
    fn the_sample_does_not_depend_on_the_order() {
        let words: Vec<String> = (0..5000).map(|word| format!("w{word}")).collect();
        let (forth, back) = (Vocabulary::new(1), Vocabulary::new(1));
        words.iter().for_each(|word| forth.offer(word.as_bytes()));
        words.iter().rev().chain(&words).for_each(|word| back.offer(word.as_bytes()));
        let words = forth.into_words();
        assert_eq!(words, back.into_words());
        assert_eq!(words.len(), Vocabulary::WORDS);
    }

    #[test]
    fn the_stream_is_skewed_and_repeatable() {
        let stream = Stream::new(7, 100);
        let mut times = [0_u32; 100];
        (0..10_000).for_each(|query| times[stream.word(query)] += 1);
        // 1 / (1 + 1/2 + … + 1/100) = 0.193
        assert!((1800..2060).contains(&times[0]), "{times:?}");
        assert!((60..140).contains(&times[19]), "{times:?}");
        assert_eq!(stream.word(5), Stream::new(7, 100).word(5));
    }
}
