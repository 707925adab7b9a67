//! Computes a sufficient limit for an input. The message about a limit that is too small suggests it.
//!
//! Large files do not fit the limit, so every one of them is read once more, in pieces. The number of distinct words
//! is estimated with a bitmap of fixed size ("linear counting", Whang, Vander-Zanden and Taylor, 1990).

use crate::{
    corpus::Corpus,
    engine::{GUARANTEED_PART, TENANT_PART},
    posting::PostingList,
    queries::Vocabulary,
    signature::{Signature, Signatures, hash},
    timeline::Recorder,
    tokenizer::{Identifiers, LONGEST, Occurrence, is_word},
};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes to read at a time.
const PIECE: usize = 64 << 10;

/// Bits of the bitmap. Up to 2 million distinct words the estimate is within a few per cent.
const BITS: usize = 1 << 19;

/// The bytes of a run's arena in addition to its values: the headers of two chunks, and their rounding.
const ARENA_OVERHEAD: u64 = 2 << 12;

/// A run takes at most this many times the bytes of its file, because at most every other byte begins a word.
const MOST_TIMES: u64 = 1 + (size_of::<Occurrence>() as u64 + 12).div_ceil(2);

/// Returns a limit in bytes that is sufficient for all files of `corpus`, rounded up to a MiB.
pub(crate) fn limit(corpus: &Corpus, tenants: Option<usize>) -> u64 {
    let mut files: Vec<_> = (0..corpus.files.len()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(corpus.files[*file].bytes));
    let mut largest = 0;
    for file in files {
        let bytes = corpus.files[file].bytes;
        if bytes.saturating_mul(MOST_TIMES) < largest {
            break;
        }
        // The engine skips files that cannot be read or are too large.
        if u32::try_from(bytes).is_ok()
            && let Ok(run) = run(&corpus.path(file), bytes)
        {
            largest = largest.max(run);
        }
    }
    let fixed = corpus.memory() + Vocabulary::MEMORY + Recorder::MEMORY;
    let fixed = (fixed + Signatures::memory(corpus.files.len())) as u64;
    // A run cannot use the guarantees of other tenants, and a tenant's own limit is only a part of the whole.
    let part = GUARANTEED_PART as u64;
    let mut limit = (fixed + largest).saturating_mul(part) / (part - 1);
    if tenants.is_some() {
        limit = limit.max(largest.saturating_mul(TENANT_PART as u64));
    }
    // Adds a margin, because the number of distinct words is an estimate.
    limit.saturating_add(limit / 16).next_multiple_of(1 << 20)
}

/// Returns the most bytes that the run of a file takes.
fn run(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut words = Words { seen: vec![0; BITS / 64], set: 0, set_bytes: 0, count: 0 };
    let mut piece = Vec::with_capacity(PIECE + LONGEST + 1);
    loop {
        // A word at the end of a piece may continue in the next one, so it is processed with the next piece.
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.contains(&0) {
            // The file is not text: the run reads it and stops.
            return Ok(bytes + ARENA_OVERHEAD);
        }
        let tail = piece.iter().rev().take(LONGEST + 1).take_while(|byte| is_word(**byte)).count();
        let end = if read == 0 { piece.len() } else { piece.len() - tail };
        words.add(&piece[..end]);
        piece.drain(..end);
        if read == 0 {
            break;
        }
    }
    let (distinct, distinct_bytes) = words.distinct();
    // In a list a word has two lengths, of at most two bytes each, and a line for each occurrence.
    let list = distinct_bytes + 4 * distinct + 3 * words.count;
    let list = PostingList::memory_for(usize::try_from(list).unwrap_or(usize::MAX)) as u64;
    let signature = Signature::memory(usize::try_from(distinct).unwrap_or(usize::MAX)) as u64;
    let occurrences = words.count * size_of::<Occurrence>() as u64;
    Ok(bytes + occurrences + list + signature + ARENA_OVERHEAD)
}

struct Words {
    /// One bit for each hash of a word.
    seen: Vec<u64>,
    /// The number of set bits, and the bytes of the words that set them.
    set: u64,
    set_bytes: u64,
    count: u64,
}

impl Words {
    fn add(&mut self, text: &[u8]) {
        for occurrence in Identifiers::new(text) {
            self.count += 1;
            let word = occurrence.word(text);
            let bit = usize::try_from(hash(word) % BITS as u64).expect("a bit's number");
            let (cell, mask) = (&mut self.seen[bit / 64], 1 << (bit % 64));
            if *cell & mask == 0 {
                *cell |= mask;
                self.set += 1;
                self.set_bytes += word.len() as u64;
            }
        }
    }

    /// Estimates the number of distinct words and their bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate of at most `count`, which is exact in an f64"
    )]
    fn distinct(&self) -> (u64, u64) {
        let clear = BITS as u64 - self.set;
        if clear == 0 {
            return (self.count, self.count * LONGEST as u64);
        }
        let bits = BITS as f64;
        let distinct = (bits * (bits / clear as f64).ln()).ceil() as u64;
        let distinct = distinct.clamp(self.set, self.count);
        (distinct, (self.set_bytes * distinct).div_ceil(self.set.max(1)))
    }
}
