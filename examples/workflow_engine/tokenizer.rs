//! Finds the identifiers of a text, and which of them are definitions.
//!
//! A word is a longest run of ASCII letters, digits and underscores. It is an identifier if it does not begin with a
//! digit and has at most [`LONGEST`] bytes. An identifier is a definition if the word before it is one of
//! [`DEFINING`] and only white space, or the `!` of a macro's definition, is between them. Comments and strings are
//! treated like code, as in any plain index.

/// The longest identifier, in bytes. Longer words are data.
pub(crate) const LONGEST: usize = 64;

/// The words before a definition.
pub(crate) const DEFINING: [&str; 10] =
    ["const", "enum", "fn", "macro_rules", "mod", "static", "struct", "trait", "type", "union"];

/// The position of an identifier in a text of less than 4 GiB. It is small, because a run has all identifiers of its
/// file in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    start: u32,
    /// The number of the line; the first is 1.
    pub(crate) line: u32,
    length: u8,
    pub(crate) defines: bool,
}

impl Occurrence {
    /// Returns the identifier. `text` must be the text in which it was found.
    pub(crate) fn word(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..][..self.length.into()]
    }
}

/// The identifiers of a text, in order.
#[derive(Clone, Debug)]
pub(crate) struct Identifiers<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
    /// Whether the previous word begins a definition and only white space or `!` came since.
    defining: bool,
}

impl<'t> Identifiers<'t> {
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0, line: 1, defining: false }
    }
}

impl Iterator for Identifiers<'_> {
    type Item = Occurrence;

    fn next(&mut self) -> Option<Occurrence> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !is_word(byte) {
                self.at += 1;
                self.line += u32::from(byte == b'\n');
                self.defining &= byte.is_ascii_whitespace() || byte == b'!';
                continue;
            }
            let rest = &self.text[self.at..];
            let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
            let word = &rest[..length];
            let start = u32::try_from(self.at).ok()?;
            self.at += length;
            let defines = std::mem::replace(&mut self.defining, is_defining(word));
            if length <= LONGEST && !byte.is_ascii_digit() {
                let length = u8::try_from(length).expect("LONGEST is less than 256");
                return Some(Occurrence { start, line: self.line, length, defines });
            }
        }
    }
}

/// Sorts occurrences in `text` by word and line.
pub(crate) fn sort(text: &[u8], words: &mut [Occurrence]) {
    words.sort_unstable_by_key(|word| (word.word(text), word.line, word.defines));
}

/// Returns each distinct word of occurrences that are [sorted](sort).
pub(crate) fn distinct<'t>(
    text: &'t [u8],
    sorted: &'t [Occurrence],
) -> impl Iterator<Item = &'t [u8]> + Clone {
    sorted.chunk_by(|a, b| a.word(text) == b.word(text)).map(|same| same[0].word(text))
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_defining(word: &[u8]) -> bool {
    DEFINING.iter().any(|defining| defining.as_bytes() == word)
}

#[cfg(test)]
mod tests {
    use super::Identifiers;

    #[test]
    fn words_lines_and_definitions() {
        let text = b"pub fn one(x: u8) {}\nmacro_rules! two { 3x => fn }\n( four )";
        let found: Vec<_> = Identifiers::new(text)
            .map(|o| (std::str::from_utf8(o.word(text)).unwrap(), o.line, o.defines))
            .filter(|&(word, ..)| !["pub", "fn", "x", "u8", "macro_rules"].contains(&word))
            .collect();
        assert_eq!(found, [("one", 1, true), ("two", 2, true), ("four", 3, false)]);
    }

    #[test]
    fn a_word_above_64_bytes_is_no_identifier() {
        let text = "a".repeat(65);
        assert_eq!(Identifiers::new(text.as_bytes()).count(), 0);
        assert_eq!(Identifiers::new(&text.as_bytes()[1..]).count(), 1);
    }
}
