//! Pools of objects: p1 and p2 by one thread alone, p3 to p7 by a pool that threads share, z1 to z4 by tasks that wait.
//!
//! An object is a `Vec<u8>` of 4 KiB. Every subject gets it, writes one byte to its memory, and returns it empty: by the
//! pool's own hook where it has one, else by the case. A pool of tasks runs on one thread of tokio. A task of z3 and z4
//! yields while it has an object, so that the others wait.

use crate::{
    harness::{Bench, Target},
    queues::together,
};
use nebula_memory::{
    integration::traits::{Factory, Lifecycle},
    pool::{FnPool, LocalPool, LocalPooled, Pool, Pooled},
};
use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    ops::DerefMut,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

type Object = Vec<u8>;

/// The bytes of an object.
const BYTES: usize = 4096;

/// The objects that a thread holds at once in p2, p6 and p7.
const HELD: usize = 32;

/// The objects of a pool with a maximum in p3 to p7, and in z1 and z2.
const OBJECTS: usize = 64;

/// The operations of all threads of a body.
const MANY: usize = 400_000;

/// The operations of a body of one task.
const AWAITED: usize = 1000;

/// The operations of each task in z3.
const EACH: usize = 40;

/// The operations of each task in z4. A body is over before the system takes its core away, which would be the p99.
const EACH_TIMED: usize = 16;

fn object() -> Object {
    Vec::with_capacity(BYTES)
}

/// Writes a byte to the object's memory.
#[inline(always)]
fn touch(object: &mut Object) {
    if let Some(byte) = object.spare_capacity_mut().first_mut() {
        byte.write(7);
    }
    black_box(object.as_mut_ptr());
}

/// A pool for threads, or for one, that does not wait. It lives as long as the process, so that a body can keep guards.
trait Ready: 'static {
    const NAME: &'static str;
    type Guard: 'static;
    fn make() -> Self;
    fn get(&'static self) -> Self::Guard;
    fn touch(guard: &mut Self::Guard);
    /// Empties the object of a pool without a hook, and returns it.
    #[inline(always)]
    fn give(&self, guard: Self::Guard) {
        drop(guard);
    }
}

impl Ready for LocalPool<fn() -> Object> {
    const NAME: &'static str = "nebula (LocalPool)";
    type Guard = LocalPooled<'static, fn() -> Object>;
    fn make() -> Self {
        Pool::options("buffers").build_local(object as fn() -> Object).expect("no limit")
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.try_get().expect("no limit")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Ready for Pool<fn() -> Object> {
    const NAME: &'static str = "nebula";
    type Guard = Pooled<'static, fn() -> Object>;
    fn make() -> Self {
        Pool::options("buffers").build(object as fn() -> Object).expect("no limit")
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.try_get().expect("no limit")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

/// Ours with a maximum of objects.
struct Bounded(Pool<fn() -> Object>);

impl Ready for Bounded {
    const NAME: &'static str = "nebula (max_objects)";
    type Guard = Pooled<'static, fn() -> Object>;
    fn make() -> Self {
        let options = Pool::options("buffers").max_objects(OBJECTS);
        Self(options.build(object as fn() -> Object).expect("no limit of bytes"))
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.0.try_get().expect("fewer are in use")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

/// What opool and r2d2 and so on call to make, reset and check an object.
struct Hooks;

impl opool::PoolAllocator<Object> for Hooks {
    #[inline]
    fn reset(&self, object: &mut Object) {
        object.clear();
    }
    #[inline]
    fn allocate(&self) -> Object {
        object()
    }
}

impl Ready for opool::LocalPool<Hooks, Object> {
    const NAME: &'static str = "opool (LocalPool)";
    type Guard = opool::RefLocalGuard<'static, Hooks, Object>;
    fn make() -> Self {
        Self::new_prefilled(OBJECTS, Hooks)
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        Self::get(self)
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Ready for opool::Pool<Hooks, Object> {
    const NAME: &'static str = "opool";
    type Guard = opool::RefGuard<'static, Hooks, Object>;
    fn make() -> Self {
        Self::new_prefilled(OBJECTS, Hooks)
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        Self::get(self)
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Ready for object_pool::Pool<Object> {
    const NAME: &'static str = "object-pool";
    type Guard = object_pool::Reusable<'static, Object>;
    fn make() -> Self {
        Self::new(OBJECTS, object)
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.pull(object)
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
    #[inline(always)]
    fn give(&self, mut guard: Self::Guard) {
        guard.clear();
    }
}

macro_rules! lockfree_object_pool {
    ($pool:ident, $guard:ident, $name:literal) => {
        impl Ready for lockfree_object_pool::$pool<Object> {
            const NAME: &'static str = $name;
            type Guard = lockfree_object_pool::$guard<'static, Object>;
            fn make() -> Self {
                Self::new(object, Vec::clear)
            }
            #[inline(always)]
            fn get(&'static self) -> Self::Guard {
                self.pull()
            }
            #[inline(always)]
            fn touch(guard: &mut Self::Guard) {
                touch(guard);
            }
        }
    };
}

lockfree_object_pool!(LinearObjectPool, LinearReusable, "lockfree-object-pool (linear)");
lockfree_object_pool!(SpinLockObjectPool, SpinLockReusable, "lockfree-object-pool (spin)");

impl Ready for zeropool::ZeroPool {
    const NAME: &'static str = "zeropool";
    type Guard = zeropool::BufUninit<'static>;
    fn make() -> Self {
        // As many as a thread holds; unless told it keeps a few, and would free the others.
        Self::new().min_buffer_size(BYTES).tls_cache_size(HELD).max_buffers_per_class(OBJECTS)
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.alloc_uninit(BYTES)
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        let bytes = guard.as_uninit_mut();
        if let Some(byte) = bytes.first_mut() {
            byte.write(7);
        }
        black_box(bytes.as_mut_ptr());
    }
}

type Unmanaged = deadpool::unmanaged::Pool<Object>;

fn unmanaged(objects: usize) -> Unmanaged {
    Unmanaged::from((0..objects).map(|_| object()).collect::<Vec<_>>())
}

impl Ready for Unmanaged {
    const NAME: &'static str = "deadpool (unmanaged)";
    type Guard = deadpool::unmanaged::Object<Object>;
    fn make() -> Self {
        unmanaged(OBJECTS)
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        self.try_get().expect("fewer are in use")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
    #[inline(always)]
    fn give(&self, mut guard: Self::Guard) {
        guard.clear();
    }
}

impl r2d2::ManageConnection for Hooks {
    type Connection = Object;
    type Error = std::io::Error;
    fn connect(&self) -> std::io::Result<Object> {
        Ok(object())
    }
    fn is_valid(&self, object: &mut Object) -> std::io::Result<()> {
        check(object).then_some(()).ok_or_else(|| std::io::ErrorKind::Other.into())
    }
    fn has_broken(&self, object: &mut Object) -> bool {
        !check(object)
    }
}

impl Ready for r2d2::Pool<Hooks> {
    const NAME: &'static str = "r2d2";
    type Guard = r2d2::PooledConnection<Hooks>;
    fn make() -> Self {
        let options = Self::builder().max_size(64).test_on_check_out(false);
        let options = options.max_lifetime(None).idle_timeout(None);
        options.build(Hooks).expect("objects can be made")
    }
    #[inline(always)]
    fn get(&'static self) -> Self::Guard {
        Self::get(self).expect("fewer are in use")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
    #[inline(always)]
    fn give(&self, mut guard: Self::Guard) {
        guard.clear();
    }
}

/// The objects are moved out of a vector and back, under a lock.
struct Locked(Mutex<Vec<Object>>);

impl Ready for Locked {
    const NAME: &'static str = "floor (Mutex<Vec>)";
    type Guard = Object;
    fn make() -> Self {
        Self(Mutex::new((0..OBJECTS).map(|_| object()).collect()))
    }
    #[inline(always)]
    fn get(&'static self) -> Object {
        self.0.lock().expect("no panic").pop().unwrap_or_else(object)
    }
    #[inline(always)]
    fn touch(guard: &mut Object) {
        touch(guard);
    }
    #[inline(always)]
    fn give(&self, mut guard: Object) {
        guard.clear();
        self.0.lock().expect("no panic").push(guard);
    }
}

/// An object is allocated and freed each time.
struct Malloc;

impl Ready for Malloc {
    const NAME: &'static str = "floor (malloc and free)";
    type Guard = Object;
    fn make() -> Self {
        Self
    }
    #[inline(always)]
    fn get(&'static self) -> Object {
        object()
    }
    #[inline(always)]
    fn touch(guard: &mut Object) {
        touch(guard);
    }
}

fn leaked<P>(pool: P) -> &'static P {
    Box::leak(Box::new(pool))
}

/// Gets an object, writes a byte, and returns it.
#[inline(always)]
fn turn<P: Ready>(pool: &'static P) {
    let mut guard = pool.get();
    P::touch(&mut guard);
    pool.give(guard);
}

/// Gets 32 objects, then returns them.
#[inline(always)]
fn turn_held<P: Ready>(pool: &'static P, held: &mut Vec<P::Guard>) {
    for _ in 0..HELD {
        let mut guard = pool.get();
        P::touch(&mut guard);
        held.push(guard);
    }
    held.drain(..).for_each(|guard| pool.give(guard));
}

fn one<P: Ready>(bench: &mut Bench, case: (&'static str, &'static str)) {
    bench.add(case, 32, P::NAME, || {
        let pool = leaked(P::make());
        move || (0..32).for_each(|_| turn(pool))
    });
}

fn one_held<P: Ready>(bench: &mut Bench, case: (&'static str, &'static str)) {
    bench.add(case, HELD, P::NAME, || {
        let pool = leaked(P::make());
        let mut held = Vec::with_capacity(HELD);
        move || turn_held(pool, &mut held)
    });
}

fn local<P: Ready>(bench: &mut Bench) {
    one::<P>(bench, ("p1", "pool of one thread: an object got and returned"));
    one_held::<P>(bench, ("p2", "pool of one thread: 32 objects got, then returned"));
}

fn shared<P: Ready + Sync>(bench: &mut Bench) {
    one::<P>(bench, ("p3", "shared pool, one thread: an object got and returned"));
    for (case, threads) in [
        (("p4", "shared pool, 2 threads: an object got and returned"), 2),
        (("p5", "shared pool, 8 threads: an object got and returned"), 8),
    ] {
        bench.add_threads(case, MANY, P::NAME, move || {
            let pool = leaked(P::make());
            move || {
                let task = || (0..MANY / threads).for_each(|_| turn(pool));
                together((0..threads).map(|_| Box::new(task) as Box<_>).collect())
            }
        });
    }
    one_held::<P>(bench, ("p6", "shared pool, one thread: 32 objects got, then returned"));
    bench.add_threads(
        ("p7", "shared pool, 2 threads: 32 objects got, then returned"),
        MANY,
        P::NAME,
        || {
            let pool = leaked(P::make());
            move || {
                let task = || {
                    let mut held = Vec::with_capacity(HELD);
                    (0..MANY / 2 / HELD).for_each(|_| turn_held(pool, &mut held));
                };
                together(vec![Box::new(task), Box::new(task)])
            }
        },
    );
}

/// What the hooks of a pool with hooks check.
#[inline(always)]
fn check(object: &mut Object) -> bool {
    object.capacity() >= BYTES
}

/// A pool for tasks, which waits.
trait Awaited: Sync + 'static {
    const NAME: &'static str;
    type Guard: Send;
    fn make(objects: usize) -> impl Future<Output = Self>;
    fn get(&'static self) -> impl Future<Output = Self::Guard> + Send;
    fn touch(guard: &mut Self::Guard);
    /// Empties the object of a pool without a hook, and returns it.
    #[inline(always)]
    fn give(guard: Self::Guard) {
        drop(guard);
    }
}

/// The objects that z1 asks ours for have no maximum. A peer always has one.
struct Bare(Pool<fn() -> Object>);

impl Awaited for Bare {
    const NAME: &'static str = "nebula";
    type Guard = Pooled<'static, fn() -> Object>;
    async fn make(_: usize) -> Self {
        Self(Ready::make())
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        self.0.get().await.expect("no limit")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Awaited for FnPool<Object> {
    const NAME: &'static str = "nebula (max_objects)";
    type Guard = Pooled<'static, Box<dyn Fn() -> Object + Send + Sync>>;
    async fn make(objects: usize) -> Self {
        Pool::options("buffers").max_objects(objects).build_fn(object).expect("no limit of bytes")
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        Pool::get(self).await.expect("one is returned")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Lifecycle for Hooks {
    type Object = Object;
    #[inline]
    fn recycle(&self, object: &mut Object) -> bool {
        object.clear();
        check(object)
    }
    #[inline]
    fn bytes(&self, object: &Object) -> usize {
        object.capacity()
    }
    #[inline]
    fn validate(&self, object: &mut Object) -> bool {
        check(object)
    }
}

impl Factory<Object> for Hooks {
    type Error = Infallible;
    fn create(&self) -> Result<Object, Infallible> {
        Ok(object())
    }
}

impl Awaited for Pool<Hooks> {
    const NAME: &'static str = "nebula (max_objects, hooks, stamps)";
    type Guard = Pooled<'static, Hooks>;
    async fn make(objects: usize) -> Self {
        let options = Pool::options("buffers").max_objects(objects);
        options.idle_timeout(Duration::from_secs(600)).build(Hooks).expect("no limit of bytes")
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        Pool::get(self).await.expect("one is returned")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl Awaited for Unmanaged {
    const NAME: &'static str = "deadpool (unmanaged)";
    type Guard = deadpool::unmanaged::Object<Object>;
    async fn make(objects: usize) -> Self {
        unmanaged(objects)
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        Unmanaged::get(self).await.expect("one is returned")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
    #[inline(always)]
    fn give(mut guard: Self::Guard) {
        guard.clear();
    }
}

impl deadpool::managed::Manager for Hooks {
    type Type = Object;
    type Error = Infallible;
    async fn create(&self) -> Result<Object, Infallible> {
        Ok(object())
    }
    async fn recycle(
        &self,
        object: &mut Object,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        object.clear();
        let unfit = || deadpool::managed::RecycleError::message("too small");
        check(object).then_some(()).ok_or_else(unfit)
    }
}

type Managed = deadpool::managed::Pool<Hooks>;

impl Awaited for Managed {
    const NAME: &'static str = "deadpool (managed)";
    type Guard = deadpool::managed::Object<Hooks>;
    async fn make(objects: usize) -> Self {
        Managed::builder(Hooks).max_size(objects).build().expect("no time limits")
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        Managed::get(self).await.expect("one is returned")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

impl bb8::ManageConnection for Hooks {
    type Connection = Object;
    type Error = std::io::Error;
    async fn connect(&self) -> std::io::Result<Object> {
        Ok(object())
    }
    async fn is_valid(&self, object: &mut Object) -> std::io::Result<()> {
        check(object).then_some(()).ok_or_else(|| std::io::ErrorKind::Other.into())
    }
    fn has_broken(&self, object: &mut Object) -> bool {
        object.clear();
        !check(object)
    }
}

/// bb8, with checks and time limits or without.
struct Bb8<const CHECKED: bool>(bb8::Pool<Hooks>);

impl<const CHECKED: bool> Awaited for Bb8<CHECKED> {
    const NAME: &'static str = if CHECKED { "bb8 (checked)" } else { "bb8" };
    type Guard = bb8::PooledConnection<'static, Hooks>;
    async fn make(objects: usize) -> Self {
        let time = CHECKED.then_some(Duration::from_secs(600));
        let options = bb8::Pool::builder().max_size(u32::try_from(objects).expect("few"));
        let options = options.max_lifetime(time).idle_timeout(time).test_on_check_out(CHECKED);
        Self(options.build(Hooks).await.expect("objects can be made"))
    }
    #[inline(always)]
    async fn get(&'static self) -> Self::Guard {
        self.0.get().await.expect("one is returned")
    }
    #[inline(always)]
    fn touch(guard: &mut Self::Guard) {
        touch(guard);
    }
}

/// A semaphore of tokio, and the objects under a lock: how most pools for tasks are made.
struct Semaphore(tokio::sync::Semaphore, Mutex<Vec<Object>>);

/// An object of [`Semaphore`].
struct Permitted(&'static Semaphore, Object);

impl std::ops::Deref for Permitted {
    type Target = Object;
    fn deref(&self) -> &Object {
        &self.1
    }
}

impl DerefMut for Permitted {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.1
    }
}

impl Drop for Permitted {
    #[inline(always)]
    fn drop(&mut self) {
        let mut object = std::mem::take(&mut self.1);
        object.clear();
        self.0.1.lock().expect("no panic").push(object);
        self.0.0.add_permits(1);
    }
}

impl Awaited for Semaphore {
    const NAME: &'static str = "floor (Semaphore and Mutex<Vec>)";
    type Guard = Permitted;
    async fn make(objects: usize) -> Self {
        let all = (0..objects).map(|_| object()).collect();
        Self(tokio::sync::Semaphore::new(objects), Mutex::new(all))
    }
    #[inline(always)]
    async fn get(&'static self) -> Permitted {
        self.0.acquire().await.expect("never closed").forget();
        Permitted(self, self.1.lock().expect("no panic").pop().expect("a permit is an object"))
    }
    #[inline(always)]
    fn touch(guard: &mut Permitted) {
        touch(guard);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a thread")
}

fn uncontended<P: Awaited>(bench: &mut Bench, case: (&'static str, &'static str)) {
    bench.add(case, AWAITED, P::NAME, || {
        let runtime = runtime();
        let pool = leaked(runtime.block_on(P::make(OBJECTS)));
        move || {
            runtime.block_on(async {
                for _ in 0..AWAITED {
                    let mut guard = pool.get().await;
                    P::touch(&mut guard);
                    P::give(guard);
                }
            });
        }
    });
}

/// Runs tasks that take an object, yield and return it, `each` times. Their waits are added to `timed`.
async fn crowd<P: Awaited>(
    pool: &'static P,
    tasks: usize,
    each: usize,
    timed: Option<&'static Waits>,
) {
    let one = move || async move {
        for _ in 0..each {
            let since = timed.map(|_| Instant::now());
            let mut guard = pool.get().await;
            if let Some((waits, since)) = timed.zip(since) {
                waits.add(since.elapsed());
            }
            P::touch(&mut guard);
            tokio::task::yield_now().await;
            P::give(guard);
        }
    };
    let tasks: Vec<_> = (0..tasks).map(|_| tokio::spawn(one())).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// The nanoseconds of all waits of a body.
struct Waits {
    count: AtomicUsize,
    nanos: Vec<AtomicUsize>,
}

impl Waits {
    fn add(&self, wait: Duration) {
        let at = self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos[at].store(wait.as_nanos() as usize, Ordering::Relaxed);
    }

    /// Returns the wait that 99 of 100 do not exceed.
    fn p99(&self) -> Duration {
        let count = self.count.swap(0, Ordering::Relaxed);
        let load = |nanos: &AtomicUsize| nanos.load(Ordering::Relaxed);
        let mut nanos: Vec<_> = self.nanos[..count].iter().map(load).collect();
        let (_, p99, _) = nanos.select_nth_unstable(count * 99 / 100);
        Duration::from_nanos(*p99 as u64)
    }
}

fn contended<P: Awaited>(bench: &mut Bench) {
    const TASKS: usize = 16;
    const CROWD: usize = 256;
    let case = ("z3", "pool of tasks: 16 tasks on 4 objects");
    bench.add(case, TASKS * EACH, P::NAME, || {
        let runtime = runtime();
        let pool = leaked(runtime.block_on(P::make(4)));
        move || runtime.block_on(crowd(pool, TASKS, EACH, None))
    });
    let case = ("z4", "pool of tasks: 256 tasks on 16 objects, the p99 of a wait");
    bench.add_threads(case, 1, P::NAME, || {
        let runtime = runtime();
        let pool = leaked(runtime.block_on(P::make(16)));
        let nanos = (0..CROWD * EACH_TIMED).map(|_| AtomicUsize::new(0)).collect();
        let waits = leaked(Waits { count: AtomicUsize::new(0), nanos });
        move || {
            runtime.block_on(crowd(pool, CROWD, EACH_TIMED, Some(waits)));
            waits.p99()
        }
    });
}

pub fn register(bench: &mut Bench) {
    local::<LocalPool<fn() -> Object>>(bench);
    local::<opool::LocalPool<Hooks, Object>>(bench);
    local::<Malloc>(bench);
    shared::<Pool<fn() -> Object>>(bench);
    shared::<Bounded>(bench);
    shared::<opool::Pool<Hooks, Object>>(bench);
    shared::<object_pool::Pool<Object>>(bench);
    shared::<lockfree_object_pool::LinearObjectPool<Object>>(bench);
    shared::<lockfree_object_pool::SpinLockObjectPool<Object>>(bench);
    shared::<zeropool::ZeroPool>(bench);
    shared::<Unmanaged>(bench);
    shared::<r2d2::Pool<Hooks>>(bench);
    shared::<Locked>(bench);
    shared::<Malloc>(bench);
    let bare = ("z1", "pool of tasks, one task, no hooks: an object awaited and returned");
    uncontended::<Bare>(bench, bare);
    uncontended::<Unmanaged>(bench, bare);
    uncontended::<Bb8<false>>(bench, bare);
    uncontended::<Semaphore>(bench, bare);
    let hooked = ("z2", "pool of tasks, one task, maximum, hooks and stamps: awaited and returned");
    uncontended::<Pool<Hooks>>(bench, hooked);
    uncontended::<Managed>(bench, hooked);
    uncontended::<Bb8<true>>(bench, hooked);
    contended::<FnPool<Object>>(bench);
    contended::<Pool<Hooks>>(bench);
    contended::<Unmanaged>(bench);
    contended::<Managed>(bench);
    contended::<Bb8<false>>(bench);
    contended::<Semaphore>(bench);
    let targets = [
        ("p1", 2.5),
        ("p2", 3.3),
        ("p3", 6.0),
        ("p4", 3.2),
        ("p5", 8.0),
        ("p7", 4.0),
        ("z1", 20.0),
        ("z2", 40.0),
        ("z3", 200.0),
        // The best peer's, where the targets were set.
        ("z4", 94_000.0),
    ];
    for (case, most) in targets {
        bench.target(case, Target::Most(most));
    }
}
