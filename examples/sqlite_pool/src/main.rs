//! A pool of SQLite connections under load, with a budget.
//!
//! Sixteen threads share at most four connections to one database, and a cache of rendered pages. Connections and
//! cache draw on one budget, which is smaller than what both would like to have. A connection is charged for what
//! SQLite says that it holds: its page cache, the schema and its prepared statements.
//!
//! ```text
//! cargo run --release --manifest-path examples/sqlite_pool/Cargo.toml -- --seconds 2
//! ```

use clap::Parser;
use nebula_memory::{
    Budget, Cache, Pool,
    core::ByteSize,
    integration::traits::{Factory, Lifecycle},
    pool::PoolError,
};
use rusqlite::{Connection, OptionalExtension, ffi};
use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

#[derive(Parser)]
#[command(about, max_term_width = 100)]
struct Options {
    /// How long the load lasts.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Threads that ask the database.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,
    /// The most connections.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,
    /// The bytes that connections and cache may hold together.
    #[arg(long, default_value = "4MiB")]
    limit: ByteSize,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0 to 3600".into()),
    }
}

/// Opens connections to one database.
struct Database(PathBuf);

impl Factory<Connection> for Database {
    type Error = rusqlite::Error;

    fn create(&self) -> Result<Connection, rusqlite::Error> {
        let connection = Connection::open(&self.0)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        // At most 1 MiB of pages for each connection.
        connection.pragma_update(None, "cache_size", -1024)?;
        Ok(connection)
    }
}

impl Lifecycle for Database {
    type Object = Connection;

    /// A caller that left a transaction open has failed half-way: it is rolled back.
    fn recycle(&self, connection: &mut Connection) -> bool {
        connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok()
    }

    fn bytes(&self, connection: &Connection) -> usize {
        let figures = [
            ffi::SQLITE_DBSTATUS_CACHE_USED,
            ffi::SQLITE_DBSTATUS_SCHEMA_USED,
            ffi::SQLITE_DBSTATUS_STMT_USED,
        ];
        figures.into_iter().map(|figure| held(connection, figure)).sum()
    }

    fn destroy(&self, connection: Connection) {
        if let Err((_, error)) = connection.close() {
            eprintln!("a connection was not closed: {error}");
        }
    }
}

/// The bytes of one kind that SQLite has allocated for a connection.
fn held(connection: &Connection, figure: i32) -> usize {
    let (mut now, mut most) = (0, 0);
    // SAFETY: the handle lives as long as the connection, and is used by this thread alone.
    let handle = unsafe { connection.handle() };
    // SAFETY: as above; both places are this function's own.
    let code = unsafe { ffi::sqlite3_db_status(handle, figure, &raw mut now, &raw mut most, 0) };
    if code == ffi::SQLITE_OK { usize::try_from(now).unwrap_or(0) } else { 0 }
}

/// The rows of the table, and the bytes of the text in each.
const ROWS: u64 = 20_000;
const TEXT: usize = 200;

fn fill(database: &Database) -> Result<(), rusqlite::Error> {
    let mut connection = database.create()?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection
        .execute_batch("CREATE TABLE page (id INTEGER PRIMARY KEY, text TEXT, hits INTEGER)")?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO page VALUES (?1, ?2, 0)")?;
        for id in 0..ROWS {
            insert.execute((id, format!("{id:0>TEXT$}")))?;
        }
    }
    transaction.commit()
}

#[derive(Default)]
struct Counts {
    from_cache: AtomicU64,
    asked: AtomicU64,
    written: AtomicU64,
    failed_half_way: AtomicU64,
    without_connection: AtomicU64,
    most_bytes: AtomicU64,
    longest_wait_micros: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One of the threads: reads pages by a skewed distribution, and writes one time in 64.
fn work(
    seed: u64,
    until: Instant,
    pool: &Pool<Database>,
    pages: &Cache<u64, String>,
    process: &Budget,
    counts: &Counts,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move || {
        // Marsaglia's xorshift (2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while Instant::now() < until {
        let (one, other) = (random() % ROWS, random() % ROWS);
        let id = one * other / ROWS;
        let writes = random() % 64 == 0;
        counts.most_bytes.fetch_max(process.usage().used as u64, Ordering::Relaxed);
        if !writes && pages.get(&id).is_some() {
            add(&counts.from_cache);
            continue;
        }
        let begun = Instant::now();
        let mut connection = match pool.get().timeout(Duration::from_secs(5)).wait() {
            Ok(connection) => connection,
            Err(PoolError::Create(error)) => return Err(error.into()),
            // Refused bytes, or no connection in time: a service would answer "503, try again".
            Err(_) => {
                add(&counts.without_connection);
                continue;
            }
        };
        let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.longest_wait_micros.fetch_max(waited, Ordering::Relaxed);
        if writes {
            let transaction = connection.transaction()?;
            transaction.execute("UPDATE page SET hits = hits + 1 WHERE id = ?1", [id])?;
            transaction.commit()?;
            add(&counts.written);
            continue;
        }
        if random() % 256 == 0 {
            connection.execute_batch("BEGIN")?;
            // This caller gives up and leaves its transaction open. The pool rolls it back.
            add(&counts.failed_half_way);
            continue;
        }
        let mut select = connection.prepare_cached("SELECT text FROM page WHERE id = ?1")?;
        let text: Option<String> = select.query_row([id], |row| row.get(0)).optional()?;
        drop(select);
        drop(connection);
        add(&counts.asked);
        let Some(text) = text.filter(|text| text.len() == TEXT && text.ends_with(&id.to_string()))
        else {
            return Err(format!("page {id} has another text").into());
        };
        pages.insert(id, text);
    }
    Ok(())
}

fn run(options: &Options) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let directory = tempfile::tempdir()?;
    let database = Database(directory.path().join("pages.db"));
    fill(&database)?;

    let limit = usize::try_from(options.limit.as_u64())?;
    let process = Budget::root("process").limit(limit).build()?;
    let pages: Cache<u64, String> = Cache::options("pages")
        .budget(&process)
        .weigher(|_: &u64, text: &String| text.capacity())
        .build()?;
    let pool = Pool::options("connections")
        .budget(&process)
        .max_objects(options.connections.into())
        .estimate(64 << 10)
        .idle_timeout(Duration::from_secs(60))
        .rebuild_cost_micros(500)
        .build(database)?;

    let counts = Counts::default();
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=u64::from(options.threads))
            .map(|seed| {
                scope.spawn({
                    let (pool, pages, process, counts) = (&pool, &pages, &process, &counts);
                    move || work(seed, until, pool, pages, process, counts)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => Err("a thread panicked".into()),
        })
    })?;

    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let stats = pool.stats();
    println!(
        "queries      {} read, {} written, {} from the cache, {} given up half-way",
        read(&counts.asked),
        read(&counts.written),
        read(&counts.from_cache),
        read(&counts.failed_half_way)
    );
    println!("connections  {stats}; at most {} at once", stats.peak);
    println!(
        "waits        {}, the longest {:.1?}; {} without a connection",
        stats.waits,
        Duration::from_micros(read(&counts.longest_wait_micros)),
        read(&counts.without_connection)
    );
    println!("accounted    {} now", ByteSize(process.usage().used as u64));
    let most = read(&counts.most_bytes);
    let is_kept = most <= limit as u64 && stats.peak <= usize::from(options.connections);
    println!(
        "limit        {}, at most {} accounted: {}",
        options.limit,
        ByteSize(most),
        if is_kept { "kept" } else { "EXCEEDED" }
    );
    Ok(is_kept && read(&counts.asked) > 0)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
