//! The budget of a context, and the permission to cancel a context.

use super::Budget;
use crate::{
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable},
    integration::traits::{Cancellation, Context, ContextBuilder},
};
use std::sync::Arc;

impl ContextBuilder {
    /// Sets the budget that the context's work reserves from; see [`Budget::current`].
    ///
    /// The ledger then knows the tasks of this budget: the threads that are in the context and the futures that
    /// run in it. A deadlock is proven if all of them wait, and all reservations of the budget were made in such
    /// a context. If a thread outside of the context reserves from the budget too, the budget's tasks count as
    /// unknown. The ledger does not see that a task moves a reservation to another thread, so enter the context
    /// on that thread too.
    pub fn budget(self, budget: &Budget) -> Self {
        self.extension(budget.clone()).with_tasks(Some(budget.node.tasks()))
    }
}

impl Context {
    /// Returns the context's own budget, or else the budget that it inherits.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.extension()
    }
}

impl Budget {
    /// Returns the budget of the context that this thread is in; `None` without one. Use it in code that is not
    /// passed a budget.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, integration::traits::Context};
    ///
    /// let process = Budget::root("process").limit(1 << 20).build()?;
    /// let tenant = process.child("tenant-a").build()?;
    /// let context = Context::root("tenant-a").budget(&tenant).build();
    ///
    /// let scratch = context.run(|| {
    ///     let budget = Budget::current().expect("the context has one");
    ///     budget.try_reserve(4096)
    /// })?;
    /// assert_eq!(tenant.usage().used, scratch.size());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        Context::current()?.budget().cloned()
    }

    /// Allows the ledger to [cancel](Context::cancel) a context whose work holds memory of this node. The
    /// permission is a manager of the class [`Cancel`](ReclaimClass::Cancel), and ends when the returned handle is
    /// dropped.
    ///
    /// The ledger cancels the context only for a request that waits, and only if no other memory can be
    /// reclaimed. Of several contexts, it first cancels the context whose tenant borrows most; if these are equal, the
    /// context with the lowest priority. The memory is released when the work reaches its next
    /// [checkpoint](crate::integration::traits::checkpoint).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, integration::traits::{Context, checkpoint}};
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let batch = process.child("batch").workers(2).build()?;
    /// let context = Context::root("report").budget(&batch).build();
    /// std::thread::scope(|scope| {
    ///     let held = batch.try_reserve(800)?;
    ///     let permit = batch.allow_cancel(&context);
    ///     scope.spawn(|| context.run(|| {
    ///         while checkpoint().is_ok() { std::thread::yield_now() } // some work
    ///         drop((held, permit));
    ///     }));
    ///     let urgent = process.reserve_blocking(500)?;
    ///     assert!(context.cancellation().is_cancelled());
    /// #   drop(urgent);
    ///     Ok(())
    /// })
    /// # .map_err(|error: nebula_memory::MemoryError| error)
    /// # ?; Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use = "the permission ends when this is dropped"]
    pub fn allow_cancel(&self, context: &Context) -> Arc<dyn MemoryManager> {
        let permitted = Arc::new(Permitted {
            name: context.name().into(),
            cancellation: context.cancellation().clone(),
            budget: self.clone(),
        });
        self.register(&permitted);
        permitted
    }
}

/// The permission of the ledger to cancel a context.
struct Permitted {
    name: std::boxed::Box<str>,
    cancellation: Cancellation,
    budget: Budget,
}

impl MemoryUsage for Permitted {
    fn used_bytes(&self) -> usize {
        // The node counts the bytes.
        0
    }

    fn peak_bytes(&self) -> usize {
        0
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Permitted {
    fn name(&self) -> &str {
        &self.name
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cancel
    }

    fn reclaimable(&self) -> Reclaimable {
        if self.cancellation.is_cancelled() {
            return Reclaimable::NOTHING;
        }
        Reclaimable::new(self.budget.usage().used, 1)
    }

    /// A reclaim only cancels the work, and the bytes are released later.
    fn is_inline_safe(&self) -> bool {
        false
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        self.cancellation.cancel();
        Progress::NOTHING
    }
}
