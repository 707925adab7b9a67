//! Contexts: how they nest, on threads and around futures, and their budgets, priorities, tags and
//! extensions.

use core::{
    future::{self, Future},
    pin::{Pin, pin},
    task::{self, Poll, Waker},
    time::Duration,
};
use nebula_memory::{
    Budget, Priority, ReclaimClass,
    budget::Cancellation,
    core::RefusedReason,
    integration::traits::{Context, ContextGuard, checkpoint},
};
use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

fn context(name: &str) -> Context {
    Context::root(name).build()
}

fn current() -> Option<String> {
    Context::current().map(|context| context.name().to_owned())
}

#[test]
fn a_thread_is_in_the_context_that_it_entered_last_and_has_not_left() {
    assert_eq!(current(), None);
    let mut guards: Vec<Option<ContextGuard>> =
        ["a", "b", "c", "d"].map(|name| Some(context(name).enter())).into();
    // The guards are dropped in an unusual order.
    for (leave, then) in [(1, Some("d")), (3, Some("c")), (2, Some("a")), (0, None)] {
        guards[leave] = None;
        assert_eq!(current().as_deref(), then);
    }
}

#[test]
fn a_context_is_of_its_thread_alone() {
    let tenant = context("tenant");
    let _entered = tenant.enter();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(current(), None));
        scope.spawn(|| tenant.run(|| assert_eq!(current().as_deref(), Some("tenant"))));
    });
}

#[test]
fn a_panic_leaves_the_context() {
    let tenant = context("tenant");
    catch_unwind(AssertUnwindSafe(|| tenant.run(|| panic!("a bug of the tenant's")))).unwrap_err();
    assert_eq!(current(), None);
}

#[test]
fn a_guard_that_is_forgotten_ends_with_its_thread() {
    let tenant = context("tenant");
    let cancellation = tenant.cancellation().clone();
    thread::spawn(move || mem::forget(tenant.enter())).join().unwrap();
    cancellation.cancel();
}

#[test]
fn a_child_inherits_priority_and_tags_unless_it_sets_its_own() {
    let tenant = Context::root("tenant").priority(Priority::Low).tag("region", "eu").build();
    let run = tenant.child("run").tag("kind", "report").build();
    let urgent = run.child("urgent").priority(Priority::Critical).tag("region", "us").build();
    assert_eq!(run.priority(), Some(Priority::Low));
    assert_eq!((run.tag("region"), run.tag("kind")), (Some("eu"), Some("report")));
    assert_eq!(urgent.priority(), Some(Priority::Critical));
    assert_eq!((urgent.tag("region"), urgent.tag("kind")), (Some("us"), Some("report")));
    assert_eq!(urgent.tag("none"), None);
    assert!(urgent.parent().is_some_and(|parent| parent.is_same(&run)));
}

#[test]
fn a_cancellation_reaches_all_descendants_and_no_other_context() {
    let tenant = context("tenant");
    let [one, other] = ["one", "other"].map(|name| tenant.child(name).build());
    let part = one.child("part").build();
    one.cancel();
    for (context, code) in [
        (&tenant, None),
        (&other, None),
        (&one, Some("MEM:CONTEXT:CANCELLED")),
        (&part, Some("MEM:CONTEXT:CANCELLED")),
        (&one.child("late").build(), Some("MEM:CONTEXT:CANCELLED")),
    ] {
        assert_eq!(context.run(checkpoint).err().map(|error| error.code()), code);
    }
    let error = part.checkpoint().unwrap_err();
    assert!(!error.is_retryable());
    // The error names the first context on the way up that must stop: the one of the checkpoint itself.
    assert_eq!(error.to_string(), "context `part` is interrupted: cancelled");
}

#[test]
fn a_future_is_in_its_context_when_it_is_polled_and_when_it_is_dropped() {
    struct Dropped;

    impl Drop for Dropped {
        fn drop(&mut self) {
            assert_eq!(current().as_deref(), Some("tenant"));
        }
    }

    let mut waker = task::Context::from_waker(Waker::noop());
    let tenant = context("tenant");
    let work = || {
        let mut polls = 0;
        let dropped = Dropped;
        tenant.in_context(future::poll_fn(move |_| {
            let _ = &dropped;
            assert_eq!(current().as_deref(), Some("tenant"));
            polls += 1;
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        }))
    };
    let mut to_its_end = pin!(work());
    while to_its_end.as_mut().poll(&mut waker).is_pending() {
        assert_eq!(current(), None);
    }
    drop(work());
    let mut begun = Box::pin(work());
    assert!(begun.as_mut().poll(&mut waker).is_pending());
    drop(begun);
    assert_eq!(current(), None);
}

#[test]
#[should_panic(expected = "polled after it has ended")]
fn a_future_that_has_ended_is_not_polled_again() {
    let mut waker = task::Context::from_waker(Waker::noop());
    let mut ended = pin!(context("tenant").in_context(async {}));
    assert!(ended.as_mut().poll(&mut waker).is_ready());
    let _ = ended.as_mut().poll(&mut waker);
}

#[test]
fn a_request_that_waits_ends_when_its_context_is_cancelled() {
    let budget = Budget::root("process").limit(100).workers(8).build().unwrap();
    let held = budget.try_reserve(100).unwrap();
    let tenant = context("tenant");
    let run = tenant.child("run").build();
    let other = context("other");
    thread::scope(|scope| {
        let cancelled = [&run, &tenant].map(|context| {
            let budget = &budget;
            scope.spawn(move || context.run(|| budget.reserve_blocking(10)))
        });
        let goes_on = scope.spawn(|| other.run(|| budget.reserve_blocking(10)));
        tenant.cancel();
        for waiter in cancelled {
            let refused = waiter.join().unwrap().unwrap_err();
            assert_eq!(refused.reason, RefusedReason::Cancelled);
        }
        drop(held);
        assert_eq!(goes_on.join().unwrap().unwrap().size(), 10);
    });
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn either_of_two_cancellations_ends_a_wait() {
    let budget = Budget::root("process").limit(100).workers(8).build().unwrap();
    let held = budget.try_reserve(100).unwrap();
    for own in [false, true] {
        let (tenant, cancellation) = (context("tenant"), Cancellation::new());
        thread::scope(|scope| {
            let waiter = scope
                .spawn(|| tenant.run(|| budget.reserve(10).cancelled_by(&cancellation)).wait());
            if own {
                cancellation.cancel();
            } else {
                tenant.cancel();
            }
            assert_eq!(waiter.join().unwrap().unwrap_err().reason, RefusedReason::Cancelled);
        });
    }
    drop(held);
}

/// A request belongs to the context in which it is made, wherever it is awaited.
#[test]
fn a_request_has_the_priority_of_its_context() {
    let budget = Budget::root("process").limit(100).workers(8).build().unwrap();
    let held = budget.try_reserve(100).unwrap();
    let mut waker = task::Context::from_waker(Waker::noop());
    let mut low = pin!(budget.reserve(100));
    assert!(low.as_mut().poll(&mut waker).is_pending());
    let urgent = Context::root("urgent").priority(Priority::Critical).build();
    let mut high = pin!(urgent.run(|| budget.reserve(100)));
    assert!(high.as_mut().poll(&mut waker).is_pending());
    drop(held);
    let first = high.as_mut().poll(&mut waker);
    assert!(first.is_ready(), "it stands first, though it came later");
    assert!(low.as_mut().poll(&mut waker).is_pending());
}

#[test]
fn the_nearest_budget_is_the_current_one() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let tenant = process.child("tenant").limit(500).build().unwrap();
    let outer = Context::root("outer").budget(&process).build();
    let inner = outer.child("inner").budget(&tenant).build();
    let part = inner.child("part").build();
    let name = |context: &Context| context.run(|| Budget::current().unwrap().name().to_owned());
    assert_eq!([&outer, &inner, &part].map(name), ["process", "tenant", "tenant"]);
    assert!(Budget::current().is_none());
    assert!(context("none").run(Budget::current).is_none());
}

#[test]
fn an_extension_is_found_by_its_type_here_or_at_the_nearest_above() {
    #[derive(Debug, PartialEq)]
    struct Trace(u32);
    struct Shared(Arc<()>);

    let shared = Arc::new(());
    let tenant = Context::root("tenant")
        .extension(Trace(1))
        .extension(7_u64)
        .extension(Shared(shared.clone()))
        .build();
    let run = tenant.child("run").extension(Trace(2)).extension(Trace(3)).build();
    let step = run.child("step").build();
    assert_eq!(tenant.extension(), Some(&Trace(1)));
    assert_eq!(run.extension(), Some(&Trace(3)), "the last of two");
    assert_eq!((step.extension(), step.extension()), (Some(&Trace(3)), Some(&7_u64)));
    assert!(step.extension::<String>().is_none());
    assert!(Arc::ptr_eq(&step.extension::<Shared>().unwrap().0, &shared));
    drop((tenant, run));
    assert_eq!(Arc::strong_count(&shared), 2);
    drop(step);
    assert_eq!(Arc::strong_count(&shared), 1);
}

/// A budget is an extension like others, and does not hide any.
#[test]
fn a_budget_is_an_extension() {
    let budget = Budget::root("process").limit(1000).build().unwrap();
    let tenant = Context::root("tenant").extension(7_u64).budget(&budget).build();
    assert_eq!(tenant.extension::<Budget>().map(Budget::name), Some("process"));
    assert_eq!(
        (tenant.budget().map(Budget::name), tenant.extension()),
        (Some("process"), Some(&7_u64))
    );
}

/// Runs until it is told to stop, and holds `bytes` of `budget` until then.
fn run_until_stopped(context: &Context, budget: &Budget, bytes: usize, may_cancel: bool) {
    context.run(|| {
        let _held = budget.try_reserve(bytes).unwrap();
        let _permit = may_cancel.then(|| budget.allow_cancel(context));
        while checkpoint().is_ok() {
            thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Cancels the contexts when it is dropped, so that their work ends even if the test fails.
struct Stop<'a>(&'a [Context]);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Context::cancel);
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

#[test]
fn only_a_context_that_may_be_is_cancelled_and_the_one_that_matters_least() {
    let process = Budget::root("process").limit(1000).workers(8).build().unwrap();
    let child = |name, priority| process.child(name).priority(priority).workers(2).build().unwrap();
    let budgets = [
        child("forbidden", Priority::Low),
        child("important", Priority::High),
        child("batch", Priority::Low),
    ];
    let contexts = ["forbidden", "important", "batch"].map(context);
    thread::scope(|scope| {
        let _stop = Stop(&contexts);
        for (n, (context, budget)) in contexts.iter().zip(&budgets).enumerate() {
            scope.spawn(move || run_until_stopped(context, budget, 300, n > 0));
        }
        wait_until(|| process.usage().used == 900);
        let urgent = process.reserve(300).wait().unwrap();
        let is_cancelled = |context: &Context| context.cancellation().is_cancelled();
        assert_eq!(contexts.each_ref().map(is_cancelled), [false, false, true]);
        drop(urgent);
    });
    assert_eq!(process.usage().used, 0);
}

#[test]
fn a_guarantee_is_not_cancelled_for_another() {
    let process = Budget::root("process").limit(1000).workers(2).build().unwrap();
    let tenant = process.child("tenant").guarantee(600).workers(2).build().unwrap();
    let working = context("tenant");
    thread::scope(|scope| {
        let _stop = Stop(core::slice::from_ref(&working));
        scope.spawn(|| run_until_stopped(&working, &tenant, 600, true));
        wait_until(|| tenant.usage().used == 600);
        let late = process.reserve(500).timeout(Duration::from_millis(50)).wait();
        late.unwrap_err();
        assert!(!working.cancellation().is_cancelled());
    });
}

/// The node counts the bytes of the work, so the permit has none of its own.
#[test]
fn a_permit_is_in_the_snapshot_under_the_name_of_its_context() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let tenant = process.child("tenant").build().unwrap();
    let held = tenant.try_reserve(300).unwrap();
    let working = context("report");
    let permit = tenant.allow_cancel(&working);
    let snapshot = tenant.snapshot();
    let shown = &snapshot.managers[0];
    assert_eq!((shown.name.as_str(), shown.class), ("report", ReclaimClass::Cancel));
    assert_eq!((shown.usage.used, shown.usage.peak, shown.usage.capacity), (0, 0, None));
    assert_eq!(shown.reclaimable, 300);
    working.cancel();
    assert_eq!(tenant.snapshot().managers[0].reclaimable, 0);
    drop((permit, held));
    assert!(tenant.snapshot().managers.is_empty());
}

#[test]
fn two_handles_to_one_context_are_the_same_and_others_are_not() {
    let (one, other) = (context("tenant"), context("tenant"));
    assert!(one.is_same(&one.clone()));
    assert!(!one.is_same(&other) && !one.is_same(&one.child("tenant").build()));
}

/// `in_context` enters the context at every poll, on whichever thread the task runs.
#[cfg(feature = "tokio")]
#[cfg_attr(miri, ignore = "a runtime of threads takes too long")]
#[test]
fn tasks_of_tokio_keep_their_context_across_threads_and_spawns() {
    use nebula_memory::integration::traits::context;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let tenants: Vec<_> = (0..8)
            .map(|n| {
                let name = format!("tenant-{n}");
                let expected = name.clone();
                tokio::spawn(Context::root(&name).build().in_context(async move {
                    for _ in 0..100 {
                        assert_eq!(current().as_ref(), Some(&expected));
                        tokio::task::yield_now().await;
                    }
                    let spawned = context::spawn(async { current() }).await.unwrap();
                    let blocking = context::spawn_blocking(current).await.unwrap();
                    let outside = tokio::spawn(async { current() }).await.unwrap();
                    assert_eq!([spawned.as_ref(), blocking.as_ref()], [Some(&expected); 2]);
                    assert_eq!(outside, None);
                }))
            })
            .collect();
        for tenant in tenants {
            tenant.await.unwrap();
        }
        assert_eq!(context::spawn_blocking(current).await.unwrap(), None);
    });
}

/// The chain is too long to be dropped by recursion.
#[test]
fn a_chain_of_contexts_may_be_long() {
    let first = context("first");
    let mut last = first.clone();
    for _ in 0..if cfg!(miri) { 100 } else { 100_000 } {
        last = last.child("part").build();
    }
    assert_eq!(first.usage().used, 0);
    last.checkpoint().unwrap();
    first.cancel();
    last.checkpoint().unwrap_err();
    drop(first);
    drop(last);
}

#[test]
fn a_request_that_is_changed_while_it_waits_begins_anew() {
    let budget = Budget::root("process").limit(100).workers(8).build().unwrap();
    let held = budget.try_reserve(100).unwrap();
    let waits = || {
        let mut waker = task::Context::from_waker(Waker::noop());
        let mut request = Box::pin(budget.reserve(10));
        assert!(request.as_mut().poll(&mut waker).is_pending());
        *Pin::into_inner(request)
    };
    let (before, after) = (Cancellation::new(), Cancellation::new());
    let request = waits().cancelled_by(&before).cancelled_by(&after);
    before.cancel();
    after.cancel();
    assert_eq!(request.wait().unwrap_err().reason, RefusedReason::Cancelled);
    let late = waits().timeout(Duration::from_millis(1));
    assert_eq!(late.wait().unwrap_err().reason, RefusedReason::TimedOut);
    drop((waits().priority(Priority::High), held));
    assert_eq!(budget.usage().used, 0);
}
