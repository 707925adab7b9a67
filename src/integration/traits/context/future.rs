//! Futures that are polled in a context.

use super::Context;
use core::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};
use pin_project_lite::pin_project;

pin_project! {
    /// A future that is in a context whenever it is polled, and when it is dropped; from
    /// [`Context::in_context`].
    ///
    /// A [guard](super::ContextGuard) that the future itself keeps while it waits is not taken off: its
    /// thread stays in that one's context between the polls. What is entered for a part of a future is
    /// better a future in a context too.
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is polled"]
    pub struct InContext<F> {
        // `None` once it has ended.
        #[pin]
        future: Option<F>,
        context: Context,
    }

    impl<F> PinnedDrop for InContext<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.context.enter();
            this.future.set(None);
        }
    }
}

impl Context {
    /// The same future, polled and dropped in this context, on whatever thread.
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
        InContext { future: Some(future), context: self.clone() }
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    /// # Panics
    ///
    /// When it has ended already.
    fn poll(self: Pin<&mut Self>, waker: &mut task::Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _entered = this.context.enter();
        let future = this.future.as_mut().as_pin_mut().expect("polled after it has ended");
        let polled = future.poll(waker);
        if polled.is_ready() {
            // In the context too, with what it holds.
            this.future.set(None);
        }
        polled
    }
}

/// Spawns a task of tokio's in the context that this one is in.
///
/// # Panics
///
/// As [`tokio::spawn`]: outside of a runtime.
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

/// Runs `work` on a thread of tokio's where it may block, in the context that this task is in.
///
/// # Panics
///
/// As [`tokio::task::spawn_blocking`]: outside of a runtime.
///
/// # Examples
///
/// As [`spawn`]:
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
    let context = Context::current();
    tokio::task::spawn_blocking(move || match context {
        Some(context) => context.run(work),
        None => work(),
    })
}
