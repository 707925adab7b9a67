//! Which words each file may have: what a query looks at first. A Bloom filter for each (Bloom, 1970),
//! in lines, so that a look is one read (Putze, Sanders and Singler, 2007), of a file where the memory
//! was needed for something else.

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

/// A query asks every file, and one that is let pass by mistake costs a run of its workflow: there
/// have to be few among thousands.
const BITS_PER_WORD: usize = 20;

/// Bits set for each word. With 20 bits for each it lets 1 in 2000 strange words pass.
const PROBES: u32 = 7;

/// Bytes of a line, in which all bits of a word are: as many as 9 bits of a hash can name.
const LINE: usize = 64;

/// Bytes of a block, which many signatures share. It is spilled as a whole, and what it leaves in the
/// heap is of use for anything.
const BLOCK: usize = 32 << 10;

/// That of a file, before it is with the others.
pub(crate) struct Signature {
    bits: Vec<u8>,
    held: Reservation,
}

impl Signature {
    /// Bytes of one of so many distinct words.
    pub(crate) const fn memory(distinct: usize) -> usize {
        let lines = distinct.saturating_mul(BITS_PER_WORD).div_ceil(LINE * 8);
        if lines == 0 { LINE } else { lines * LINE }
    }

    /// One of so many distinct words, charged to `budget`.
    pub(crate) fn new<'w>(
        budget: &Budget,
        distinct: usize,
        words: impl Iterator<Item = &'w [u8]>,
    ) -> Result<Self, MemoryError> {
        let held = budget.try_reserve(Self::memory(distinct))?;
        Ok(Self { bits: bits(distinct, words), held })
    }
}

/// The bits of so many distinct words.
pub(crate) fn bits<'w>(distinct: usize, words: impl Iterator<Item = &'w [u8]>) -> Vec<u8> {
    let mut bits = vec![0; Signature::memory(distinct)];
    for hash in words.map(hash) {
        let line = line_of(hash, bits.len());
        probes(hash).for_each(|(byte, mask)| bits[line..][byte] |= mask);
    }
    bits
}

/// Whether the file with these bits may have `word`.
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
    /// Pays for the places.
    _held: Reservation,
}

/// Where a signature is.
#[derive(Debug)]
struct Place {
    block: usize,
    at: usize,
    len: usize,
}

struct Blocks {
    /// With `None` for the open one.
    all: Vec<Option<Spilled>>,
    open: Vec<u8>,
    open_at: usize,
    /// Pays for the open block.
    charge: Reservation,
}

impl Signatures {
    /// Bytes of what cannot be spilled, for so many files.
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

    /// Keeps that of a file. What waits for room holds no more than this: nobody waits for it.
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

    /// The files that may have `word`: all that have it, and a few others.
    pub(crate) fn candidates(&self, word: &[u8]) -> impl Iterator<Item = usize> {
        let hash = hash(word);
        let may_have = move |place: &Place| {
            let mut line = [0; LINE];
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            // Where it cannot be read the file has to be.
            blocks.read(place.block, place.at + line_of(hash, place.len), &mut line).is_err()
                || probes(hash).all(|(byte, mask)| line[byte] & mask != 0)
        };
        let places = self.places.iter().enumerate();
        places.filter(move |(_, place)| place.get().is_some_and(may_have)).map(|(file, _)| file)
    }

    /// Bytes that are not in memory.
    pub(crate) fn spilled(&self) -> u64 {
        self.store.spilled_bytes()
    }
}

impl Blocks {
    /// Adds a signature to the open block, if it has room.
    fn add(&mut self, bits: &[u8]) -> Option<Place> {
        let at = self.open.len();
        if bits.len() > BLOCK - at {
            return None;
        }
        self.open.extend_from_slice(bits);
        Some(Place { block: self.open_at, at, len: bits.len() })
    }

    /// Leaves the open block to the store; another one takes its place.
    fn open_another(&mut self, charge: Reservation, store: &SpillStore) {
        let full = mem::replace(&mut self.open, Vec::with_capacity(BLOCK));
        let full = store.put_charged(full, mem::replace(&mut self.charge, charge));
        self.all[self.open_at] = Some(full);
        self.open_at = self.all.len();
        self.all.push(None);
    }

    /// Adds a signature that is large enough for a block of its own.
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

/// Where a word's line begins in so many bytes.
fn line_of(hash: u64, bytes: usize) -> usize {
    let lines = (bytes / LINE) as u64;
    usize::try_from(((hash >> 32) * lines) >> 32).expect("a line's index") * LINE
}

/// A word's bits in its line.
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

    /// One that is alone in a block, and small ones that fill more than one together.
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
