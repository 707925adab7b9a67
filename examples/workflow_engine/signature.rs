//! Which words a file may have, in 20 bits for each: a Bloom filter (Bloom, 1970).

use std::hash::{DefaultHasher, Hasher};

/// A query asks every file, and one that is let pass by mistake costs a run of its workflow: there
/// have to be few among thousands.
const BITS_PER_WORD: usize = 20;

/// Bits set for each word. With 20 bits for each it lets 1 in 10 000 strange words pass.
const PROBES: u64 = 9;

/// What an allocator adds to a small block; counted here because there is one for each file.
const ALLOCATOR_OVERHEAD: usize = 16;

#[derive(Debug)]
pub(crate) struct Signature {
    bits: Box<[u64]>,
}

impl Signature {
    /// Bytes that the signature of a file of so many distinct words takes, beside the handle.
    pub(crate) const fn memory(distinct: usize) -> usize {
        Self::blocks(distinct) * size_of::<u64>() + ALLOCATOR_OVERHEAD
    }

    pub(crate) fn new<'w>(distinct: usize, words: impl Iterator<Item = &'w [u8]>) -> Self {
        let mut bits = vec![0; Self::blocks(distinct)].into_boxed_slice();
        for word in words {
            for (block, mask) in probes(hash(word), bits.len()) {
                bits[block] |= mask;
            }
        }
        Self { bits }
    }

    /// Whether a word of this hash may be in the file; never false for one that is.
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        probes(hash, self.bits.len()).all(|(block, mask)| self.bits[block] & mask != 0)
    }

    const fn blocks(distinct: usize) -> usize {
        let blocks = (distinct * BITS_PER_WORD).div_ceil(64);
        if blocks == 0 { 1 } else { blocks }
    }
}

/// The hash that signatures are made of; the same in every run.
pub(crate) fn hash(word: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(word);
    hasher.finish()
}

/// Bits by double hashing (Kirsch and Mitzenmacher, 2006).
fn probes(hash: u64, blocks: usize) -> impl Iterator<Item = (usize, u64)> {
    let bits = blocks as u64 * 64;
    let (first, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    (0..PROBES).map(move |probe| {
        let spread = first.wrapping_add(probe.wrapping_mul(step)) & 0xffff_ffff;
        let bit = (spread * bits) >> 32;
        (usize::try_from(bit / 64).expect("a block's index"), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::{Signature, hash};

    #[test]
    fn it_has_every_word_and_few_others() {
        let words: Vec<String> = (0..1000).map(|word| format!("word_{word}")).collect();
        let signature = Signature::new(1000, words.iter().map(String::as_bytes));
        assert!(words.iter().all(|word| signature.may_have(hash(word.as_bytes()))));
        let strange = (0..10_000).map(|word| hash(format!("other_{word}").as_bytes()));
        assert!(strange.filter(|&hash| signature.may_have(hash)).count() < 10);
    }
}
