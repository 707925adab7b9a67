//! A short name without heap memory.

use core::{
    fmt::{self, Write as _},
    str,
};

/// A name of at most 23 bytes without heap memory, for errors that are `Copy`.
///
/// A longer name is cut at a character boundary and ends in `…`.
///
/// # Examples
///
/// ```
/// use nebula_memory::core::Label;
///
/// assert_eq!(Label::new("tenant-a").as_str(), "tenant-a");
/// assert_eq!(Label::new("a-name-of-more-than-23-bytes").as_str(), "a-name-of-more-than-…");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    /// # Invariants
    ///
    /// The first `len` bytes are UTF-8; the rest are zero. Only [`Label::new`] sets them.
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Label {
    /// The longest name that is not cut, in bytes. With its length the label is three words.
    pub const CAPACITY: usize = 23;

    const ELLIPSIS: &'static str = "…";

    /// Makes a label of `name`, which is cut if it is longer than [`CAPACITY`](Self::CAPACITY).
    #[must_use]
    pub fn new(name: &str) -> Self {
        let (head, tail) = if name.len() <= Self::CAPACITY {
            (name, "")
        } else {
            let mut end = Self::CAPACITY - Self::ELLIPSIS.len();
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            (&name[..end], Self::ELLIPSIS)
        };
        let mut bytes = [0; Self::CAPACITY];
        let len = head.len() + tail.len();
        bytes[..head.len()].copy_from_slice(head.as_bytes());
        bytes[head.len()..len].copy_from_slice(tail.as_bytes());
        Self { bytes, len: u8::try_from(len).unwrap_or(0) }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // This cannot fail, by the invariant. The check costs little compared to printing.
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Control characters are escaped, such as `\n` for a line break.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.as_str();
        if name.contains(is_escaped) { Visible(name).fmt(f) } else { f.pad(name) }
    }
}

/// A name or another caller's text in a message. Control characters and line separators are escaped, so that the text
/// stays on one line and does not control a terminal.
pub(crate) struct Visible<'a>(pub(crate) &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match is_escaped(character) {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

fn is_escaped(character: char) -> bool {
    // The line and the paragraph separator are not control characters.
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::{Label, Visible};
    use std::{format, string::ToString};

    #[test]
    fn a_long_name_is_cut_at_a_character_boundary() {
        for name in ["", "a", "exactly-23-bytes-long-x", "ééééééééééééééé", "😀😀😀😀😀😀😀"]
        {
            let label = Label::new(name);
            let text = label.as_str();
            assert!(text.len() <= Label::CAPACITY);
            match text.strip_suffix('…') {
                Some(head) => assert!(name.starts_with(head) && name.len() > Label::CAPACITY),
                None => assert_eq!(text, name),
            }
        }
    }

    #[test]
    fn a_text_stays_on_one_line() {
        assert_eq!(Visible("a b/ü").to_string(), "a b/ü");
        assert_eq!(Visible("\r\n\u{7}\u{2028}\u{9b}").to_string(), r"\r\n\u{7}\u{2028}\u{9b}");
        assert_eq!(format!("{:>4}|{}", Label::new("a"), Label::new("\n")), r"   a|\n");
    }
}
