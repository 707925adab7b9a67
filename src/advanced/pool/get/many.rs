//! Requests for several objects at once.
#![forbid(unsafe_code)]

use super::{Error, Get};
use crate::{
    advanced::{
        budget::{Permits, block_on},
        pool::{
            flag,
            guard::Pooled,
            inner::{Inner, Permit},
            making::Begun,
            wait::{Settled, Span},
        },
    },
    core::error::RefusedReason,
    integration::traits::{AsyncFactory, Lifecycle},
};
use core::{future::Future, time::Duration};
use std::vec::Vec;

impl<'p, L: Lifecycle + AsyncFactory<L::Object>> Get<'p, L> {
    /// Takes `count` objects together. Until all are free the request holds none of them, so two requests for several
    /// objects never wait for each other.
    ///
    /// # Errors
    ///
    /// As for [`Pool::get`](crate::pool::Pool::get), and [`NoObject`](crate::pool::PoolError::NoObject) at once if `count` exceeds the maximum.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::pool::Pool;
    ///
    /// let pool = Pool::options("lines").max_objects(4).build(String::new)?;
    /// let lines = pool.get().wait_many(3)?;
    /// assert_eq!((lines.len(), pool.stats().in_use), (3, 3));
    /// assert!(pool.get().wait_many(5).is_err());
    /// # drop(lines);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub async fn many(self, count: usize) -> Result<Vec<Pooled<'p, L>>, Error<L>> {
        let Self { pool, place, ref terms, .. } = self;
        let span = Span::new(pool, terms.deadline);
        let mut permits = Vec::new();
        if let Some(all) = &pool.permits
            && count > 0
        {
            if let Err(refused) = all.try_take(count) {
                if refused.reason == RefusedReason::TooLarge {
                    return Err(pool.no_object(&refused, Duration::ZERO));
                }
                let granted = terms.of(all.take(count, &pool.budget), span).await;
                let waited = span.elapsed(pool);
                Permits::adopt(granted.map_err(|refused| pool.no_object(&refused, waited))?);
                pool.counts.waited(waited);
            }
            permits = (0..count).map(|_| pool.permit()).collect();
        }
        let mut objects = Vec::new();
        loop {
            if pool.flags() & flag::CLOSED != 0 {
                return Err(pool.closed());
            }
            // What is idle first: it needs no bytes.
            while objects.len() < count
                && let Some(slot) = pool.pop_fit()
            {
                objects.push(pool.hand_out(slot, place, permits.pop()));
            }
            let missing = count - objects.len();
            if missing == 0 {
                return Ok(objects);
            }
            // The bytes of all that are missing at once.
            let bytes = pool.new_cost().saturating_mul(missing);
            let mut charge = match pool.budget.try_reserve(bytes) {
                Ok(charge) => charge,
                Err(_) => {
                    // Nothing is held while it waits but the permits.
                    put_all_back(pool, &mut objects, &mut permits);
                    let granted = terms.of(pool.budget.reserve(bytes), span).await;
                    granted.map_err(|refused| pool.no_bytes(refused))?
                }
            };
            while objects.len() < count {
                let place_for_one = match pool.find() {
                    Begun::Idle(slot) => {
                        objects.push(pool.hand_out(slot, place, permits.pop()));
                        continue;
                    }
                    Begun::New(place) => place,
                    Begun::Full => return Err(pool.all_in_use()),
                    Begun::Away(back) => {
                        drop(charge);
                        put_all_back(pool, &mut objects, &mut permits);
                        let settled = Settled::new(pool, back, terms, span).await;
                        settled
                            .map_err(|refused| pool.ended(refused.reason, span.elapsed(pool)))?;
                        break;
                    }
                };
                let Some(one) = charge.split(pool.new_cost()) else { break };
                let mut next = Self::on_terms(pool, place, terms.clone());
                next.span = Some(span);
                next.permit = permits.pop();
                next.stage = next.creation(place_for_one, one);
                objects.push(next.await?);
            }
        }
    }

    /// Like [`many`](Self::many), but blocks this thread.
    ///
    /// # Errors
    ///
    /// As for [`many`](Self::many).
    pub fn wait_many(self, count: usize) -> Result<Vec<Pooled<'p, L>>, Error<L>> {
        let budget = &self.pool.budget;
        let mut all = core::pin::pin!(self.many(count));
        block_on(budget, None, |context| all.as_mut().poll(context))
    }
}

/// Puts the objects back, and keeps their permits.
fn put_all_back<'p, L: Lifecycle>(
    pool: &'p Inner<L>,
    objects: &mut Vec<Pooled<'p, L>>,
    permits: &mut Vec<Permit<'p>>,
) {
    for object in objects.drain(..) {
        permits.extend(object.put_back(pool));
    }
}
