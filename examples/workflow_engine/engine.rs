//! The engine: a chain of nodes for each file, every byte of it on the ledger.
//!
//! ```text
//! process  limit
//! ├─ directory      the files and their signatures: what must stay
//! ├─ timeline       what the report is drawn from
//! ├─ buffers        pool of file buffers
//! ├─ in hand        posting lists that a thread is reading
//! └─ tenants
//!    ├─ serde-1.0   guarantee: an equal share of a sixteenth of the limit
//!    │  ├─ arenas   of the runs under way
//!    │  └─ lists    cache of posting lists, which can be computed again
//!    ┊
//! ```
//!
//! A run is `read → tokenise → build → memoise`. A query reads the posting lists of the files whose
//! signature may have its word, through the cache; what the cache had to give up is run again, by
//! the same nodes.

use crate::{
    corpus::Corpus,
    posting::{Posting, PostingList},
    queries::Vocabulary,
    signature::{Signature, hash},
    tokenizer::{Identifiers, Occurrence},
};
use nebula_memory::{
    Budget, ByteSize, MemoryError, Reservation,
    arena::Arena,
    budget::BudgetTree,
    cache::Cache,
    core::config::{ArenaConfig, BudgetConfig, MemoryConfig},
    pool::{Pool, Pooled},
};
use std::{
    fs::File,
    io::Read,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the tenants are guaranteed together, as a part of the limit.
const GUARANTEED_PART: u64 = 16;

/// What a run costs in microseconds; of two caches the one that loses less work gives way first.
const RUN_MICROS: u64 = 150;

/// The nodes that the components charge, in the order of the report.
pub(crate) const COMPONENTS: [&str; 6] =
    ["directory", "timeline", "buffers", "in hand", "arenas", "lists"];

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
    unreadable: Mutex<Vec<String>>,
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
        let tree = BudgetTree::from_config(&budgets(corpus, &config.budget))?;
        let tenant = |name: &str| {
            let budget = tree.get(&format!("tenants.{name}")).expect("was described");
            Tenant::new(config, Some(budget))
        };
        let tenants = corpus.tenants.iter().map(|it| tenant(&it.name)).collect::<Result<_, _>>()?;
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

    /// What could not be read, with the reason, and the number of files that are not text.
    pub(crate) fn skipped(&self) -> (Vec<String>, u64) {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        (unreadable.clone(), self.binary.load(Ordering::Relaxed))
    }

    /// A job's reservation for the posting list that it reads. Drop it before waiting for others.
    pub(crate) fn hand(&self) -> Hand {
        Hand { held: self.ledger.as_ref().map(|ledger| ledger.in_hand.reservation()) }
    }

    /// Runs a file's workflow, and notes what it has for the queries.
    pub(crate) fn index(
        &self,
        file: usize,
        words: &Vocabulary,
        hand: &mut Hand,
    ) -> Result<(), RunError> {
        self.list(file, hand, |text, sorted| {
            let distinct = || {
                let same = sorted.chunk_by(|a, b| a.word(text) == b.word(text));
                same.map(|same| same[0].word(text))
            };
            if self.signatures[file].get().is_none() {
                self.charge_directory(Signature::memory(distinct().count()))?;
                let signature = Signature::new(distinct().count(), distinct());
                let set = self.signatures[file].set(signature);
                set.expect("a file is indexed by one thread");
            }
            distinct().for_each(|word| words.offer(word));
            Ok(())
        })?;
        Ok(())
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
            Ok(PostingList::build(&text, sorted, encoded))
        });
        let list = list?;
        // The cache may give its entry up while this thread still reads it.
        hand.cover(list.memory())?;
        Ok(list)
    }

    /// The first node: the file, in a buffer that was charged before it grew.
    fn read(&self, file: usize) -> Result<Buffer, RunError> {
        let path = self.corpus.path(file);
        let unreadable = |error: &dyn std::fmt::Display| {
            let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
            unreadable.push(format!("{}: {error}", path.display()));
            RunError::Skipped
        };
        let bytes = u32::try_from(self.corpus.files[file].bytes)
            .map_err(|_| unreadable(&"larger than 4 GiB"))? as usize;
        let mut buffer = self.buffers.try_get()?;
        let charge = bytes.max(buffer.capacity());
        buffer.try_charge(charge)?;
        buffer.reserve_exact(bytes);
        buffer.resize(bytes, 0);
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut buffer));
        read.map_err(|error| unreadable(&error))?;
        if buffer.contains(&0) {
            self.binary.fetch_add(1, Ordering::Relaxed);
            return Err(RunError::Skipped);
        }
        Ok(buffer)
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

/// The tree of the module's documentation, below what the configuration says of it.
fn budgets(corpus: &Corpus, configured: &BudgetConfig) -> BudgetConfig {
    let mut root = configured.clone();
    let guaranteed = root.limit.map_or(0, |limit| limit.as_u64() / GUARANTEED_PART);
    let share = ByteSize(guaranteed / corpus.tenants.len().max(1) as u64);
    let tenants = root.children.entry("tenants".to_owned()).or_default();
    for tenant in &corpus.tenants {
        let node = tenants.children.entry(tenant.name.clone()).or_default();
        let most = node.limit.map_or(share, |limit| limit.min(share));
        node.guarantee.get_or_insert(most);
    }
    root
}

fn new_buffer() -> fn() -> Vec<u8> {
    Vec::new
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
