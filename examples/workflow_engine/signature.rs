//! Which words each file may have: what a query looks at first. A Bloom filter for each (Bloom, 1970),
//! in blocks, so that a look is one read (Putze, Sanders and Singler, 2007), of a file where the memory
//! was needed for something else.

use crate::waits::BRIEFLY;
use nebula_memory::{
    Budget, MemoryError, Priority, Reservation,
    budget::{SpillStore, Spilled},
};
use std::{
    error::Error,
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Seek, SeekFrom},
    sync::OnceLock,
};

/// A query asks every file, and one that is let pass by mistake costs a run of its workflow: there
/// have to be few among thousands.
const BITS_PER_WORD: usize = 20;

/// Bits set for each word. With 20 bits for each it lets 1 in 2000 strange words pass.
const PROBES: u32 = 7;

/// Bytes of a block, in which all bits of a word are: as many as 9 bits of a hash can name.
const BLOCK: usize = 64;

/// What an allocator adds to a small block; counted here because there is one for each file.
const ALLOCATOR_OVERHEAD: usize = 16;

/// The signatures of all files.
pub(crate) struct Signatures {
    budget: Budget,
    store: SpillStore,
    of_files: Vec<OnceLock<Spilled>>,
    /// Pays for the handles.
    _held: Reservation,
}

impl Signatures {
    pub(crate) fn new(budget: Budget, files: usize) -> Result<Self, Box<dyn Error>> {
        let of_files: Vec<_> = (0..files).map(|_| OnceLock::new()).collect();
        let handle = size_of::<OnceLock<Spilled>>() + SpillStore::OVERHEAD;
        let held = budget.try_reserve(of_files.capacity() * handle)?;
        let store = SpillStore::new(&budget, "signatures")?;
        Ok(Self { budget, store, of_files, _held: held })
    }

    pub(crate) fn has(&self, file: usize) -> bool {
        self.of_files[file].get().is_some()
    }

    /// Keeps that of a file, of so many distinct words. Who waits for room holds what others wait for:
    /// it goes first, and not on where that takes long.
    pub(crate) fn keep<'w>(
        &self,
        file: usize,
        distinct: usize,
        words: impl Iterator<Item = &'w [u8]>,
    ) -> Result<(), MemoryError> {
        let blocks = (distinct * BITS_PER_WORD).div_ceil(BLOCK * 8).max(1);
        let room = self.budget.reserve(blocks * BLOCK + ALLOCATOR_OVERHEAD);
        let room = room.priority(Priority::High).timeout(BRIEFLY).wait()?;
        let mut bits = vec![0; blocks * BLOCK];
        for hash in words.map(hash) {
            let block = block_of(hash, bits.len());
            probes(hash).for_each(|(byte, mask)| bits[block..][byte] |= mask);
        }
        let kept = self.of_files[file].set(self.store.put_charged(bits, room));
        kept.expect("a file is indexed by one thread");
        Ok(())
    }

    /// The files that may have `word`: all that have it, and a few others.
    pub(crate) fn candidates(&self, word: &[u8]) -> impl Iterator<Item = usize> {
        let hash = hash(word);
        let may_have = move |bits: &Spilled| {
            let mut block = [0; BLOCK];
            // Where it cannot be read the file has to be.
            read(bits, block_of(hash, bits.len()), &mut block).is_err()
                || probes(hash).all(|(byte, mask)| block[byte] & mask != 0)
        };
        let files = self.of_files.iter().enumerate();
        files.filter(move |(_, bits)| bits.get().is_some_and(may_have)).map(|(file, _)| file)
    }

    /// Bytes that are not in memory.
    pub(crate) fn spilled(&self) -> u64 {
        self.store.spilled_bytes()
    }
}

fn read(bits: &Spilled, at: usize, block: &mut [u8]) -> io::Result<()> {
    let mut reader = bits.reader();
    reader.seek(SeekFrom::Start(at as u64))?;
    reader.read_exact(block)
}

/// The hash that signatures are made of; the same in every run.
pub(crate) fn hash(word: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(word);
    hasher.finish()
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Where a word's block begins in so many bytes.
fn block_of(hash: u64, bytes: usize) -> usize {
    let blocks = (bytes / BLOCK) as u64;
    usize::try_from(((hash >> 32) * blocks) >> 32).expect("a block's index") * BLOCK
}

/// A word's bits in its block.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let mixed = mix(hash);
    (0..PROBES).map(move |probe| {
        let bit = usize::try_from(mixed >> (9 * probe) & 0x1ff).expect("9 bits");
        (bit / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::Signatures;
    use nebula_memory::Budget;

    #[test]
    fn a_file_is_found_by_every_word_and_few_others_in_memory_or_not() {
        let budget = Budget::root("signatures").build().unwrap();
        let signatures = Signatures::new(budget.clone(), 3).unwrap();
        let words: Vec<String> = (0..1000).map(|word| format!("word_{word}")).collect();
        signatures.keep(1, 1000, words.iter().map(String::as_bytes)).unwrap();
        for is_spilled in [false, true] {
            assert_eq!(signatures.spilled() > 0, is_spilled);
            let found = |word: &str| signatures.candidates(word.as_bytes()).eq([1]);
            assert!(words.iter().all(|word| found(word)));
            assert!((0..10_000).filter(|word| found(&format!("other_{word}"))).count() < 20);
            budget.reclaim(usize::MAX);
        }
    }
}
