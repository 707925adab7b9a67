//! A file's posting list: its identifiers, with the lines in which each is defined or used.
//!
//! The list is one contiguous block of memory, so it is one allocation and its charge is exact:
//!
//! ```text
//! entry*   sorted by word
//! entry    = varint(bytes of word) word varint(bytes of lines) lines
//! lines    = varint(line − line before, shifted left by one, plus one where it is defined)*
//! ```

use crate::tokenizer::Occurrence;
use std::sync::Arc;

/// A posting list. The cache and the queries that read it share it.
#[derive(Clone, Debug)]
pub(crate) struct PostingList {
    bytes: Arc<[u8]>,
}

/// The occurrences of one identifier in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Posting {
    pub(crate) definitions: u32,
    pub(crate) uses: u32,
    /// The line of the first definition, or of the first use if there is no definition.
    pub(crate) line: u32,
}

impl PostingList {
    /// Returns the bytes of memory for a list of `encoded` bytes, including the counters of the `Arc`.
    pub(crate) const fn memory_for(encoded: usize) -> usize {
        encoded + 2 * size_of::<usize>()
    }

    /// Returns the bytes of memory of the list, without the handle.
    pub(crate) fn memory(&self) -> usize {
        Self::memory_for(self.bytes.len())
    }

    /// Returns the encoded size of a list that [`build`](Self::build) would make.
    pub(crate) fn encoded_bytes(text: &[u8], sorted: &[Occurrence]) -> usize {
        let mut counter = Counter(0);
        encode(text, sorted, &mut counter);
        counter.0
    }

    /// Encodes the occurrences in `text`, sorted by word and line. `encoded` must be the result of
    /// [`encoded_bytes`](Self::encoded_bytes) for them.
    pub(crate) fn build(text: &[u8], sorted: &[Occurrence], encoded: usize) -> Self {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, encoded).collect();
        let mut writer = Writer(Arc::get_mut(&mut bytes).expect("nobody else has it yet"));
        encode(text, sorted, &mut writer);
        assert!(writer.0.is_empty(), "the two passes agree");
        Self { bytes }
    }

    /// Looks up an identifier. Linear in the list's distinct words.
    pub(crate) fn find(&self, word: &[u8]) -> Option<Posting> {
        let mut reader = Reader(&self.bytes);
        while !reader.0.is_empty() {
            let entry = reader.slice();
            let lines = reader.slice();
            if entry >= word {
                return (entry == word).then(|| Posting::read(lines));
            }
        }
        None
    }
}

impl Posting {
    fn read(lines: &[u8]) -> Self {
        let mut posting = Self { definitions: 0, uses: 0, line: 0 };
        let mut reader = Reader(lines);
        let mut line = 0;
        while !reader.0.is_empty() {
            let coded = reader.varint();
            line += coded >> 1;
            let defines = coded & 1 == 1;
            if posting.line == 0 || (defines && posting.definitions == 0) {
                posting.line = u32::try_from(line).unwrap_or(u32::MAX);
            }
            *if defines { &mut posting.definitions } else { &mut posting.uses } += 1;
        }
        posting
    }
}

/// The target of an encoding: a counter in the first pass, and the list in the second.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = (value & 0x7f).to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.put(&[low]);
            }
            self.put(&[low | 0x80]);
        }
    }
}

struct Counter(usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

struct Writer<'b>(&'b mut [u8]);

impl Sink for Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = self.0.split_first().expect("a list ends after an entry");
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn slice(&mut self) -> &'b [u8] {
        let length = usize::try_from(self.varint()).expect("it is in memory");
        let (slice, rest) = self.0.split_at(length);
        self.0 = rest;
        slice
    }
}

fn encode(text: &[u8], sorted: &[Occurrence], sink: &mut impl Sink) {
    for same in sorted.chunk_by(|a, b| a.word(text) == b.word(text)) {
        let word = same[0].word(text);
        sink.varint(word.len() as u64);
        sink.put(word);
        let mut lines = Counter(0);
        encode_lines(same, &mut lines);
        sink.varint(lines.0 as u64);
        encode_lines(same, sink);
    }
}

fn encode_lines(same: &[Occurrence], sink: &mut impl Sink) {
    let mut before = 0;
    for occurrence in same {
        let delta = occurrence.line - std::mem::replace(&mut before, occurrence.line);
        sink.varint(u64::from(delta) << 1 | u64::from(occurrence.defines));
    }
}

#[cfg(test)]
mod tests {
    use super::{Posting, PostingList};
    use crate::tokenizer::Identifiers;

    #[test]
    fn a_list_finds_the_words_of_its_text() {
        let text = format!("a b\n{}fn a() {{ a }} z", "\n".repeat(1000));
        let mut words: Vec<_> = Identifiers::new(text.as_bytes()).collect();
        let text = text.as_bytes();
        words.sort_by_key(|o| (o.word(text), o.line));
        let list = PostingList::build(text, &words, PostingList::encoded_bytes(text, &words));
        let a = Posting { definitions: 1, uses: 2, line: 1002 };
        assert_eq!(list.find(b"a"), Some(a));
        assert_eq!(list.find(b"z"), Some(Posting { definitions: 0, uses: 1, line: 1002 }));
        assert_eq!((list.find(b"A"), list.find(b"aa"), list.find(b"zz")), (None, None, None));
    }
}
