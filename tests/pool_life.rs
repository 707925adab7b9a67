//! The life of pooled objects: validation, checks, expiry, added objects, and the pool of one thread.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, Pool,
    core::{ManualClock, config::MemoryConfig},
    integration::traits::{AsyncFactory, Factory, Lifecycle},
    pool::{Health, LocalPool, PoolError, PoolOptions, Pooled},
};
use std::{
    cell::Cell,
    future::{Future, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

/// A connection to a server that can be switched off.
#[derive(Debug, PartialEq)]
struct Connection(usize);

#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    is_down: AtomicBool,
    next: AtomicUsize,
    /// The connections that fail when they are validated, or checked.
    stale: Mutex<Vec<usize>>,
    destroyed: Mutex<Vec<usize>>,
    panics: AtomicBool,
}

impl Server {
    fn is_stale(&self, connection: &Connection) -> bool {
        self.0.stale.lock().unwrap().contains(&connection.0)
    }

    fn destroyed(&self) -> Vec<usize> {
        let mut destroyed = self.0.destroyed.lock().unwrap().clone();
        destroyed.sort_unstable();
        destroyed
    }

    fn connect(&self) -> Result<Connection, &'static str> {
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err("the server is down");
        }
        Ok(Connection(self.0.next.fetch_add(1, Ordering::SeqCst)))
    }
}

impl Factory<Connection> for Server {
    type Error = &'static str;

    fn create(&self) -> Result<Connection, &'static str> {
        self.connect()
    }
}

impl Lifecycle for Server {
    type Object = Connection;

    fn recycle(&self, _: &mut Connection) -> bool {
        true
    }

    fn bytes(&self, _: &Connection) -> usize {
        1000
    }

    fn validate(&self, connection: &mut Connection) -> bool {
        !self.is_stale(connection)
    }

    fn destroy(&self, connection: Connection) {
        self.0.destroyed.lock().unwrap().push(connection.0);
        assert!(!self.0.panics.load(Ordering::SeqCst), "the connection cannot be closed");
    }
}

/// The same, checked by a message.
struct Checked(Server);

impl AsyncFactory<Connection> for Checked {
    type Error = &'static str;

    fn create(&self) -> impl Future<Output = Result<Connection, &'static str>> + Send {
        ready(self.0.connect())
    }

    fn check(&self, connection: &mut Connection) -> impl Future<Output = bool> + Send {
        ready(!self.0.is_stale(connection))
    }
}

impl Lifecycle for Checked {
    type Object = Connection;

    fn recycle(&self, _: &mut Connection) -> bool {
        true
    }

    fn bytes(&self, _: &Connection) -> usize {
        1000
    }

    fn destroy(&self, connection: Connection) {
        Lifecycle::destroy(&self.0, connection);
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it does not wait for anything"),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_invalid_object_is_destroyed_and_another_given_out() -> Result<(), MemoryError> {
    for max in [None, Some(2)] {
        let server = Server::default();
        let options = Pool::options("connections");
        let options = max.into_iter().fold(options, PoolOptions::max_objects);
        let pool = options.build(server.clone())?;
        drop([pool.try_get().unwrap(), pool.try_get().unwrap()]);
        server.0.stale.lock().unwrap().extend([0, 1]);
        assert_eq!(pool.try_get().unwrap().0, 2);
        assert_eq!(server.destroyed(), [0, 1]);
        let stats = pool.stats();
        assert_eq!((stats.invalid, stats.made, stats.destroyed, stats.idle), (2, 3, 2, 1));
    }
    Ok(())
}

#[test]
fn an_object_whose_end_panics_costs_nothing() -> Result<(), MemoryError> {
    let server = Server::default();
    let pool = Pool::options("connections").max_objects(3).build(server.clone())?;
    drop([(); 3].map(|()| pool.try_get().unwrap()));
    server.0.panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.trim(1))).is_err());
    server.0.panics.store(false, Ordering::SeqCst);
    pool.trim(0);
    assert_eq!((pool.usage().used, server.destroyed().len()), (0, 3));
    assert_eq!(pool.get().wait_many(3).unwrap().len(), 3, "all permits are there");
    Ok(())
}

#[test]
fn time_ends_objects() -> Result<(), MemoryError> {
    let clock = ManualClock::new();
    let budget = Budget::root("process").clock(&clock).build()?;
    let server = Server::default();
    let pool = Pool::options("connections")
        .budget(&budget)
        .idle_timeout(MINUTE)
        .max_age(10 * MINUTE)
        .min_idle(1)
        .build(server.clone())?;
    drop([(); 3].map(|()| pool.try_get().unwrap()));
    assert_eq!(pool.maintain(clock.now()).unwrap(), (0, 0));

    // Two are too many, and idle for too long.
    clock.advance(MINUTE);
    assert_eq!(pool.maintain(clock.now()).unwrap(), (2, 0));
    assert_eq!(pool.idle(), 1);

    // The one that is left is not given out any more.
    assert_eq!(pool.try_get().unwrap().0, 3);
    assert_eq!(pool.stats().expired, 3);

    // One that is in use grows old, and is not kept.
    let used = pool.try_get().unwrap();
    clock.advance(10 * MINUTE);
    drop(used);
    assert_eq!(pool.idle(), 0);
    assert_eq!(pool.maintain(clock.now()).unwrap(), (0, 1), "the least is provided");
    assert_eq!(server.destroyed(), [0, 1, 2, 3]);
    Ok(())
}

/// Of many that were made at almost the same time, some end up to a tenth earlier, and not all at once.
#[test]
fn objects_that_were_made_together_do_not_end_together() -> Result<(), MemoryError> {
    let clock = ManualClock::new();
    let budget = Budget::root("process").clock(&clock).build()?;
    let options = Pool::options("connections").budget(&budget).max_age(100 * MINUTE);
    let pool = options.build(Server::default())?;
    let all = [(); 200].map(|()| {
        clock.advance(Duration::from_nanos(1));
        pool.try_get().unwrap()
    });
    drop(all);
    clock.advance(90 * MINUTE - Duration::from_millis(1));
    assert_eq!(pool.maintain(clock.now()).unwrap(), (0, 0));
    clock.advance(5 * MINUTE);
    let (half, _) = pool.maintain(clock.now()).unwrap();
    assert!((50..150).contains(&half), "{half}");
    clock.advance(5 * MINUTE + Duration::from_millis(2));
    assert_eq!(pool.maintain(clock.now()).unwrap(), (200 - half, 0));
    Ok(())
}

#[test]
fn maintenance_in_the_background_provides_objects_and_ends_with_the_pool() -> Result<(), MemoryError>
{
    let server = Server::default();
    let pool = Pool::options("connections").min_idle(3).build(server.clone())?;
    pool.maintain_every(Duration::from_millis(1)).unwrap();
    let begun = Instant::now();
    while pool.idle() < 3 {
        assert!(begun.elapsed() < MINUTE);
        thread::yield_now();
    }
    drop(pool);
    while Arc::strong_count(&server.0) > 1 {
        assert!(begun.elapsed() < MINUTE, "its thread keeps the pool");
        thread::yield_now();
    }
    Ok(())
}

#[test]
fn a_check_destroys_failing_objects_and_keeps_the_rest() -> Result<(), MemoryError> {
    let server = Server::default();
    let pool = Pool::options("connections")
        .max_objects(4)
        .failing_after(2)
        .build(Checked(server.clone()))?;
    drop(pool.get().wait_many(4).unwrap());
    assert_eq!((now(pool.check()), pool.health()), (0, Health::Healthy));
    server.0.stale.lock().unwrap().extend([1, 3]);
    assert_eq!(now(pool.check()), 2);
    assert_eq!((server.destroyed(), pool.idle()), (vec![1, 3], 2));

    server.0.stale.lock().unwrap().extend([0, 2]);
    assert_eq!((now(pool.check()), pool.health()), (2, Health::Failing));
    server.0.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(pool.get().wait(), Err(PoolError::Create("the server is down"))));
    server.0.is_down.store(false, Ordering::SeqCst);
    drop(pool.get().wait().unwrap());
    assert_eq!(pool.health(), Health::Healthy);
    Ok(())
}

#[test]
fn a_factory_that_fails_shows_in_the_health() -> Result<(), MemoryError> {
    let server = Server::default();
    let pool = Pool::options("connections").build(server.clone())?;
    server.0.is_down.store(true, Ordering::SeqCst);
    assert!(pool.try_get().is_err());
    assert_eq!(pool.health(), Health::Degraded);
    for _ in 0..4 {
        assert!(pool.try_get().is_err());
    }
    assert_eq!((pool.health(), pool.stats().create_failures), (Health::Failing, 5));
    Ok(())
}

#[test]
fn objects_are_added_kept_and_taken_out() -> Result<(), MemoryError> {
    let server = Server::default();
    let budget = Budget::root("process").limit(5000).build()?;
    let pool = Pool::options("connections").budget(&budget).max_objects(3).build(server.clone())?;
    for number in [100, 101, 102] {
        pool.add(Connection(number)).unwrap();
    }
    let (error, connection) = pool.add(Connection(103)).unwrap_err();
    assert_eq!(connection, Connection(103), "it comes back");
    assert_eq!(error.to_string(), "pool `connections`: full, its maximum is 3");
    assert_eq!(pool.retain(|connection| connection.0 != 101), 1);
    assert_eq!(server.destroyed(), [101]);

    let (connection, charge) = Pooled::detach(pool.try_get().unwrap());
    assert_eq!(charge.size(), 1000);
    let stats = pool.stats();
    assert_eq!((stats.detached, stats.idle, stats.in_use), (1, 1, 0));
    drop((connection, charge));
    assert_eq!(pool.get().wait_many(3).unwrap().len(), 3);
    Ok(())
}

#[test]
fn at_most_so_many_are_idle() -> Result<(), MemoryError> {
    let server = Server::default();
    let pool = Pool::options("connections").max_idle(2).build(server.clone())?;
    for _ in 0..3 {
        drop([(); 4].map(|()| pool.try_get().unwrap()));
        assert_eq!(pool.idle(), 2);
    }
    pool.trim(1);
    assert_eq!(pool.retain(|_| true), 0);
    drop([(); 4].map(|()| pool.try_get().unwrap()));
    assert_eq!(pool.idle(), 2, "what was removed is not counted any more");
    Ok(())
}

#[test]
fn objects_in_turn_are_all_used() -> Result<(), MemoryError> {
    let pool = Pool::options("connections").in_turn().build(Server::default())?;
    drop([(); 3].map(|()| pool.try_get().unwrap()));
    let used: Vec<_> = (0..6).map(|_| pool.try_get().unwrap().0).collect();
    assert_eq!(used, [0, 1, 2, 0, 1, 2]);
    pool.trim(1);
    assert_eq!(pool.try_get().unwrap().0, 2);
    Ok(())
}

#[test]
fn the_figures_add_up() -> Result<(), MemoryError> {
    let pool = Pool::options("lines").max_objects(5).build(String::new)?;
    drop([pool.try_get()?, pool.try_get()?, pool.try_get()?]);
    let held = [pool.try_get()?, pool.try_get()?];
    let _ = Pooled::detach(pool.try_get()?);
    let stats = pool.stats();
    assert_eq!((stats.taken, stats.hits, stats.returned), (6, 3, 3));
    assert_eq!((stats.in_use, stats.idle, stats.detached, stats.made), (2, 0, 1, 3));
    assert_eq!((stats.max, stats.peak, stats.waiting), (Some(5), 3, 0));
    let text = stats.to_string();
    assert!(text.starts_with("2 in use, 0 idle, 0 waiting; taken 6 times"), "{text}");
    drop(held);
    Ok(())
}

#[test]
fn options_come_from_a_configuration_and_are_checked() -> Result<(), MemoryError> {
    let mut config = MemoryConfig::default();
    for (key, value) in [
        ("pool.max_objects", "2"),
        ("pool.min_idle", "1"),
        ("pool.idle_timeout_ms", "1000"),
        ("pool.max_age_ms", "5000"),
    ] {
        config.set(key, value)?;
    }
    let pool = Pool::options("lines").config(&config.pool).build(String::new)?;
    assert_eq!((pool.stats().max, pool.maintain(Instant::now())?), (Some(2), (0, 1)));

    let refused = |options: PoolOptions| options.build(String::new).unwrap_err().to_string();
    let options = || Pool::options("lines");
    assert!(refused(options().max_objects(0)).contains("pool.max_objects"));
    assert!(refused(options().idle_timeout(Duration::ZERO)).contains("pool.idle_timeout_ms"));
    assert!(refused(options().max_age(Duration::ZERO)).contains("pool.max_age_ms"));
    let text = refused(options().max_objects(2).min_idle(3));
    assert!(text.contains("pool.min_idle") && text.contains("max_objects"), "{text}");
    assert!(refused(options().max_idle(2).min_idle(3)).contains("max_idle"));
    Ok(())
}

/// An object that can be used by one thread only.
struct Single(Rc<Cell<usize>>);

struct Singles {
    live: Rc<Cell<usize>>,
    is_fit: Cell<bool>,
}

impl Drop for Single {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Factory<Single> for Singles {
    type Error = &'static str;

    fn create(&self) -> Result<Single, &'static str> {
        self.live.set(self.live.get() + 1);
        Ok(Single(Rc::clone(&self.live)))
    }
}

impl Lifecycle for Singles {
    type Object = Single;

    fn recycle(&self, _: &mut Single) -> bool {
        assert!(self.live.get() < 100, "it burns");
        self.is_fit.get()
    }

    fn bytes(&self, _: &Single) -> usize {
        50
    }
}

#[test]
fn the_pool_of_one_thread() -> Result<(), MemoryError> {
    let live = Rc::new(Cell::new(0));
    let budget = Budget::root("process").limit(10_000).build()?;
    let singles = Singles { live: Rc::clone(&live), is_fit: Cell::new(true) };
    let pool: LocalPool<Singles> =
        Pool::options("singles").budget(&budget).max_objects(3).max_idle(2).build_local(singles)?;
    let all = [(); 3].map(|()| pool.try_get().unwrap());
    let Err(error) = pool.try_get() else { panic!("there are three") };
    assert_eq!(error.to_string(), "pool `singles`: no object is free; its maximum is 3");
    drop(all);
    assert_eq!((pool.idle(), live.get()), (2, 2));

    let (object, charge) = nebula_memory::pool::LocalPooled::detach(pool.try_get().unwrap());
    assert_eq!((charge.size(), live.get()), (50, 2));
    drop((object, charge));
    assert_eq!((pool.idle(), live.get()), (1, 1));

    // One that panics when it is recycled is gone with its bytes.
    let held = pool.try_get().unwrap();
    live.set(live.get() + 100);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(held))).is_err());
    live.set(live.get() - 100);
    assert_eq!((pool.idle(), live.get(), budget.usage().used), (0, 0, 0));
    assert_eq!([(); 3].map(|()| pool.try_get().is_ok()), [true; 3]);

    pool.trim(0);
    drop(pool);
    assert_eq!((live.get(), budget.usage().used), (0, 0));
    Ok(())
}

#[test]
fn a_local_pool_refuses_options_that_it_does_not_have() {
    let refused = |options: PoolOptions| options.build_local(String::new).unwrap_err().to_string();
    for (options, key) in [
        (Pool::options("lines").idle_timeout(MINUTE), "pool.idle_timeout_ms"),
        (Pool::options("lines").max_age(MINUTE), "pool.max_age_ms"),
        (Pool::options("lines").min_idle(1), "pool.min_idle"),
        (Pool::options("lines").in_turn(), "pool.in_turn"),
        (Pool::options("lines").record_holders(), "pool.record_holders"),
        (Pool::options("lines").create_timeout(MINUTE), "pool.create_timeout"),
        (Pool::options("all").build(String::new).unwrap().child("lines"), "pool.parent"),
    ] {
        let text = refused(options);
        assert!(text.contains(key), "{text}");
    }
}

#[test]
fn the_last_handle_destroys_idle_objects() -> Result<(), MemoryError> {
    let server = Server::default();
    let pool = Pool::options("connections").max_objects(3).build(server.clone())?;
    drop([(); 3].map(|()| pool.try_get().unwrap()));
    drop(pool);
    assert_eq!(server.destroyed(), [0, 1, 2]);
    Ok(())
}

/// The objects of a child that is gone take no place of its parent's.
#[test]
fn a_child_that_is_dropped_leaves_its_places() -> Result<(), MemoryError> {
    let parent = Pool::options("all").max_objects(2).build(Server::default())?;
    for _ in 0..3 {
        let child = parent.child("some").build(Server::default())?;
        drop([child.try_get().unwrap(), child.try_get().unwrap()]);
    }
    assert_eq!(parent.get().wait_many(2).unwrap().len(), 2);
    Ok(())
}
