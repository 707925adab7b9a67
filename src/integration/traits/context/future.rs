//! Futures that are polled in a context.

use super::{
    Context,
    tasks::FutureTask,
    thread::{Stay, register_request},
};
use core::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};
use pin_project_lite::pin_project;

pin_project! {
    /// A future that is polled and dropped in a context; from [`Context::in_context`].
    ///
    /// If the future itself keeps a [guard](super::ContextGuard) across an `await`, the thread stays in the guard's
    /// context between the polls. For that part of the future use `in_context` instead of a guard.
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is polled"]
    pub struct InContext<F> {
        // `None` once the future has ended.
        #[pin]
        future: Option<F>,
        context: Context,
        // `None` once the future has ended, or if the context has no group.
        task: Option<FutureTask>,
    }

    impl<F> PinnedDrop for InContext<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(task) = this.task {
                task.work();
            }
            let _entered = this.context.stay(Stay::OfFuture(None));
            this.future.set(None);
        }
    }
}

impl Context {
    /// Returns `future` as a future that is polled and dropped in this context, on any thread.
    ///
    /// If the context carries a budget, the ledger knows whether the future waits only for memory. If the ledger
    /// proves that no release can end the wait, it refuses the request as a deadlock. The ledger does not see a
    /// timeout around the returned future, so put the timeout inside.
    ///
    /// # Complexity
    ///
    /// A poll enters the context. If the context carries a budget, the first poll also allocates, and each poll takes
    /// three short locks of the future alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    /// # use core::{future::Future, pin::pin, task};
    ///
    /// let context = Context::root("tenant-a").build();
    /// let name = context.in_context(async { Context::current().unwrap().name().to_owned() });
    /// # let mut waker = task::Context::from_waker(task::Waker::noop());
    /// # let task::Poll::Ready(name) = pin!(name).poll(&mut waker) else { unreachable!() };
    /// // let name = name.await;
    /// assert_eq!(name, "tenant-a");
    /// assert!(Context::current().is_none());
    /// ```
    pub fn in_context<F: Future>(&self, future: F) -> InContext<F> {
        let task = self.tasks().map(FutureTask::new);
        InContext { future: Some(future), context: self.clone(), task }
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    /// # Panics
    ///
    /// If the future has ended already.
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let mut future = this.future.as_mut();
        let mut poll = |stay, cx: &mut task::Context<'_>| {
            let _entered = this.context.stay(stay);
            let polled = future.as_mut().as_pin_mut().expect("polled after it has ended").poll(cx);
            if polled.is_ready() {
                // The future's drop runs in the context, too.
                future.set(None);
            }
            polled
        };
        let Some(task) = this.task else { return poll(Stay::OfFuture(None), cx) };
        let (waker, polling) = task.begin_poll(cx.waker());
        let polled = poll(Stay::OfFuture(Some(polling)), &mut task::Context::from_waker(waker));
        if polled.is_ready() {
            *this.task = None;
        } else {
            task.end_pending(register_request(cx.waker()));
        }
        polled
    }
}

/// Spawns a tokio task. It runs in the current context, if there is one.
///
/// # Panics
///
/// If it is called outside of a runtime, like [`tokio::spawn`].
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::traits::{Context, context};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let tenant = Context::root("tenant-a").build();
/// let name = tenant.in_context(async {
///     let task = context::spawn(async { Context::current().unwrap().name().to_owned() });
///     task.await.unwrap()
/// });
/// assert_eq!(name.await, "tenant-a");
/// # });
/// ```
#[cfg(feature = "tokio")]
#[track_caller]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match Context::current() {
        Some(context) => tokio::spawn(context.in_context(future)),
        None => tokio::spawn(future),
    }
}

/// Runs `work` on a tokio thread for blocking work. It runs in the current context, if there is one.
///
/// # Panics
///
/// If it is called outside of a runtime, like [`tokio::task::spawn_blocking`].
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::traits::{Context, context};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let tenant = Context::root("tenant-a").build();
/// let name = tenant.in_context(async {
///     context::spawn_blocking(|| Context::current().unwrap().name().to_owned()).await.unwrap()
/// });
/// assert_eq!(name.await, "tenant-a");
/// # });
/// ```
#[cfg(feature = "tokio")]
#[track_caller]
pub fn spawn_blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> tokio::task::JoinHandle<R> {
    tokio::task::spawn_blocking(Context::wrap(work))
}
