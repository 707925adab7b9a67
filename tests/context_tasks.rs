//! Deadlocks that the ledger proves by the tasks of contexts. Two tasks hold 50 of 100 bytes each, and wait
//! for 50 more. One of them is refused, but only once no other task of the context is at work.

use core::time::Duration;
use nebula_memory::{Budget, budget::Refused, core::RefusedReason, integration::traits::Context};
use std::{
    sync::{Arc, Barrier},
    thread,
};
use tokio::sync::{Barrier as AsyncBarrier, watch};

/// Longer than the ledger takes to find a deadlock. A test that sleeps this long can miss a fault, but never
/// fails without one.
const LONG: Duration = Duration::from_millis(150);

/// A budget of 100 bytes, and a context that carries it.
fn tenant() -> (Budget, Context) {
    let budget = Budget::root("process").limit(100).build().unwrap();
    let context = Context::root("tenant").budget(&budget).build();
    (budget, context)
}

/// Asserts that one of the two requests was refused for a deadlock, and the other one granted.
fn assert_deadlock(outcomes: [Result<(), Refused>; 2]) {
    let refused: Vec<_> =
        outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().err()?.reason)).collect();
    assert_eq!(refused, [RefusedReason::Deadlock]);
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_time().build().unwrap()
}

async fn reserve_twice(budget: Budget, both: Arc<AsyncBarrier>) -> Result<(), Refused> {
    let first = budget.reserve(50).no_timeout().await?;
    both.wait().await;
    let second = budget.reserve(50).no_timeout().await?;
    drop((first, second));
    Ok(())
}

#[cfg_attr(miri, ignore = "a runtime takes too long")]
#[test]
fn two_futures_that_wait_for_each_other() {
    let (budget, context) = tenant();
    let outcomes = runtime().block_on(async {
        let both = Arc::new(AsyncBarrier::new(2));
        let [one, other] = [(); 2].map(|()| {
            tokio::spawn(context.in_context(reserve_twice(budget.clone(), both.clone())))
        });
        [one.await.unwrap(), other.await.unwrap()]
    });
    assert_deadlock(outcomes);
    assert_eq!(budget.usage().used, 0);
}

/// Each future is in a context of its own below the tenant's.
#[cfg_attr(miri, ignore = "a runtime takes too long")]
#[test]
fn two_futures_in_futures_that_wait_for_each_other() {
    let (budget, context) = tenant();
    let outcomes = runtime().block_on(async {
        let both = Arc::new(AsyncBarrier::new(2));
        let [one, other] = [(); 2].map(|()| {
            let run = context.child("run").build();
            let work = run.in_context(reserve_twice(budget.clone(), both.clone()));
            tokio::spawn(context.in_context(work))
        });
        [one.await.unwrap(), other.await.unwrap()]
    });
    assert_deadlock(outcomes);
}

/// Each future waits for a request or a signal. The signal comes in the end.
#[cfg_attr(miri, ignore = "a runtime takes too long")]
#[test]
fn two_futures_that_something_else_can_wake() {
    let (budget, context) = tenant();
    let (sender, receiver) = watch::channel(false);
    runtime().block_on(async {
        let both = Arc::new(AsyncBarrier::new(2));
        let [one, other] = [(); 2].map(|()| {
            let (work, mut signal) =
                (reserve_twice(budget.clone(), both.clone()), receiver.clone());
            tokio::spawn(context.in_context(async move {
                tokio::select! {
                    outcome = work => outcome.map(|()| "granted"),
                    _ = signal.changed() => Ok("told to stop"),
                }
            }))
        });
        tokio::time::sleep(LONG).await;
        sender.send(true).unwrap();
        for task in [one, other] {
            task.await.unwrap().expect("no verdict was proven");
        }
    });
    assert_eq!(budget.usage().used, 0);
}

#[cfg_attr(miri, ignore = "by the ledger's clock")]
#[test]
fn two_threads_that_wait_for_each_other_once_a_third_one_has_left() {
    let (budget, context) = tenant();
    let (all, both) = (Barrier::new(3), Barrier::new(2));
    let reserve_twice = || {
        context.run(|| {
            let first = budget.reserve(50).no_timeout().wait()?;
            both.wait();
            all.wait();
            let second = budget.reserve(50).no_timeout().wait()?;
            drop((first, second));
            Ok(())
        })
    };
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(reserve_twice));
        context.run(|| {
            all.wait();
            thread::sleep(LONG);
            assert!(!threads.iter().any(thread::ScopedJoinHandle::is_finished), "one is at work");
        });
        assert_deadlock(threads.map(|thread| thread.join().unwrap()));
    });
    assert_eq!(budget.usage().used, 0);
}
