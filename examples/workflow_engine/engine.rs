//! The engine: a chain of nodes for each file, every byte of it on the ledger.
//!
//! ```text
//! process  limit
//! ├─ directory      the files and their signatures: what must stay
//! ├─ timeline       what the report is drawn from
//! ├─ buffers        pool of file buffers
//! ├─ in hand        posting lists that a thread is reading
//! └─ tenants
//!    ├─ serde-1.0   guarantee: its share of the input, of a quarter of the limit
//!    │  ├─ arenas   of the runs under way
//!    │  └─ lists    cache of posting lists, which can be computed again
//!    ┊
//! ```
//!
//! A run is `read → tokenise → build → memoise`. A query reads the posting lists of the files whose
//! signature may have its word, through the cache; what the cache had to give up is run again, by
//! the same nodes.

use crate::{
    corpus::{self, Corpus},
    heap,
    posting::{Posting, PostingList},
    queries::Vocabulary,
    signature::{Signature, hash},
    tokenizer::{Identifiers, Occurrence},
};
use nebula_memory::{
    Budget, MemoryError, Reservation,
    arena::Arena,
    budget::BudgetTree,
    cache::Cache,
    core::config::{ArenaConfig, MemoryConfig},
    pool::{Pool, Pooled},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the tenants are guaranteed together, as a part of the limit: less than their posting lists
/// take, so that nothing of it lies idle, and what is left has room for any run.
const GUARANTEED_PART: usize = 4;

/// What a run costs in microseconds; of two caches the one that loses less work gives way first.
const RUN_MICROS: u64 = 150;

/// The nodes that the components charge, in the order of the report.
pub(crate) const COMPONENTS: [&str; 6] =
    ["directory", "timeline", "buffers", "in hand", "arenas", "lists"];

/// Files that could not be read, by number, each with the first reason.
pub(crate) type Unreadable = BTreeMap<usize, String>;

type Buffers = Pool<fn() -> Vec<u8>>;
type Buffer = Pooled<fn() -> Vec<u8>>;
type Lists = Cache<u32, PostingList>;

pub(crate) struct Engine<'c> {
    corpus: &'c Corpus,
    /// `None` if there is no ledger.
    ledger: Option<Ledger>,
    tenants: Vec<Tenant>,
    buffers: Buffers,
    arenas: ArenaConfig,
    /// Of the files that were indexed; what a query looks at first.
    signatures: Vec<OnceLock<Signature>>,
    unreadable: Mutex<Unreadable>,
    binary: AtomicU64,
}

struct Ledger {
    tree: BudgetTree,
    in_hand: Budget,
    directory: Mutex<Reservation>,
}

struct Tenant {
    arenas: Option<Budget>,
    lists: Lists,
}

/// A run that the ledger has no room for, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) file: usize,
    pub(crate) error: MemoryError,
}

/// Why a file has no posting list.
#[derive(Debug)]
pub(crate) enum RunError {
    /// The ledger has no room for the run now.
    Refused(MemoryError),
    /// It could not be read or is not text: counted, and nothing to stop for.
    Skipped,
}

impl<E: Into<MemoryError>> From<E> for RunError {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl<'c> Engine<'c> {
    /// Sets everything up as `config` says.
    pub(crate) fn new(corpus: &'c Corpus, config: &MemoryConfig) -> Result<Self, MemoryError> {
        let tree = BudgetTree::from_config(&config.budget)?;
        let tenants = budgets(corpus, &tree)?;
        let tenants = tenants.iter().map(|budget| Tenant::new(config, Some(budget)));
        let tenants = tenants.collect::<Result<_, _>>()?;
        let buffers = Pool::options("buffers").config(&config.pool).budget(tree.root());
        let mut engine = Self::assemble(corpus, config, tenants, buffers.build(new_buffer())?);

        let directory = tree.root().child("directory").build()?;
        let fixed = corpus.memory()
            + Vocabulary::MEMORY
            + engine.signatures.capacity() * size_of::<OnceLock<Signature>>()
            + engine.tenants.capacity() * size_of::<Tenant>();
        let directory = Mutex::new(directory.try_reserve(fixed)?);
        let in_hand = tree.root().child("in hand").build()?;
        engine.ledger = Some(Ledger { tree, in_hand, directory });
        Ok(engine)
    }

    /// The same with no ledger.
    pub(crate) fn unbounded(corpus: &'c Corpus) -> Result<Self, MemoryError> {
        let config = MemoryConfig::default();
        let tenants = corpus.tenants.iter().map(|_| Tenant::new(&config, None));
        let tenants = tenants.collect::<Result<_, _>>()?;
        let buffers = Pool::options("buffers").build(new_buffer())?;
        Ok(Self::assemble(corpus, &config, tenants, buffers))
    }

    fn assemble(
        corpus: &'c Corpus,
        config: &MemoryConfig,
        tenants: Vec<Tenant>,
        buffers: Buffers,
    ) -> Self {
        Self {
            corpus,
            ledger: None,
            tenants,
            buffers,
            arenas: config.arena.clone(),
            signatures: corpus.files.iter().map(|_| OnceLock::new()).collect(),
            unreadable: Mutex::default(),
            binary: AtomicU64::new(0),
        }
    }

    pub(crate) const fn corpus(&self) -> &'c Corpus {
        self.corpus
    }

    /// The root of the ledger.
    pub(crate) fn process(&self) -> Option<&Budget> {
        self.ledger.as_ref().map(|ledger| ledger.tree.root())
    }

    /// The cache of each tenant, in the corpus's order.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Lists> {
        self.tenants.iter().map(|tenant| &tenant.lists)
    }

    /// What could not be read, and the number of files that are not text.
    pub(crate) fn skipped(&self) -> (Unreadable, u64) {
        (lock(&self.unreadable).clone(), self.binary.load(Ordering::Relaxed))
    }

    /// Whether the file had been read once.
    pub(crate) fn is_indexed(&self, file: usize) -> bool {
        self.signatures[file].get().is_some()
    }

    /// A job's reservation for the posting list that it reads. Drop it before waiting for others.
    pub(crate) fn hand(&self) -> Hand {
        Hand { held: self.ledger.as_ref().map(|ledger| ledger.in_hand.reservation()) }
    }

    /// Runs a file's workflow, and notes what it has for the queries.
    pub(crate) fn index(&self, file: usize, words: &Vocabulary) -> Result<(), Refusal> {
        let list = self.list(file, &mut self.hand(), |text, sorted| {
            let distinct = || {
                let same = sorted.chunk_by(|a, b| a.word(text) == b.word(text));
                same.map(|same| same[0].word(text))
            };
            if !self.is_indexed(file) {
                self.charge_directory(Signature::memory(distinct().count()))?;
                let signature = Signature::new(distinct().count(), distinct());
                let set = self.signatures[file].set(signature);
                set.expect("a file is indexed by one thread");
            }
            distinct().for_each(|word| words.offer(word));
            Ok(())
        });
        match list {
            Err(RunError::Refused(error)) => Err(Refusal { file, error }),
            Ok(_) | Err(RunError::Skipped) => Ok(()),
        }
    }

    /// The files that may have `word`: all that have it, and a few others.
    pub(crate) fn candidates(&self, word: &[u8]) -> impl Iterator<Item = usize> {
        let hash = hash(word);
        let may_have = move |signature: &OnceLock<Signature>| {
            signature.get().is_some_and(|s| s.may_have(hash))
        };
        let files = self.signatures.iter().enumerate();
        files.filter(move |(_, signature)| may_have(signature)).map(|(file, _)| file)
    }

    /// What a file has of `word`; its posting list is run again if the cache gave it up.
    pub(crate) fn posting(
        &self,
        file: usize,
        word: &[u8],
        hand: &mut Hand,
    ) -> Result<Option<Posting>, RunError> {
        let list = self.list(file, hand, |_, _| Ok(()))?;
        Ok(list.find(word))
    }

    /// The chain of nodes, as far as the cache does not have its result. `note` sees the sorted
    /// words of a run.
    fn list(
        &self,
        file: usize,
        hand: &mut Hand,
        note: impl FnOnce(&[u8], &[Occurrence]) -> Result<(), RunError>,
    ) -> Result<PostingList, RunError> {
        let tenant = &self.tenants[self.corpus.files[file].tenant as usize];
        let key = u32::try_from(file).expect("files were counted in 32 bits");
        let list: Result<_, RunError> = tenant.lists.get_or_insert_with(&key, || {
            let text = self.read(file)?;
            let arena = tenant.arena(&self.arenas)?;
            let sorted = tokenise(&arena, &text)?;
            note(&text, sorted)?;
            let encoded = PostingList::encoded_bytes(&text, sorted);
            hand.cover(PostingList::memory_for(encoded))?;
            heap::before_filling(encoded);
            Ok(PostingList::build(&text, sorted, encoded))
        });
        let list = list?;
        // The cache may give its entry up while this thread still reads it.
        hand.cover(list.memory())?;
        Ok(list)
    }

    /// The first node: the file, in a buffer that was charged before it grew.
    fn read(&self, file: usize) -> Result<Buffer, RunError> {
        let expected = self.corpus.files[file].bytes;
        let Ok(bytes) = u32::try_from(expected) else {
            return Err(self.cannot_read(file, &"larger than 4 GiB"));
        };
        let bytes = bytes as usize;
        let mut buffer = self.buffers.try_get()?;
        let charge = bytes.max(buffer.capacity());
        buffer.try_charge(charge)?;
        buffer.reserve_exact(bytes);
        heap::before_filling(bytes);
        buffer.resize(bytes, 0);
        let mut read = || {
            let mut file = File::open(self.corpus.path(file))?;
            if file.metadata()?.len() != expected {
                return Err(io::Error::other("has another length than when it was found"));
            }
            file.read_exact(&mut buffer)
        };
        read().map_err(|error| self.cannot_read(file, &error))?;
        match (buffer.contains(&0), self.is_indexed(file)) {
            (false, _) => Ok(buffer),
            (true, true) => Err(self.cannot_read(file, &"is no text any more")),
            (true, false) => {
                self.binary.fetch_add(1, Ordering::Relaxed);
                Err(RunError::Skipped)
            }
        }
    }

    #[cold]
    fn cannot_read(&self, file: usize, why: &dyn std::fmt::Display) -> RunError {
        let named = || format!("{}: {why}", self.corpus.path(file).display());
        lock(&self.unreadable).entry(file).or_insert_with(named);
        RunError::Skipped
    }

    fn charge_directory(&self, bytes: usize) -> Result<(), MemoryError> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        // Reserved with no lock held: this may run the managers of every other component.
        let budget = lock(&ledger.directory).budget().clone();
        let more = budget.try_reserve(bytes)?;
        let merged = lock(&ledger.directory).merge(more);
        merged.expect("both are from one budget");
        Ok(())
    }
}

impl Tenant {
    fn new(config: &MemoryConfig, budget: Option<&Budget>) -> Result<Self, MemoryError> {
        let lists = Cache::options("lists")
            .config(&config.cache)
            .weigher(|_, list: &PostingList| size_of::<(u32, PostingList)>() + list.memory())
            .recompute_cost_micros(RUN_MICROS);
        let lists = match budget {
            Some(budget) => lists.budget(budget),
            None => lists.max_bytes(isize::MAX.unsigned_abs()),
        };
        let arenas = budget.map(|budget| budget.child("arenas").build()).transpose()?;
        Ok(Self { arenas, lists: lists.build()? })
    }

    /// An arena for one run.
    fn arena(&self, config: &ArenaConfig) -> Result<Arena, MemoryError> {
        let options = Arena::options().config(config);
        let options = match &self.arenas {
            Some(budget) => options.budget(budget),
            None => options,
        };
        Ok(options.build()?)
    }
}

/// The second node: the words of a text, sorted, in the run's arena.
fn tokenise<'a>(arena: &'a Arena, text: &[u8]) -> Result<&'a [Occurrence], MemoryError> {
    let mut words = Identifiers::new(text);
    let count = words.clone().count();
    arena.try_reserve(count * size_of::<Occurrence>())?;
    heap::before_filling(count * size_of::<Occurrence>());
    let sorted = arena
        .try_alloc_slice_fill_with(count, |_| words.next().expect("as many as were counted"))?;
    sorted.sort_unstable_by_key(|word| (word.word(text), word.line, word.defines));
    Ok(sorted)
}

/// A job's reservation for the posting list that it reads and the cache may have given up.
pub(crate) struct Hand {
    held: Option<Reservation>,
}

impl Hand {
    /// Holds at least `bytes`.
    fn cover(&mut self, bytes: usize) -> Result<(), MemoryError> {
        if let Some(held) = &mut self.held
            && let Some(missing) = bytes.checked_sub(held.size())
        {
            held.try_grow(missing)?;
        }
        Ok(())
    }
}

/// The tenants' budgets, as the configuration describes them, or with a share of what is guaranteed.
fn budgets(corpus: &Corpus, tree: &BudgetTree) -> Result<Vec<Budget>, MemoryError> {
    let guaranteed = tree.root().limit().map_or(0, |limit| limit / GUARANTEED_PART);
    let all = corpus.bytes().max(1);
    let tenants = match tree.get("tenants") {
        Some(tenants) => tenants.clone(),
        None => tree.root().child("tenants").build()?,
    };
    let budget = |(tenant, bytes): (&corpus::Tenant, u64)| {
        // A name with a dot is none of a configuration's.
        let configured = tree.get(&format!("tenants.{}", tenant.name));
        match configured.filter(|_| !tenant.name.contains('.')) {
            Some(configured) => Ok(configured.clone()),
            None => {
                let share = guaranteed as u128 * u128::from(bytes) / u128::from(all);
                let share = usize::try_from(share).expect("a part of the limit");
                Ok(tenants.child(&tenant.name).guarantee(share).build()?)
            }
        }
    };
    corpus.tenants.iter().zip(corpus.bytes_of_tenants()).map(budget).collect()
}

fn new_buffer() -> fn() -> Vec<u8> {
    Vec::new
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Engine, RunError};
    use crate::{
        corpus::Corpus,
        queries::{Vocabulary, answer},
    };
    use nebula_memory::core::config::MemoryConfig;
    use std::fs;

    #[test]
    fn a_file_that_is_gone_or_longer_is_noted_once_however_often_it_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["gone", "longer", "same"] {
            fs::write(path(name), "fn word() {}\n").unwrap();
        }
        let corpus = Corpus::find(&[directory.path().to_owned()]).unwrap();
        let engine = Engine::new(&corpus, &MemoryConfig::default()).unwrap();
        let words = Vocabulary::new(1);
        (0..3).for_each(|file| engine.index(file, &words).unwrap());
        let ask = || answer(&engine, b"word", &mut engine.hand()).unwrap();
        assert_eq!(ask().files_defining, 3);

        fs::remove_file(path("gone")).unwrap();
        fs::write(path("longer"), "fn word() {}\nfn word() {}\n").unwrap();
        assert_eq!(ask().files_defining, 3, "from the cache");
        engine.process().unwrap().reclaim(usize::MAX);
        assert_eq!((ask().files_defining, ask().files_defining), (1, 1));
        let (unreadable, binary) = engine.skipped();
        assert!(unreadable.keys().eq(&[0, 1]) && binary == 0, "{unreadable:?}");
        assert!(unreadable.keys().all(|&file| engine.is_indexed(file)));
        let gone = engine.posting(0, b"word", &mut engine.hand());
        assert!(matches!(gone, Err(RunError::Skipped)), "{gone:?}");
    }
}
