//! Allocators by name, one of them active, and blocks that find their way back.
//!
//! ```text
//!   request ──► active in this thread? ──► class of its size? ──► default
//!                                │
//!   block   ┌────────────────────┼─────────────────┬───────┐
//!           │ bytes as asked for ▼                 │ owner │ 8 bytes
//!           └──────────────────────────────────────┴───┬───┘
//!   free    ──────────────────────────────────────────►└──► entry { name, allocator }
//! ```
//!
//! The owner is a counted reference behind the block's last byte, where it costs the same at every
//! alignment; a free reads it, and nothing else: no lock, no table, no matter what is active now.
//! As each block counts, an allocator that is unregistered stays until its last block is freed.

#[cfg(debug_assertions)]
mod live;
mod scope;

use super::{AllocError, Allocator};
use crate::{
    core::ConfigError,
    macros::{forward_allocator, forward_to_allocator_api2},
    utils::sync::{RwLock, read, write},
};
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    mem::{self, ManuallyDrop},
    ptr::NonNull,
};
use std::{
    boxed::Box,
    panic::{AssertUnwindSafe, catch_unwind},
    string::String,
    sync::Arc,
    thread_local,
    vec::Vec,
};

/// What lies behind each block: an [`Arc`] of an entry, as a raw pointer at any alignment.
type Owner = *const Entry;

/// Named allocators, of which a request goes to the one that is active.
///
/// In this order: the one that [`with_active`](Self::with_active) has switched this thread to, the
/// one for the [class](Self::route_up_to) of the size, the default. A block that is freed, or changes
/// its size, always goes to the allocator that it came from; only if that one cannot make it larger
/// does it move.
///
/// A registered allocator may have its memory from a manager, of which up to 16 may be nested. One that leads back
/// to itself, as where a manager is its own default, refuses every request; and it is never freed, as it holds
/// itself.
///
/// A cheap handle: clones are the same manager. All allocators are shared by threads, and reached by
/// one virtual call; [`get`](Self::get) gives one of them out, for those who know which they want.
///
/// # Complexity
///
/// 8 bytes per block; a request takes a lock for reading, unless a scope decides it, and counts a
/// reference; a free only counts one. With debug assertions a table of all blocks is kept too.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{AllocatorManager, SystemAllocator, TrackedAllocator, TypedAllocator};
/// use nebula_memory::allocator::stats::SharedCounters;
/// use std::sync::Arc;
///
/// let tracked = Arc::new(TrackedAllocator::with_counters(SystemAllocator, SharedCounters::new()));
/// let manager = AllocatorManager::new("system", SystemAllocator)?;
/// let tenant = manager.register("tenant-a", Arc::clone(&tracked))?;
///
/// let theirs = manager.with_active(&tenant, || (&manager).alloc_value([1_u8; 100]))?;
/// assert_eq!(tracked.stats().live_blocks(), 1);
/// drop(theirs); // goes back to the tenant's allocator, though the default is active again
/// assert_eq!(tracked.stats().live_blocks(), 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone)]
pub struct AllocatorManager {
    shared: Arc<Shared>,
}

struct Shared {
    routing: RwLock<Routing>,
    #[cfg(debug_assertions)]
    live: live::LiveBlocks,
}

struct Routing {
    /// In the order of registration, each name once.
    entries: Vec<Arc<Entry>>,
    /// One of `entries`.
    default: Arc<Entry>,
    /// The largest size of each class, ascending, with one of `entries`.
    classes: Vec<(usize, Arc<Entry>)>,
}

impl Routing {
    fn find(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| *entry.name == *name)
    }

    fn known(&self, key: &str, name: &str) -> Result<&Arc<Entry>, ConfigError> {
        self.find(name).ok_or_else(|| ConfigError::new(key, name, "a registered allocator's name"))
    }

    fn for_size(&self, size: usize) -> &Arc<Entry> {
        let class = self.classes.iter().find(|(up_to, _)| size <= *up_to);
        class.map_or(&self.default, |(_, entry)| entry)
    }
}

/// A named allocator, kept by the registry, by handles and by blocks.
struct Entry {
    name: Box<str>,
    allocator: ManuallyDrop<Box<dyn Allocator + Send + Sync>>,
}

impl Entry {
    fn new(
        name: &str,
        allocator: impl Allocator + Send + Sync + 'static,
    ) -> Result<Arc<Self>, ConfigError> {
        if name.is_empty() {
            let key = "allocator_manager.register";
            return Err(ConfigError::new(key, "", "a name that is not empty"));
        }
        let allocator = ManuallyDrop::new(Box::new(allocator) as Box<_>);
        Ok(Arc::new(Self { name: name.into(), allocator }))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: the allocator is not used again, being dropped.
        let allocator = unsafe { ManuallyDrop::take(&mut self.allocator) };
        // Often inside a `deallocate`, which must not unwind; the panic was reported when it began.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(allocator))) {
            mem::forget(panic);
        }
    }
}

impl AllocatorManager {
    /// A manager with one allocator, the default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an empty name.
    ///
    /// # Examples
    ///
    /// See [`AllocatorManager`].
    pub fn new(
        name: &str,
        default: impl Allocator + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let default = Entry::new(name, default)?;
        let entries = Vec::from([Arc::clone(&default)]);
        let routing = RwLock::new(Routing { entries, default, classes: Vec::new() });
        let shared = Shared {
            routing,
            #[cfg(debug_assertions)]
            live: live::LiveBlocks::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Adds an allocator.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a name that is empty or taken.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, while requests wait.
    ///
    /// # Examples
    ///
    /// See [`AllocatorManager`].
    pub fn register(
        &self,
        name: &str,
        allocator: impl Allocator + Send + Sync + 'static,
    ) -> Result<AllocatorHandle, ConfigError> {
        let entry = Entry::new(name, allocator)?;
        let mut routing = write(&self.shared.routing);
        if routing.find(name).is_some() {
            // What was passed is dropped without the lock.
            drop(routing);
            let key = "allocator_manager.register";
            return Err(ConfigError::new(key, name, "a name that is not taken"));
        }
        routing.entries.push(Arc::clone(&entry));
        Ok(AllocatorHandle { entry })
    }

    /// Takes an allocator off the list, with the classes of sizes that it had. It stays until the
    /// handle is dropped, all its scopes are left, and all its blocks are freed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unknown name, and for the default.
    ///
    /// # Complexity
    ///
    /// A walk over the names and the classes, while requests wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator, TypedAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// let other = manager.register("other", SystemAllocator)?;
    /// let value = manager.with_active(&other, || (&manager).alloc_value(7))?;
    /// drop((other, manager.unregister("other")?));
    /// assert!(manager.get("other").is_none());
    /// drop(value); // and with it the allocator
    /// assert!(manager.unregister("system").is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn unregister(&self, name: &str) -> Result<AllocatorHandle, ConfigError> {
        const KEY: &str = "allocator_manager.unregister";
        let mut routing = write(&self.shared.routing);
        let entry = Arc::clone(routing.known(KEY, name)?);
        if Arc::ptr_eq(&entry, &routing.default) {
            return Err(ConfigError::new(KEY, name, "an allocator that is not the default"));
        }
        // None of these is the last reference, so that no foreign code runs inside the lock.
        routing.entries.retain(|other| !Arc::ptr_eq(other, &entry));
        routing.classes.retain(|(_, other)| !Arc::ptr_eq(other, &entry));
        Ok(AllocatorHandle { entry })
    }

    /// The allocator of that name.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, beside requests.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator, TypedAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// let system = manager.get("system").expect("registered above");
    /// assert_eq!(*(&system).alloc_value(7)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn get(&self, name: &str) -> Option<AllocatorHandle> {
        let entry = read(&self.shared.routing).find(name).map(Arc::clone)?;
        Some(AllocatorHandle { entry })
    }

    /// The names, in the order of registration.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator};
    ///
    /// assert_eq!(AllocatorManager::new("system", SystemAllocator)?.names(), ["system"]);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        read(&self.shared.routing).entries.iter().map(|entry| String::from(&*entry.name)).collect()
    }

    /// Makes another allocator the default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unknown name.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, while requests wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// manager.register("other", SystemAllocator)?;
    /// manager.set_default("other")?;
    /// assert_eq!(manager.active(1).name(), "other");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn set_default(&self, name: &str) -> Result<(), ConfigError> {
        let mut routing = write(&self.shared.routing);
        routing.default = Arc::clone(routing.known("allocator_manager.default", name)?);
        Ok(())
    }

    /// Sends requests of up to `bytes` bytes to an allocator, unless a smaller class takes them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unknown name.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, while requests wait. A request looks through the classes of
    /// smaller sizes than its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// manager.register("small", SystemAllocator)?;
    /// manager.route_up_to(64, "small")?;
    /// assert_eq!([64, 65].map(|size| manager.active(size).name().to_owned()), ["small", "system"]);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn route_up_to(&self, bytes: usize, name: &str) -> Result<(), ConfigError> {
        let mut routing = write(&self.shared.routing);
        let entry = Arc::clone(routing.known("allocator_manager.route_up_to", name)?);
        match routing.classes.binary_search_by_key(&bytes, |(up_to, _)| *up_to) {
            Ok(at) => routing.classes[at].1 = entry,
            Err(at) => routing.classes.insert(at, (bytes, entry)),
        }
        Ok(())
    }

    /// The allocator that a request of `size` bytes by this thread would go to.
    ///
    /// # Complexity
    ///
    /// As a request's: a walk over this thread's scopes, and where none is this manager's a lock for
    /// reading and a look through the classes.
    ///
    /// # Examples
    ///
    /// See [`route_up_to`](Self::route_up_to).
    #[must_use]
    pub fn active(&self, size: usize) -> AllocatorHandle {
        AllocatorHandle { entry: self.owner_for(size) }
    }

    /// Runs `work` with all requests of this thread to this manager going to `allocator`; what was
    /// active before is so again afterwards, even if `work` panics. Scopes nest.
    ///
    /// # Complexity
    ///
    /// Two writes to a thread-local, and a counted reference. No lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// let other = manager.register("other", SystemAllocator)?;
    /// manager.with_active(&other, || assert_eq!(manager.active(1).name(), "other"));
    /// assert_eq!(manager.active(1).name(), "system");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn with_active<R>(&self, allocator: &AllocatorHandle, work: impl FnOnce() -> R) -> R {
        scope::enter(&self.shared, &allocator.entry, work)
    }

    #[inline]
    fn owner_for(&self, size: usize) -> Arc<Entry> {
        scope::active(&self.shared)
            .unwrap_or_else(|| Arc::clone(read(&self.shared.routing).for_size(size)))
    }

    /// A block by `request`, with its owner behind it.
    fn allocate_by(
        &self,
        layout: Layout,
        owner: Arc<Entry>,
        request: impl FnOnce(&dyn Allocator, Layout) -> Result<NonNull<[u8]>, AllocError>,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let below = with_owner(layout)?;
        let block = nested(|| request(&**owner.allocator, below))?.cast();
        // SAFETY: the block is `below`'s size, and new.
        Ok(unsafe { self.hand_out(block, layout, Arc::into_raw(owner)) })
    }

    /// Writes the owner behind the block.
    ///
    /// # Safety
    ///
    /// 1. `block` is allocated by `owner`, with the layout [`with_owner`] of `layout`.
    /// 2. `owner` comes from [`Arc::into_raw`], and the block takes that reference over.
    unsafe fn hand_out(&self, block: NonNull<u8>, layout: Layout, owner: Owner) -> NonNull<[u8]> {
        // SAFETY: within the block, which is longer by an owner (1).
        let behind = unsafe { block.add(layout.size()) };
        // SAFETY: valid for an owner (1), written at any alignment.
        unsafe { behind.cast::<Owner>().write_unaligned(owner) };
        #[cfg(debug_assertions)]
        self.shared.live.insert(block, layout, owner.addr());
        NonNull::slice_from_raw_parts(block, layout.size())
    }

    /// The owner of a block, which is about to be freed or resized.
    ///
    /// # Panics
    ///
    /// With debug assertions, where the block is not one of this manager's, is free already, has
    /// another layout, or was written to beyond its end.
    ///
    /// # Safety
    ///
    /// `block` is currently allocated by this manager, and `layout` fits it.
    #[inline]
    unsafe fn owner_of(&self, block: NonNull<u8>, layout: Layout) -> Owner {
        #[cfg(debug_assertions)]
        let known = self.shared.live.remove(block, layout);
        // SAFETY: within the block below, which is longer by an owner: a layout that fits has the
        // size asked for, as a block is handed out at that length.
        let behind = unsafe { block.add(layout.size()) };
        // SAFETY: `hand_out` wrote it there.
        let owner = unsafe { behind.cast::<Owner>().read_unaligned() };
        #[cfg(debug_assertions)]
        live::assert_not_overrun(block, layout, known == owner.addr());
        owner
    }

    /// # Safety
    ///
    /// As [`Allocator::grow`].
    unsafe fn grow_by(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        fresh: Fresh,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() >= old.size(), "grow to a smaller size");
        let (below, larger) = (with_owner(old)?, with_owner(new)?);
        // SAFETY: the caller's promises.
        let owner = unsafe { self.owner_of(block, old) };
        // SAFETY: the block holds a reference to it.
        let allocator = unsafe { &*owner }.allocator.as_ref();
        let grown = match fresh {
            // SAFETY: the block is the owner's, with the layout `below`, as `larger` is larger.
            Fresh::Anything => unsafe { allocator.grow(block, below, larger) },
            // SAFETY: as above.
            Fresh::Zero => unsafe { allocator.grow_zeroed(block, below, larger) },
        };
        if let Ok(grown) = grown {
            let grown = grown.cast::<u8>();
            if fresh == Fresh::Zero {
                // The owner was behind the old block: not zero, and copied along.
                // SAFETY: within the block, which is longer.
                let was = unsafe { grown.add(old.size()) };
                // SAFETY: as above, as an owner lies behind its last byte.
                unsafe { was.write_bytes(0, size_of::<Owner>()) };
            }
            // SAFETY: allocated with `larger` now; the old block's reference goes to the new one.
            return Ok(unsafe { self.hand_out(grown, new, owner) });
        }
        // SAFETY: allocated with `below` still, and the reference its own, which it gets back.
        let _ = unsafe { self.hand_out(block, old, owner) };
        // The owner has no block of that size: perhaps another one's class it is.
        let next = self.owner_for(new.size());
        if Arc::as_ptr(&next) == owner {
            return Err(AllocError);
        }
        let target = self.allocate_by(new, next, |next, layout| match fresh {
            Fresh::Anything => next.allocate(layout),
            Fresh::Zero => next.allocate_zeroed(layout),
        })?;
        // SAFETY: the caller's promises; `old.size()` is within both blocks.
        unsafe { super::traits::relocate(self, block, old, target, old.size()) };
        Ok(target)
    }
}

/// Requests within requests, of one thread: an allocator may be registered that has its memory from a manager.
const MOST_NESTED: u32 = 16;

/// Runs a request of a registered allocator, unless that has led back here too often: a manager that is its
/// own default would otherwise ask itself until the stack overflows.
fn nested<R>(request: impl FnOnce() -> Result<R, AllocError>) -> Result<R, AllocError> {
    thread_local! {
        static NESTED: Cell<u32> = const { Cell::new(0) };
    }
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            NESTED.set(NESTED.get() - 1);
        }
    }
    if NESTED.get() == MOST_NESTED {
        return Err(AllocError);
    }
    NESTED.set(NESTED.get() + 1);
    let _leave = Leave;
    request()
}

/// What the bytes are that a block grows by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Anything,
    Zero,
}

/// The layout of a block with its owner behind it.
#[inline]
fn with_owner(layout: Layout) -> Result<Layout, AllocError> {
    let size = layout.size() + size_of::<Owner>(); // A layout's size is at most `isize::MAX`.
    Layout::from_size_align(size, layout.align()).map_err(|_| AllocError)
}

// SAFETY: a block is the first bytes of a block of an allocator that its reference behind it keeps,
// and goes back there with the layout it was asked with: the size asked for and the size returned
// are the same, so that no other fits. Clones share all of this. Nothing unwinds, but for misuse with
// debug assertions: a registered allocator that is dropped with its last block is dropped quietly.
unsafe impl Allocator for AllocatorManager {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.owner_for(layout.size()), |owner, below| {
            owner.allocate(below)
        })
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.owner_for(layout.size()), |owner, below| {
            owner.allocate_zeroed(below)
        })
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // A block has such a layout, or it would not have been handed out.
        let Ok(below) = with_owner(layout) else { return };
        // SAFETY: the caller's promises.
        let owner = unsafe { self.owner_of(block, layout) };
        // SAFETY: `hand_out` took it from `into_raw`, and the block is the one that it kept it for.
        let owner = unsafe { Arc::from_raw(owner) };
        // SAFETY: the block is the owner's, with this layout.
        unsafe { owner.allocator.deallocate(block, below) };
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises.
        unsafe { self.grow_by(block, old, new, Fresh::Anything) }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises.
        unsafe { self.grow_by(block, old, new, Fresh::Zero) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        debug_assert!(new.size() <= old.size(), "shrink to a larger size");
        let (below, smaller) = (with_owner(old)?, with_owner(new)?);
        // SAFETY: the caller's promises.
        let owner = unsafe { self.owner_of(block, old) };
        // SAFETY: the block holds a reference to it.
        let allocator = unsafe { &*owner }.allocator.as_ref();
        // SAFETY: the block is the owner's, with the layout `below`, as `smaller` is smaller.
        match unsafe { allocator.shrink(block, below, smaller) } {
            // SAFETY: allocated with `smaller` now; the old block's reference goes to the new one.
            Ok(block) => Ok(unsafe { self.hand_out(block.cast(), new, owner) }),
            Err(error) => {
                // SAFETY: allocated with `below` still, and the reference its own.
                let _ = unsafe { self.hand_out(block, old, owner) };
                Err(error)
            }
        }
    }
}

forward_to_allocator_api2!(impl[] for AllocatorManager);

impl fmt::Debug for AllocatorManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = AllocatorHandle { entry: Arc::clone(&read(&self.shared.routing).default) };
        f.debug_struct("AllocatorManager")
            .field("allocators", &self.names())
            .field("default", &default.name())
            .finish_non_exhaustive()
    }
}

/// One of a manager's allocators, for whoever knows which one it wants.
///
/// A block from here costs nothing beside itself, and goes back through this handle or a clone, not
/// through the manager. The allocator stays as long as a handle does, registered or not.
///
/// # Complexity
///
/// One virtual call beside the allocator's own cost. A clone counts a reference.
///
/// # Examples
///
/// See [`AllocatorManager::get`].
#[derive(Clone)]
pub struct AllocatorHandle {
    entry: Arc<Entry>,
}

impl AllocatorHandle {
    /// The name that it was registered with.
    ///
    /// # Examples
    ///
    /// See [`AllocatorManager::set_default`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }
}

// The entry, and with it the allocator, stays as long as a handle does.
forward_allocator!(impl[] for AllocatorHandle, |this| **this.entry.allocator);
forward_to_allocator_api2!(impl[] for AllocatorHandle);

impl fmt::Debug for AllocatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllocatorHandle").field(&self.name()).finish()
    }
}
