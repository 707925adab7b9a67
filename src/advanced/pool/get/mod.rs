//! Requests that wait for objects.
#![forbid(unsafe_code)]

mod many;

use super::{
    Pool,
    error::PoolError,
    flag,
    guard::Pooled,
    inner::{Inner, Out, Permit, Place},
    making::{Begun, Birth},
    wait::{Deadline, Settled, Span, Terms},
};
use crate::{
    advanced::budget::{Permits, Reservation, Reserve, block_on},
    core::{
        Priority,
        error::{Refused, RefusedReason},
    },
    integration::traits::{AsyncFactory, Cancellation, Lifecycle},
};
use core::{
    fmt,
    future::Future,
    mem,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{boxed::Box, sync::Arc, time::Instant};

/// A request for an object of a [`Pool`], which waits until one is free; from [`Pool::get`].
///
/// It is a [`Future`] for any runtime; [`wait`](Self::wait) blocks a thread instead. Threads and tasks wait in one
/// queue, which is the [ledger's](crate::budget#waiting): higher priorities first, and within a priority in the order
/// in which the requests began to wait. Each second of waiting raises the priority of a request by one, at most to
/// [`High`](Priority::High). A returned object goes to the first request in the queue. Dropping a request withdraws it and
/// loses nothing.
///
/// A request also waits for the bytes of a new object. Meanwhile, and while the factory makes the object, it takes
/// an object that is returned, if there is one. The half-made object is then dropped.
///
/// A request ends at its deadline, or after 30 s, unless the
/// [`default_timeout`](crate::budget::BudgetBuilder::default_timeout) of the budget's root sets another time. This time
/// is for the whole request, whatever it waits for. A factory that blocks the thread is not interrupted.
///
/// # Examples
///
/// ```
/// use nebula_memory::pool::Pool;
/// use std::{thread, time::Duration};
///
/// let pool = Pool::options("connections").max_objects(1).build(String::new)?;
/// let held = pool.try_get()?;
/// thread::scope(|scope| {
///     let waiter = scope.spawn(|| pool.get().timeout(Duration::from_secs(60)).wait().map(drop));
///     drop(held);
///     waiter.join().unwrap()
/// })?;
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "a request does nothing until it is awaited, or `wait` is called"]
pub struct Get<'p, L: Lifecycle + AsyncFactory<L::Object>> {
    pool: &'p Arc<Inner<L>>,
    place: &'static Location<'static>,
    terms: Terms,
    /// Since it did not find an object at once.
    span: Option<Span>,
    has_waited: bool,
    stage: Stage<'p, L>,
    /// Given back if the request ends without an object. Dropped after the stage, whose place it stands for.
    permit: Option<Permit<'p>>,
    /// The number under which returns know this request.
    awaited: Option<u64>,
}

type Creation<'p, L> = Pin<
    Box<
        dyn Future<
                Output = Result<
                    <L as Lifecycle>::Object,
                    <L as AsyncFactory<<L as Lifecycle>::Object>>::Error,
                >,
            > + Send
            + 'p,
    >,
>;

enum Stage<'p, L: Lifecycle + AsyncFactory<L::Object>> {
    /// Nothing was asked yet, or the permit is there.
    Begin,
    Permit(Reserve),
    Settling(Settled<'p, L>),
    Bytes(Place<'p, L>, Reserve),
    Creating(Making<'p, L>),
    Done,
}

/// An object that the factory makes. The half-made object is dropped before its place is given up.
struct Making<'p, L: Lifecycle + AsyncFactory<L::Object>> {
    creation: Creation<'p, L>,
    birth: Birth<'p, L>,
    /// The end of the wait, once the factory lets it wait; and whether that is the factory's own time limit.
    end: Option<(Reserve, bool)>,
}

// The futures are boxed or do not care where they are.
impl<L: Lifecycle + AsyncFactory<L::Object>> Unpin for Get<'_, L> {}

type Error<L> = PoolError<<L as AsyncFactory<<L as Lifecycle>::Object>>::Error>;

type Answer<'p, L> = Result<Pooled<'p, L>, Error<L>>;

impl<'p, L: Lifecycle + AsyncFactory<L::Object>> Get<'p, L> {
    pub(super) fn new(pool: &'p Pool<L>, place: &'static Location<'static>) -> Self {
        Self::on_terms(&pool.inner, place, Terms::default())
    }

    fn on_terms(pool: &'p Arc<Inner<L>>, place: &'static Location<'static>, terms: Terms) -> Self {
        Self {
            pool,
            place,
            terms,
            span: None,
            has_waited: false,
            stage: Stage::Begin,
            permit: None,
            awaited: None,
        }
    }

    /// Waits at most until `deadline`.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.terms.deadline = Deadline::At(deadline);
        self
    }

    /// Like [`deadline`](Self::deadline), with `timeout` counted from now. A timeout that the clock cannot
    /// represent means no deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let deadline = self.pool.now().checked_add(timeout);
        self.terms.deadline = deadline.map_or(Deadline::Never, Deadline::At);
        self
    }

    /// Waits without a deadline.
    pub fn no_timeout(mut self) -> Self {
        self.terms.deadline = Deadline::Never;
        self
    }

    /// Sets the priority. The default is the priority of the [context](crate::Context) in which the request is polled,
    /// or else the priority of the pool's budget.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = Some(priority);
        self
    }

    /// Ends the request once `cancellation` is cancelled. The same happens when the context in which the request
    /// began to wait is cancelled.
    pub fn cancelled_by(mut self, cancellation: &Cancellation) -> Self {
        self.terms.cancellation = Some(cancellation.clone());
        self
    }

    /// Blocks this thread until there is an object.
    ///
    /// # Errors
    ///
    /// As for the future; see [`Pool::get`].
    pub fn wait(mut self) -> Answer<'p, L> {
        let until = match self.terms.deadline {
            Deadline::At(deadline) => Some(deadline),
            Deadline::Default | Deadline::Never => None,
        };
        block_on(&self.pool.budget, until, |context| Pin::new(&mut self).poll(context))
    }

    /// The next step; `None` if the request has to be looked at again at once.
    fn step(&mut self, context: &mut Context<'_>) -> Option<Poll<Answer<'p, L>>> {
        // The wait for a permit is the common one, and stays where it is.
        if matches!(self.stage, Stage::Permit(_)) {
            return self.await_permit(context);
        }
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin => self.begin(context),
            Stage::Settling(settled) => self.await_settled(settled, context),
            Stage::Bytes(place, reserve) => self.await_bytes(place, reserve, context),
            Stage::Creating(making) => self.create(making, context),
            Stage::Permit(_) | Stage::Done => {
                panic!("a request is not polled again after its answer")
            }
        }
    }

    fn begin(&mut self, context: &mut Context<'_>) -> Option<Poll<Answer<'p, L>>> {
        let pool = self.pool;
        if let Some(permits) = &pool.permits
            && self.permit.is_none()
        {
            if !permits.take_at_once() {
                let reserve = self.on_its_terms(permits.take(1, &pool.budget));
                self.stage = Stage::Permit(reserve);
                return self.await_permit(context);
            }
            self.permit = Some(pool.permit());
        }
        if self.pool.flags() & flag::CLOSED != 0 {
            return Some(Poll::Ready(Err(self.pool.closed())));
        }
        match self.pool.find() {
            Begun::Idle(slot) => Some(Poll::Ready(Ok(self.finish(slot)))),
            Begun::Full => {
                // It waits again, behind the requests that wait already.
                self.permit = None;
                self.stage = Stage::Begin;
                None
            }
            Begun::Away(back) => {
                let span = self.span();
                let settled = Settled::new(self.pool, back, &self.terms, span);
                self.await_settled(settled, context)
            }
            Begun::New(place) => {
                let bytes = self.pool.budget.reserve(self.pool.new_cost()).not_the_only_way();
                let reserve = self.on_its_terms(bytes);
                self.await_bytes(place, reserve, context)
            }
        }
    }

    fn await_permit(&mut self, context: &mut Context<'_>) -> Option<Poll<Answer<'p, L>>> {
        let Stage::Permit(reserve) = &mut self.stage else { return None };
        match Pin::new(reserve).poll(context) {
            Poll::Pending => {
                self.has_waited = true;
                Some(Poll::Pending)
            }
            Poll::Ready(Ok(reservation)) => {
                Permits::adopt(reservation);
                self.permit = Some(self.pool.permit());
                self.stage = Stage::Begin;
                None
            }
            Poll::Ready(Err(refused)) => {
                self.stage = Stage::Done;
                Some(Poll::Ready(Err(self.refused(&refused))))
            }
        }
    }

    fn await_settled(
        &mut self,
        mut settled: Settled<'p, L>,
        context: &mut Context<'_>,
    ) -> Option<Poll<Answer<'p, L>>> {
        match Pin::new(&mut settled).poll(context) {
            Poll::Pending => {
                let answer = self.take_returned(context);
                if answer.is_none() {
                    self.stage = Stage::Settling(settled);
                }
                Some(answer.map_or(Poll::Pending, Poll::Ready))
            }
            Poll::Ready(Ok(())) => {
                self.stage = Stage::Begin;
                None
            }
            Poll::Ready(Err(refused)) => Some(Poll::Ready(Err(self.ended(refused.reason)))),
        }
    }

    fn await_bytes(
        &mut self,
        place: Place<'p, L>,
        mut reserve: Reserve,
        context: &mut Context<'_>,
    ) -> Option<Poll<Answer<'p, L>>> {
        match Pin::new(&mut reserve).poll(context) {
            Poll::Pending => {
                if let Some(answer) = self.take_returned(context) {
                    drop((reserve, place));
                    return Some(Poll::Ready(answer));
                }
                self.stage = Stage::Bytes(place, reserve);
                Some(Poll::Pending)
            }
            Poll::Ready(Ok(charge)) => {
                self.stage = self.creation(place, charge);
                None
            }
            Poll::Ready(Err(refused)) => {
                // An object may have been returned at the last moment.
                let idle = self.pool.pop_fit();
                let answer = idle.map(|slot| self.finish(slot));
                Some(Poll::Ready(answer.ok_or_else(|| self.pool.no_bytes(refused))))
            }
        }
    }

    /// The stage in which the factory makes an object.
    fn creation(&self, place: Place<'p, L>, charge: Reservation) -> Stage<'p, L> {
        let birth = Inner::birth(place, charge);
        // A method call would find the factory that does not wait, where there is one.
        let creation = Box::pin(AsyncFactory::create(&self.pool.lifecycle));
        Stage::Creating(Making { creation, birth, end: None })
    }

    fn create(
        &mut self,
        mut making: Making<'p, L>,
        context: &mut Context<'_>,
    ) -> Option<Poll<Answer<'p, L>>> {
        let pool = self.pool;
        if let Poll::Ready(made) = making.creation.as_mut().poll(context) {
            let slot = making.birth.finish(made);
            return Some(Poll::Ready(slot.map(|slot| {
                pool.counts.first_taken();
                self.finish(slot)
            })));
        }
        if let Some(answer) = self.take_returned(context) {
            // The permit is the returned object's now.
            let _away = pool.away();
            drop(making);
            return Some(Poll::Ready(answer));
        }
        let limit = pool.settings.create_timeout;
        let span = self.span();
        let (end, is_factorys) =
            making.end.get_or_insert_with(|| self.terms.end(pool, span, limit));
        let is_factorys = *is_factorys;
        match Pin::new(end).poll(context) {
            Poll::Ready(Err(refused)) => {
                let timed_out = refused.reason == RefusedReason::TimedOut;
                let error = match limit.filter(|_| is_factorys && timed_out) {
                    Some(limit) => pool.create_timed_out(limit),
                    None => self.ended(refused.reason),
                };
                Some(Poll::Ready(Err(error)))
            }
            Poll::Ready(Ok(_)) | Poll::Pending => {
                self.stage = Stage::Creating(making);
                Some(Poll::Pending)
            }
        }
    }

    /// Takes an object that was returned, or asks to be woken for the next one.
    fn take_returned(&mut self, context: &Context<'_>) -> Option<Answer<'p, L>> {
        let pool = self.pool;
        self.has_waited = true;
        self.awaited = Some(pool.returns.add(&pool.flags, self.awaited, context.waker()));
        if pool.flags() & flag::CLOSED != 0 {
            return Some(Err(pool.closed()));
        }
        let slot = pool.pop_fit()?;
        Some(Ok(self.finish(slot)))
    }

    fn finish(&mut self, slot: Out<L>) -> Pooled<'p, L> {
        if self.has_waited
            && let Some(span) = self.span
        {
            self.pool.counts.waited(span.elapsed(self.pool));
        }
        self.pool.hand_out(slot, self.place, self.permit.take())
    }

    fn refused<E>(&mut self, refused: &Refused) -> PoolError<E> {
        let waited = self.span().elapsed(self.pool);
        self.pool.no_object(refused, waited)
    }

    fn ended<E>(&mut self, reason: RefusedReason) -> PoolError<E> {
        let waited = self.span().elapsed(self.pool);
        self.pool.ended(reason, waited)
    }

    /// A request of the ledger on the terms of this one.
    fn on_its_terms(&mut self, reserve: Reserve) -> Reserve {
        // Only the first request of the ledger begins when the wait begins. With that time, a later one would overtake
        // others.
        let is_first = self.span.is_none();
        let span = self.span();
        let reserve = self.terms.of(reserve, span);
        if is_first { reserve.begins_at(span.since()) } else { reserve }
    }

    fn span(&mut self) -> Span {
        *self.span.get_or_insert_with(|| Span::new(self.pool, self.terms.deadline))
    }

    /// Ends the wait for returned objects.
    fn leave(&mut self) {
        let Some(number) = self.awaited.take() else { return };
        let was_woken = !self.pool.returns.remove(&self.pool.flags, number);
        if was_woken && self.pool.shelf.idle() > 0 {
            // It was woken for an object that it may not have taken.
            self.pool.returns.wake_one(&self.pool.flags);
        }
    }
}

impl<'p, L: Lifecycle + AsyncFactory<L::Object>> Future for Get<'p, L> {
    type Output = Answer<'p, L>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(polled) = self.step(context) {
                if polled.is_ready() {
                    // A request that is not dropped yet has no part in what comes.
                    self.permit = None;
                    self.leave();
                }
                return polled;
            }
        }
    }
}

impl<L: Lifecycle + AsyncFactory<L::Object>> Drop for Get<'_, L> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<L: Lifecycle + AsyncFactory<L::Object>> fmt::Debug for Get<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("pool", &self.pool.budget.name())
            .field("priority", &self.terms.priority)
            .field("deadline", &self.terms.deadline)
            .field("waits", &self.has_waited)
            .finish_non_exhaustive()
    }
}
