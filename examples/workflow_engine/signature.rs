//! Signatures: a Bloom filter for each file's words (Bloom, 1970), which a query checks before it reads the file's
//! posting list. All bits of a word are in one line of the filter, so a check is one read (Putze, Sanders and
//! Singler, 2007). It reads from a spill file if the memory was needed for something else.

use crate::waits::PATIENCE;
use nebula_memory::{
    Budget, MemoryError, Priority, Reservation,
    budget::{SpillStore, Spilled},
};
use std::{
    error::Error,
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Seek, SeekFrom},
    mem,
    sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard},
};

/// A query checks the signatures of all files. A false positive costs a run of the file's workflow, so there must be
/// few among thousands of files.
const BITS_PER_WORD: usize = 20;

/// Bits set for each word. With 20 bits for each word, 1 in 2000 checks of other words is a false positive.
const PROBES: u32 = 7;

/// Bytes of a line, which has all bits of a word. 9 bits of a hash are the number of a bit in it.
const LINE: usize = 64;

/// Bytes of a block, which many signatures share. A block is spilled as a whole, so it leaves a free block of this
/// size in the heap, which is large enough for other uses.
const BLOCK: usize = 32 << 10;

/// A file's signature before it is stored with the others.
pub(crate) struct Signature {
    bits: Vec<u8>,
    held: Reservation,
}

impl Signature {
    /// Returns the bytes of a signature of `distinct` words.
    pub(crate) const fn memory(distinct: usize) -> usize {
        let lines = distinct.saturating_mul(BITS_PER_WORD).div_ceil(LINE * 8);
        if lines == 0 { LINE } else { lines * LINE }
    }

    /// Makes a signature of `distinct` words, charged to `budget`.
    pub(crate) fn new<'w>(
        budget: &Budget,
        distinct: usize,
        words: impl Iterator<Item = &'w [u8]>,
    ) -> Result<Self, MemoryError> {
        let held = budget.try_reserve(Self::memory(distinct))?;
        Ok(Self { bits: bits(distinct, words), held })
    }
}

/// Makes the bits of a signature of `distinct` words.
pub(crate) fn bits<'w>(distinct: usize, words: impl Iterator<Item = &'w [u8]>) -> Vec<u8> {
    let mut bits = vec![0; Signature::memory(distinct)];
    for hash in words.map(hash) {
        let line = line_of(hash, bits.len());
        probes(hash).for_each(|(byte, mask)| bits[line..][byte] |= mask);
    }
    bits
}

/// Returns whether a file with these bits may contain `word`.
pub(crate) fn may_have(bits: &[u8], word: &[u8]) -> bool {
    let hash = hash(word);
    let line = line_of(hash, bits.len());
    probes(hash).all(|(byte, mask)| bits[line..][byte] & mask != 0)
}

/// The signatures of all files.
pub(crate) struct Signatures {
    budget: Budget,
    store: SpillStore,
    places: Vec<OnceLock<Place>>,
    blocks: RwLock<Blocks>,
    /// The reservation for `places`.
    _held: Reservation,
}

/// The position of a signature.
#[derive(Debug)]
struct Place {
    block: usize,
    at: usize,
    len: usize,
}

struct Blocks {
    /// `None` for the open block.
    all: Vec<Option<Spilled>>,
    open: Vec<u8>,
    open_at: usize,
    /// The charge of the open block.
    charge: Reservation,
}

impl Signatures {
    /// Returns the bytes that cannot be spilled, for `files` files.
    pub(crate) const fn memory(files: usize) -> usize {
        files * size_of::<OnceLock<Place>>() + BLOCK
    }

    pub(crate) fn new(budget: Budget, files: usize) -> Result<Self, Box<dyn Error>> {
        let places: Vec<_> = (0..files).map(|_| OnceLock::new()).collect();
        let held = budget.try_reserve(places.capacity() * size_of::<OnceLock<Place>>())?;
        let store = SpillStore::new(&budget, "signatures")?;
        let charge = budget.try_reserve(BLOCK)?;
        let open = Vec::with_capacity(BLOCK);
        let blocks = Blocks { all: vec![None], open, open_at: 0, charge };
        Ok(Self { budget, store, places, blocks: RwLock::new(blocks), _held: held })
    }

    pub(crate) fn has(&self, file: usize) -> bool {
        self.places[file].get().is_some()
    }

    /// Stores the signature of a file. While it waits for room, the caller has no other reservation than the
    /// signature's, so no other request waits for it.
    pub(crate) fn keep(&self, file: usize, signature: Signature) -> Result<(), MemoryError> {
        let Signature { bits, held } = signature;
        let room =
            |bytes| self.budget.reserve(bytes).priority(Priority::High).timeout(PATIENCE).wait();
        let place = if bits.len() > BLOCK / 2 {
            let room = room(bits.len())?;
            self.blocks_to_change().put(bits, room, &self.store)
        } else {
            let mut another = None;
            loop {
                let mut blocks = self.blocks_to_change();
                if let Some(place) = blocks.add(&bits) {
                    break place;
                }
                if let Some(room) = another.take() {
                    blocks.open_another(room, &self.store);
                } else {
                    drop(blocks);
                    another = Some(room(BLOCK)?);
                }
            }
        };
        drop(held);
        self.places[file].set(place).expect("a file is indexed by one thread");
        Ok(())
    }

    fn blocks_to_change(&self) -> RwLockWriteGuard<'_, Blocks> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the files that may contain `word`: all that do, and a few others.
    pub(crate) fn candidates(&self, word: &[u8]) -> impl Iterator<Item = usize> {
        let hash = hash(word);
        let may_have = move |place: &Place| {
            let mut line = [0; LINE];
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            // If the signature cannot be read, the file must be.
            blocks.read(place.block, place.at + line_of(hash, place.len), &mut line).is_err()
                || probes(hash).all(|(byte, mask)| line[byte] & mask != 0)
        };
        let places = self.places.iter().enumerate();
        places.filter(move |(_, place)| place.get().is_some_and(may_have)).map(|(file, _)| file)
    }

    /// Returns the bytes on disk.
    pub(crate) fn spilled(&self) -> u64 {
        self.store.spilled_bytes()
    }
}

impl Blocks {
    /// Adds a signature to the open block, if the block has room.
    fn add(&mut self, bits: &[u8]) -> Option<Place> {
        let at = self.open.len();
        if bits.len() > BLOCK - at {
            return None;
        }
        self.open.extend_from_slice(bits);
        Some(Place { block: self.open_at, at, len: bits.len() })
    }

    /// Moves the open block to the store and opens a new one.
    fn open_another(&mut self, charge: Reservation, store: &SpillStore) {
        let full = mem::replace(&mut self.open, Vec::with_capacity(BLOCK));
        let full = store.put_charged(full, mem::replace(&mut self.charge, charge));
        self.all[self.open_at] = Some(full);
        self.open_at = self.all.len();
        self.all.push(None);
    }

    /// Stores a large signature in a block of its own.
    fn put(&mut self, bits: Vec<u8>, charge: Reservation, store: &SpillStore) -> Place {
        let place = Place { block: self.all.len(), at: 0, len: bits.len() };
        self.all.push(Some(store.put_charged(bits, charge)));
        place
    }

    fn read(&self, block: usize, at: usize, line: &mut [u8]) -> io::Result<()> {
        match &self.all[block] {
            Some(spilled) => {
                let mut reader = spilled.reader();
                reader.seek(SeekFrom::Start(at as u64))?;
                reader.read_exact(line)
            }
            None => {
                line.copy_from_slice(&self.open[at..at + line.len()]);
                Ok(())
            }
        }
    }
}

/// Returns the hash of a word for signatures. It is the same in every run.
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

/// Returns where a word's line begins in a signature of `bytes` bytes.
fn line_of(hash: u64, bytes: usize) -> usize {
    let lines = (bytes / LINE) as u64;
    usize::try_from(((hash >> 32) * lines) >> 32).expect("a line's index") * LINE
}

/// Returns the bits of a word in its line.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let mixed = mix(hash);
    (0..PROBES).map(move |probe| {
        let bit = usize::try_from(mixed >> (9 * probe) & 0x1ff).expect("9 bits");
        (bit / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::{Signature, Signatures};
    use nebula_memory::Budget;

    /// One signature has a block of its own; the small ones together fill more than one block.
    #[test]
    fn a_file_is_found_by_every_word_and_few_others_in_memory_or_not() {
        const FILES: usize = 50;
        let budget = Budget::root("signatures").build().unwrap();
        let signatures = Signatures::new(budget.clone(), FILES).unwrap();
        let words = |file: usize| {
            let count = if file == 10 { 20_000 } else { 1000 };
            (0..count).map(move |word| format!("word_{file}_{word}"))
        };
        for file in 0..FILES {
            let words: Vec<_> = words(file).collect();
            let words = (words.len(), words.iter().map(String::as_bytes));
            signatures.keep(file, Signature::new(&budget, words.0, words.1).unwrap()).unwrap();
        }
        for is_spilled in [false, true] {
            assert_eq!(signatures.spilled() > 100_000, is_spilled);
            let found = |word: &str| signatures.candidates(word.as_bytes()).collect::<Vec<_>>();
            for file in [0, 9, 10, 11, FILES - 1] {
                assert!(words(file).step_by(10).all(|word| found(&word).contains(&file)));
            }
            let strange = (0..1000).map(|word| found(&format!("other_{word}")).len());
            assert!(strange.sum::<usize>() < 2 * FILES);
            budget.reclaim(usize::MAX);
        }
    }
}
