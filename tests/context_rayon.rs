//! Contexts on the threads of rayon's pools.

use nebula_memory::{allocator::ContextAllocator, integration::traits::Context};
use rayon::prelude::*;
use std::{alloc::System, hint::black_box, sync::mpsc};

#[global_allocator]
static HEAP: ContextAllocator<System> = ContextAllocator::new(System);

fn name() -> Option<String> {
    Context::current().map(|context| context.name().to_owned())
}

fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "a pool of threads that do not end")]
fn work_goes_on_in_the_context_that_it_comes_from() {
    let pool = pool();
    let tenant = Context::root("tenant").build();
    let (sender, receiver) = mpsc::channel();
    tenant.run(|| {
        assert_eq!(pool.install(name), None, "without help");
        assert_eq!(pool.install(Context::wrap(name)).as_deref(), Some("tenant"));
        pool.spawn(Context::wrap(move || sender.send(name()).unwrap()));
        let check = Context::wrap(|| assert_eq!(name().as_deref(), Some("tenant")));
        pool.scope(|scope| scope.spawn(|_| check()));
        let wrapped = Context::wrap(name);
        let halves = pool.install(|| rayon::join(name, wrapped));
        assert_eq!(halves, (None, Some("tenant".to_owned())));
    });
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("tenant"));
    assert_eq!(Context::wrap(name)(), None);
}

#[test]
#[cfg_attr(miri, ignore = "a pool of threads that do not end")]
fn blocks_of_a_parallel_iterator_are_counted() {
    let pool = pool();
    let [one, other] = ["one", "other"].map(|name| Context::root(name).build());
    let blocks: Vec<Vec<u8>> = pool.install(|| {
        let owner = |n: usize| if n.is_multiple_of(2) { &one } else { &other };
        let blocks = (0..1000).into_par_iter();
        blocks.map(|n| owner(n).run(|| black_box(vec![0; 100]))).collect()
    });
    assert_eq!([&one, &other].map(|context| context.usage().used), [500 * 100; 2]);
    pool.install(|| blocks.into_par_iter().for_each(drop));
    assert_eq!([&one, &other].map(|context| context.usage().used), [0; 2]);
}

/// The caller gets the panic, and the pool's thread has left the context.
#[test]
#[cfg_attr(miri, ignore = "a pool of threads that do not end")]
fn a_panic_leaves_the_context() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let tenant = Context::root("tenant").build();
    let panics = std::panic::AssertUnwindSafe(|| {
        tenant.run(|| pool.install(Context::wrap(|| panic!("a bug of the tenant's"))));
    });
    std::panic::catch_unwind(panics).unwrap_err();
    assert_eq!(pool.install(name), None);
}
