//! Allocators by name, one of them the default, which may change while blocks are in use.
//!
//! ```text
//!   request ──► default ──► entry { name, allocator }
//!                                      ▲
//!   block   ┌──────────────────────┬───┴───┐
//!           │ bytes as asked for   │ owner │ 8 bytes
//!           └──────────────────────┴───┬───┘
//!   free    ───────────────────────────┘
//! ```
//!
//! The owner is a counted reference behind the block's last byte, where it costs the same at every
//! alignment. A free reads it, and nothing else: no lock, and no matter which allocator is the default now.
//! As each block counts, an allocator that is unregistered stays until its last block is freed.

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

/// Named allocators, one of which serves all requests: the default, which may be changed at any time.
///
/// A block that is freed or changes its size always goes to the allocator that it came from. It moves to the
/// default only if its own allocator cannot make it larger.
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
/// 8 bytes per block. A request takes a lock for reading, and counts a reference; a free only counts one.
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
/// manager.register("tracked", Arc::clone(&tracked))?;
///
/// manager.set_default("tracked")?;
/// let value = (&manager).alloc_value([1_u8; 100])?;
/// manager.set_default("system")?;
/// assert_eq!(tracked.stats().live_blocks(), 1);
/// drop(value); // goes back to where it came from
/// assert_eq!(tracked.stats().live_blocks(), 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone)]
pub struct AllocatorManager {
    registry: Arc<RwLock<Registry>>,
}

struct Registry {
    /// In the order of registration, each name once.
    entries: Vec<Arc<Entry>>,
    /// One of `entries`.
    default: Arc<Entry>,
}

impl Registry {
    fn find(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| *entry.name == *name)
    }

    fn known(&self, key: &str, name: &str) -> Result<&Arc<Entry>, ConfigError> {
        self.find(name).ok_or_else(|| ConfigError::new(key, name, "a registered allocator's name"))
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
        Ok(Self { registry: Arc::new(RwLock::new(Registry { entries, default })) })
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
        let mut registry = write(&self.registry);
        if registry.find(name).is_some() {
            // What was passed is dropped without the lock.
            drop(registry);
            let key = "allocator_manager.register";
            return Err(ConfigError::new(key, name, "a name that is not taken"));
        }
        registry.entries.push(Arc::clone(&entry));
        Ok(AllocatorHandle { entry })
    }

    /// Takes an allocator off the list. It stays until the handle is dropped and all its blocks are freed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unknown name, and for the default.
    ///
    /// # Complexity
    ///
    /// A walk over the names, while requests wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{AllocatorManager, SystemAllocator, TypedAllocator};
    ///
    /// let manager = AllocatorManager::new("system", SystemAllocator)?;
    /// let other = manager.register("other", SystemAllocator)?;
    /// manager.set_default("other")?;
    /// let value = (&manager).alloc_value(7)?;
    /// manager.set_default("system")?;
    /// drop((other, manager.unregister("other")?));
    /// assert!(manager.get("other").is_none());
    /// drop(value); // and with it the allocator
    /// assert!(manager.unregister("system").is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn unregister(&self, name: &str) -> Result<AllocatorHandle, ConfigError> {
        const KEY: &str = "allocator_manager.unregister";
        let mut registry = write(&self.registry);
        let entry = Arc::clone(registry.known(KEY, name)?);
        if Arc::ptr_eq(&entry, &registry.default) {
            return Err(ConfigError::new(KEY, name, "an allocator that is not the default"));
        }
        // None of these is the last reference, so that no foreign code runs inside the lock.
        registry.entries.retain(|other| !Arc::ptr_eq(other, &entry));
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
        let entry = read(&self.registry).find(name).map(Arc::clone)?;
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
        read(&self.registry).entries.iter().map(|entry| String::from(&*entry.name)).collect()
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
    /// assert_eq!(manager.default_allocator().name(), "other");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn set_default(&self, name: &str) -> Result<(), ConfigError> {
        let mut registry = write(&self.registry);
        registry.default = Arc::clone(registry.known("allocator_manager.default", name)?);
        Ok(())
    }

    /// The allocator that requests go to.
    ///
    /// # Examples
    ///
    /// See [`set_default`](Self::set_default).
    #[must_use]
    pub fn default_allocator(&self) -> AllocatorHandle {
        AllocatorHandle { entry: self.default_entry() }
    }

    #[inline]
    fn default_entry(&self) -> Arc<Entry> {
        Arc::clone(&read(&self.registry).default)
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
        Ok(unsafe { hand_out(block, layout, Arc::into_raw(owner)) })
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
        let owner = unsafe { owner_of(block, old) };
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
            return Ok(unsafe { hand_out(grown, new, owner) });
        }
        // The owner has no block of that size. The default may have.
        let next = self.default_entry();
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

/// Writes the owner behind the block.
///
/// # Safety
///
/// 1. `block` is allocated by `owner`, with the layout [`with_owner`] of `layout`.
/// 2. `owner` comes from [`Arc::into_raw`], and the block takes that reference over.
unsafe fn hand_out(block: NonNull<u8>, layout: Layout, owner: Owner) -> NonNull<[u8]> {
    // SAFETY: within the block, which is longer by an owner (1).
    let behind = unsafe { block.add(layout.size()) };
    // SAFETY: valid for an owner (1), written at any alignment.
    unsafe { behind.cast::<Owner>().write_unaligned(owner) };
    NonNull::slice_from_raw_parts(block, layout.size())
}

/// The owner of a block.
///
/// # Safety
///
/// `block` is currently allocated by a manager, and `layout` fits it.
#[inline]
unsafe fn owner_of(block: NonNull<u8>, layout: Layout) -> Owner {
    // SAFETY: within the block below, which is longer by an owner: a layout that fits has the
    // size asked for, as a block is handed out at that length.
    let behind = unsafe { block.add(layout.size()) };
    // SAFETY: `hand_out` wrote it there.
    unsafe { behind.cast::<Owner>().read_unaligned() }
}

/// The layout of a block with its owner behind it.
#[inline]
fn with_owner(layout: Layout) -> Result<Layout, AllocError> {
    let size = layout.size() + size_of::<Owner>(); // A layout's size is at most `isize::MAX`.
    Layout::from_size_align(size, layout.align()).map_err(|_| AllocError)
}

// SAFETY: a block is the first bytes of a block of an allocator that its reference behind it keeps,
// and goes back there with the layout it was asked with: the size asked for and the size returned
// are the same, so that no other fits. Clones share all of this. Nothing unwinds: a registered allocator that is
// dropped with its last block is dropped quietly.
unsafe impl Allocator for AllocatorManager {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.default_entry(), |owner, below| owner.allocate(below))
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.default_entry(), |owner, below| owner.allocate_zeroed(below))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // A block has such a layout, or it would not have been handed out.
        let Ok(below) = with_owner(layout) else { return };
        // SAFETY: the caller's promises.
        let owner = unsafe { owner_of(block, layout) };
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
        let owner = unsafe { owner_of(block, old) };
        // SAFETY: the block holds a reference to it.
        let allocator = unsafe { &*owner }.allocator.as_ref();
        // SAFETY: the block is the owner's, with the layout `below`, as `smaller` is smaller.
        let shrunk = unsafe { allocator.shrink(block, below, smaller) }?;
        // SAFETY: allocated with `smaller` now; the old block's reference goes to the new one.
        Ok(unsafe { hand_out(shrunk.cast(), new, owner) })
    }
}

forward_to_allocator_api2!(impl[] for AllocatorManager);

impl fmt::Debug for AllocatorManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocatorManager")
            .field("allocators", &self.names())
            .field("default", &self.default_allocator().name())
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
