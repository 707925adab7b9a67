//! The engine: a chain of steps for each file, with every byte on the ledger.
//!
//! ```text
//! process  limit
//! ├─ directory      the list of files, which is never evicted
//! ├─ timeline       samples of memory over time, for the report
//! ├─ signatures     Bloom filters of the files' words; spilled if memory is short
//! └─ tenants
//!    ├─ serde-1.0   guarantee: in proportion to its files, of a quarter of the limit
//!    │  ├─ run        one for each running job: its arena, and the posting list that it reads
//!    │  └─ lists      cache of posting lists, which can be computed again
//!    ┊
//! ```
//!
//! A run has four steps: `read → tokenise → build → memoise`. A query looks for a word. It reads, through the cache,
//! the posting lists of the files whose signature may contain the word. Evicted lists are made again, by the same
//! steps.
//!
//! The context of a thread identifies the tenant that the thread works for. A job's memory is charged to the budget
//! of that context.

use crate::{
    corpus::{self, Corpus},
    heap,
    posting::{Posting, PostingList},
    queries::Vocabulary,
    signature::{Signature, Signatures},
    tokenizer::{self, Identifiers, Occurrence},
    waits::{PATIENCE, Waits},
};
use nebula_memory::{
    Budget, MemoryError, Reservation,
    arena::Arena,
    budget::BudgetTree,
    cache::Cache,
    core::config::{ArenaConfig, MemoryConfig},
    integration::traits::{Context, checkpoint},
};
use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{self, Read},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// The tenants' guarantees together are the limit divided by this. Their posting lists need more, so the guarantees
/// are always in use. The rest of the limit has room for any run.
pub(crate) const GUARANTEED_PART: usize = 4;

/// With several tenants, the limit of each is the whole limit divided by this.
pub(crate) const TENANT_PART: usize = 2;

/// The time of a run in microseconds. Of two caches, the budget first asks the one that loses less work.
const RUN_MICROS: u64 = 150;

/// The names of the components' nodes, in the order of the report.
pub(crate) const COMPONENTS: [&str; 5] = ["directory", "timeline", "signatures", "run", "lists"];

/// Files that could not be read, by number, each with the reason of the first failure.
pub(crate) type Unreadable = BTreeMap<usize, String>;

type Lists = Cache<u32, PostingList>;

pub(crate) struct Engine<'c> {
    corpus: &'c Corpus,
    tree: BudgetTree,
    /// The reservation for the corpus and the directory of its files.
    _directory: Reservation,
    tenants: Vec<Tenant>,
    /// A tenant that has no files and requests as much memory as possible.
    hostile: Option<Tenant>,
    arenas: ArenaConfig,
    signatures: Signatures,
    unreadable: Mutex<Unreadable>,
    binary: AtomicU64,
}

pub(crate) struct Tenant {
    /// Has the tenant's budget.
    pub(crate) context: Context,
    pub(crate) lists: Lists,
    pub(crate) waits: Waits,
}

/// The reason why a file has no posting list.
#[derive(Debug)]
pub(crate) enum RunError {
    /// The ledger had no room for the run, or its tenant was cancelled.
    Refused(MemoryError),
    /// The file could not be read or is not text. Such files are counted, and the work continues.
    Skipped,
}

impl<E: Into<MemoryError>> From<E> for RunError {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// A job's budget, and its reservation for a posting list, which the cache may evict while the job reads it.
pub(crate) struct Run {
    budget: Budget,
    hand: Reservation,
}

impl Run {
    /// Waits until there is room for `bytes`, and guarantees them to the run.
    ///
    /// The node is temporary. Its guarantee is returned when the run ends, so other runs may wait for these bytes.
    fn admit(tenant: &Budget, bytes: usize) -> Result<Self, MemoryError> {
        let budget = tenant.child("run").temporary().build()?;
        let waited_for = budget.reserve(bytes).timeout(PATIENCE).wait()?;
        budget.set_guarantee(bytes)?;
        drop(waited_for);
        Ok(Self { hand: budget.reservation(), budget })
    }
}

impl Drop for Run {
    /// Returns the guarantee. Posting lists that the run made stay charged to the tenant.
    fn drop(&mut self) {
        self.budget.set_guarantee(0).expect("nothing is allowed for every node");
    }
}

impl<'c> Engine<'c> {
    /// Makes the engine from `config`. If `tenants` is set, there are that many tenants, each with its own limit, and
    /// the corpus is divided among them. If `hostile` is set, the last tenant gets no part of the corpus.
    pub(crate) fn new(
        corpus: &'c Corpus,
        config: &MemoryConfig,
        tenants: Option<usize>,
        hostile: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let tree = BudgetTree::from_config(&config.budget)?;
        let budgets = match tenants {
            Some(count) => equal_budgets(&tree, count)?,
            None => budgets(corpus, &tree)?,
        };
        let tenants = budgets.iter().map(|budget| Tenant::new(config, budget));
        let mut tenants = tenants.collect::<Result<Vec<_>, _>>()?;
        let hostile = if hostile { tenants.pop() } else { None };
        let directory = tree.root().child("directory").build()?;
        let signatures = tree.root().child("signatures").build()?;
        Ok(Self {
            corpus,
            _directory: directory.try_reserve(corpus.memory() + Vocabulary::MEMORY)?,
            signatures: Signatures::new(signatures, corpus.files.len())?,
            tree,
            tenants,
            hostile,
            arenas: config.arena.clone(),
            unreadable: Mutex::default(),
            binary: AtomicU64::new(0),
        })
    }

    pub(crate) const fn corpus(&self) -> &'c Corpus {
        self.corpus
    }

    /// Returns the root of the ledger.
    pub(crate) const fn process(&self) -> &Budget {
        self.tree.root()
    }

    /// Returns the tenants with files, in the order of the corpus. They also send the queries.
    pub(crate) fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    pub(crate) const fn hostile(&self) -> Option<&Tenant> {
        self.hostile.as_ref()
    }

    /// Returns the files that could not be read, and the number of files that are not text.
    pub(crate) fn skipped(&self) -> (Unreadable, u64) {
        (lock(&self.unreadable).clone(), self.binary.load(Ordering::Relaxed))
    }

    /// Returns the signatures of the files that were read at least once.
    pub(crate) const fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn owner(&self, file: usize) -> &Tenant {
        let directory = self.corpus.files[file].tenant as usize;
        &self.tenants[directory * self.tenants.len() / self.corpus.tenants.len()]
    }

    /// Runs a file's workflow, and records its words for the queries.
    pub(crate) fn index(&self, file: usize, words: &Vocabulary) -> Result<(), MemoryError> {
        let mut signature = None;
        let run = self.owner(file).job(|run| {
            self.list(file, run, |budget, text, sorted| {
                let distinct = tokenizer::distinct(text, sorted);
                signature =
                    Some(Signature::new(budget, distinct.clone().count(), distinct.clone())?);
                distinct.for_each(|word| words.offer(word));
                Ok(())
            })
            .map(drop)
        });
        match (run, signature) {
            (Ok(()), Some(signature)) => self.signatures.keep(file, signature),
            (Err(RunError::Refused(error)), _) => Err(error),
            (Ok(()), None) | (Err(RunError::Skipped), _) => Ok(()),
        }
    }

    /// Finds `word` in a file. Makes the file's posting list again if it was evicted.
    pub(crate) fn posting(
        &self,
        file: usize,
        word: &[u8],
        run: &mut Run,
    ) -> Result<Option<Posting>, RunError> {
        Ok(self.list(file, run, |_, _, _| Ok(()))?.find(word))
    }

    /// Returns a file's posting list, from the cache or by a run of all steps. A run passes its sorted words to
    /// `note`.
    fn list(
        &self,
        file: usize,
        run: &mut Run,
        note: impl FnOnce(&Budget, &[u8], &[Occurrence]) -> Result<(), RunError>,
    ) -> Result<PostingList, RunError> {
        checkpoint()?;
        // The previous list is no longer needed.
        run.hand.shrink(usize::MAX);
        let key = u32::try_from(file).expect("files were counted in 32 bits");
        let list = self.owner(file).lists.get_or_insert_with(&key, || {
            let arena = Arena::options().config(&self.arenas).budget(&run.budget).build()?;
            let text = self.read(file, &arena)?;
            let sorted = tokenise(&arena, text)?;
            note(&run.budget, text, sorted)?;
            let encoded = PostingList::encoded_bytes(text, sorted);
            run.hand.try_resize(PostingList::memory_for(encoded))?;
            heap::before_filling(encoded);
            Ok::<_, RunError>(PostingList::build(text, sorted, encoded))
        })?;
        // The cache may evict the entry while this thread still reads the list, so the job is charged too.
        run.hand.try_resize(list.memory())?;
        Ok(list)
    }

    /// The first step: reads the file into the run's arena.
    fn read<'a>(&self, file: usize, arena: &'a Arena) -> Result<&'a [u8], RunError> {
        let expected = self.corpus.files[file].bytes;
        let Ok(bytes) = u32::try_from(expected) else {
            return Err(self.cannot_read(file, &"larger than 4 GiB"));
        };
        let bytes = bytes as usize;
        arena.try_reserve(bytes)?;
        heap::before_filling(bytes);
        let text = arena.try_alloc_slice_fill(bytes, 0)?;
        let mut read = || {
            let mut file = File::open(self.corpus.path(file))?;
            if file.metadata()?.len() != expected {
                return Err(io::Error::other("has another length than when it was found"));
            }
            file.read_exact(text)
        };
        read().map_err(|error| self.cannot_read(file, &error))?;
        match (text.contains(&0), self.signatures.has(file)) {
            (false, _) => Ok(text),
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
}

impl Tenant {
    fn new(config: &MemoryConfig, budget: &Budget) -> Result<Self, MemoryError> {
        let lists = Cache::options("lists")
            .config(&config.cache)
            .weigher(|_, list: &PostingList| size_of::<(u32, PostingList)>() + list.memory())
            .rebuild_cost_micros(RUN_MICROS)
            .budget(budget);
        let context = Context::root(budget.name()).budget(budget).build();
        Ok(Self { context, lists: lists.build()?, waits: Waits::default() })
    }

    /// Runs a job of the tenant, in the tenant's context. A refused job waits until there is room for the bytes that
    /// it had plus the refused bytes, and then starts again. A waiting job has no reservation, so jobs never wait for
    /// each other.
    pub(crate) fn job<T>(
        &self,
        mut job: impl FnMut(&mut Run) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let _entered = self.context.enter();
        let budget = Budget::current().expect("a tenant's context carries its budget");
        let mut bytes = 0;
        loop {
            let start = Instant::now();
            let mut run = Run::admit(&budget, bytes)?;
            if bytes > 0 {
                self.waits.note(start.elapsed());
            }
            match job(&mut run) {
                Err(RunError::Refused(MemoryError::Refused(refused))) if refused.is_retryable() => {
                    self.waits.refuse();
                    bytes = bytes.max(run.budget.usage().peak) + refused.requested;
                }
                answer => return answer,
            }
        }
    }
}

/// The second step: the words of a text, sorted, in the run's arena.
fn tokenise<'a>(arena: &'a Arena, text: &[u8]) -> Result<&'a [Occurrence], MemoryError> {
    let mut words = Identifiers::new(text);
    let count = words.clone().count();
    arena.try_reserve(count * size_of::<Occurrence>())?;
    heap::before_filling(count * size_of::<Occurrence>());
    let sorted = arena
        .try_alloc_slice_fill_with(count, |_| words.next().expect("as many as were counted"))?;
    tokenizer::sort(text, sorted);
    Ok(sorted)
}

/// Returns the tenants' budgets, from the configuration or with parts of the guaranteed bytes.
fn budgets(corpus: &Corpus, tree: &BudgetTree) -> Result<Vec<Budget>, MemoryError> {
    let guaranteed = tree.root().limit().map_or(0, |limit| limit / GUARANTEED_PART);
    let all = corpus.bytes().max(1);
    let tenants = match tree.get("tenants") {
        Some(tenants) => tenants.clone(),
        None => tree.root().child("tenants").build()?,
    };
    let budget = |(tenant, bytes): (&corpus::Tenant, u64)| {
        // A configuration cannot contain a name with a dot.
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

/// Makes `count` equal budgets.
fn equal_budgets(tree: &BudgetTree, count: usize) -> Result<Vec<Budget>, MemoryError> {
    let tenants = tree.root().child("tenants").build()?;
    let budget = |number: usize| {
        let tenant = tenants.child(&format!("tenant-{number}"));
        match tree.root().limit() {
            Some(limit) => {
                let guarantee = limit / GUARANTEED_PART / count;
                tenant.limit((limit / TENANT_PART).max(1)).guarantee(guarantee).build()
            }
            None => tenant.build(),
        }
    };
    (1..=count).map(budget).collect()
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
        let engine = Engine::new(&corpus, &MemoryConfig::default(), None, false).unwrap();
        let words = Vocabulary::new(1);
        (0..3).for_each(|file| engine.index(file, &words).unwrap());
        let job = |word| engine.tenants()[0].job(|run| answer(&engine, word, run));
        let ask = || job(b"word").unwrap();
        assert_eq!(ask().files_defining, 3);

        fs::remove_file(path("gone")).unwrap();
        fs::write(path("longer"), "fn word() {}\nfn word() {}\n").unwrap();
        assert_eq!(ask().files_defining, 3, "from the cache");
        engine.process().reclaim(usize::MAX);
        assert_eq!((ask().files_defining, ask().files_defining), (1, 1));
        let (unreadable, binary) = engine.skipped();
        assert!(unreadable.keys().eq(&[0, 1]) && binary == 0, "{unreadable:?}");
        assert!(unreadable.keys().all(|&file| engine.signatures().has(file)));
        let gone = engine.tenants()[0].job(|run| engine.posting(0, b"word", run));
        assert!(matches!(gone, Err(RunError::Skipped)), "{gone:?}");
    }
}
