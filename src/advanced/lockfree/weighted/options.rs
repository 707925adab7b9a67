#![forbid(unsafe_code)]

use super::{Weigher, WeightedQueue};
use crate::{
    advanced::{
        budget::{Budget, Permits},
        lockfree::Queue,
    },
    core::{ConfigError, MemoryError},
    utils::{sync::AtomicU32, wakers::Wakers},
};
use core::{any::type_name, fmt, mem::needs_drop};
use std::{boxed::Box, format};

/// Options for a new [`WeightedQueue`]; from [`WeightedQueue::options`].
#[must_use = "options do nothing until `build`"]
pub struct WeightedQueueOptions<T> {
    name: Box<str>,
    budget: Option<Budget>,
    capacity: usize,
    max_bytes: Option<usize>,
    weigher: Option<Weigher<T>>,
}

/// Values that a queue has room for unless the options say another number.
const CAPACITY: usize = 1024;

impl<T> WeightedQueueOptions<T> {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), budget: None, capacity: CAPACITY, max_bytes: None, weigher: None }
    }

    /// Charges the slots and the values to `budget`. The default is a budget of the queue's own, without a limit.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets the largest number of values; 1024 by default.
    pub const fn capacity(mut self, values: usize) -> Self {
        self.capacity = values;
        self
    }

    /// Sets the most bytes of all values together, as the weigher tells them. The default is no other limit than those of
    /// the budget.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Sets the function that returns the bytes that a value owns on the heap. It is called once for each push, on the
    /// thread that pushes, and a panic of it ends the push.
    ///
    /// Without a weigher a value weighs nothing. Values with a destructor must have one, because they may own heap memory.
    pub fn weigher(mut self, weigher: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Builds the queue, and allocates its slots.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] if the name is empty, if the capacity is 0, or if `max_bytes` is 0. Also if there is no weigher,
    ///   and values have a destructor, as all types that own heap memory have.
    /// - [`AllocationError`](crate::core::AllocationError) if the slots do not fit the heap.
    /// - [`Refused`](crate::budget::Refused) if the budget refuses the slots.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::WeightedQueue;
    ///
    /// let error = WeightedQueue::<String>::options("lines").build().unwrap_err();
    /// assert!(error.to_string().starts_with("option `queue.weigher` of `lines`"));
    /// ```
    pub fn build(self) -> Result<WeightedQueue<T>, MemoryError> {
        let Self { name, budget: above, capacity, max_bytes, weigher } = self;
        let weigher = match weigher {
            Some(weigher) => weigher,
            None if needs_drop::<T>() => {
                let kind = type_name::<T>();
                let allowed = format!(
                    "a function: `{kind}` may own heap memory, which `size_of` does not count"
                );
                return Err(ConfigError::new("queue.weigher", "nothing", allowed).of(name).into());
            }
            None => Box::new(|_: &T| 0),
        };
        if capacity == 0 {
            let error = ConfigError::new("queue.capacity", "0", "at least 1");
            return Err(error.of(name).into());
        }
        let budget = Budget::below(above.as_ref(), "queue", &name, max_bytes)?;
        // Whoever pops a value releases its bytes.
        budget.passes_between_tasks();
        let queue = match &above {
            Some(above) => Queue::try_with_capacity_in(capacity, above),
            None => Queue::try_with_capacity(capacity),
        };
        Ok(WeightedQueue {
            queue: queue?,
            slots: Permits::new(&budget, capacity),
            weigher,
            pops: Wakers::default(),
            flags: AtomicU32::new(0),
            budget,
        })
    }
}

impl<T> fmt::Debug for WeightedQueueOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedQueueOptions")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
