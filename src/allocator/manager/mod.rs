//! Named allocators. One of them is the default, which may change while blocks are in use.
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
//! The owner is a counted reference behind the block's last byte. There it costs the same at every
//! alignment. A free only reads the owner: it takes no lock, and does not depend on the current
//! default. Every block has a reference, so an unregistered allocator lives until its last block is
//! freed.

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

/// The reference behind each block: an [`Arc`] of an entry, as a raw pointer at any alignment.
type Owner = *const Entry;

/// Named allocators, one of which serves all requests: the default. The default may be changed at
/// any time.
///
/// A block is always freed and resized by the allocator that it came from. A block moves to the
/// default only if its own allocator cannot make the block larger.
///
/// A registered allocator may get its memory from a manager, and up to 16 managers may be nested.
/// An allocator that gets its memory from itself refuses every request, for example a manager that
/// is its own default. Such an allocator is never freed, because it holds a reference to itself.
///
/// Clones are cheap handles to the same manager. Threads share all allocators, and a request is one
/// virtual call. [`get`](Self::get) returns a handle to one allocator, for code that does not use
/// the default.
///
/// # Complexity
///
/// 8 bytes per block. A request takes a lock for reading, and increments a reference count. A free
/// only decrements a reference count.
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
    /// In the order of registration. No two have the same name.
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

/// A named allocator. The registry, handles and blocks hold references to it.
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
        // SAFETY: the allocator is not used again, as the entry is being dropped.
        let allocator = unsafe { ManuallyDrop::take(&mut self.allocator) };
        // This often runs inside a `deallocate`, which must not unwind. The panic was reported when
        // it began.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(allocator))) {
            mem::forget(panic);
        }
    }
}

impl AllocatorManager {
    /// Creates a manager with one allocator, the default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an empty name.
    pub fn new(
        name: &str,
        default: impl Allocator + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let default = Entry::new(name, default)?;
        let entries = Vec::from([Arc::clone(&default)]);
        Ok(Self { registry: Arc::new(RwLock::new(Registry { entries, default })) })
    }

    /// Registers an allocator.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the name is empty or taken.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, while requests wait.
    pub fn register(
        &self,
        name: &str,
        allocator: impl Allocator + Send + Sync + 'static,
    ) -> Result<AllocatorHandle, ConfigError> {
        let entry = Entry::new(name, allocator)?;
        let mut registry = write(&self.registry);
        if registry.find(name).is_some() {
            // The allocator that was passed in is dropped without the lock.
            drop(registry);
            let key = "allocator_manager.register";
            return Err(ConfigError::new(key, name, "a name that is not taken"));
        }
        registry.entries.push(Arc::clone(&entry));
        Ok(AllocatorHandle { entry })
    }

    /// Removes an allocator from the list, and returns a handle to it. The allocator stays until
    /// the handle is dropped and all its blocks are freed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unknown name, and for the default.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others, while requests wait.
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
        // None of these references is the last one, so no foreign code runs inside the lock.
        registry.entries.retain(|other| !Arc::ptr_eq(other, &entry));
        Ok(AllocatorHandle { entry })
    }

    /// Returns the allocator of that name.
    ///
    /// # Complexity
    ///
    /// Compares the name with all others. Requests do not wait meanwhile.
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

    /// Returns the names, in the order of registration.
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

    /// Makes a registered allocator the default.
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

    /// Returns the default, the allocator that requests go to.
    #[must_use]
    pub fn default_allocator(&self) -> AllocatorHandle {
        AllocatorHandle { entry: self.default_entry() }
    }

    #[inline]
    fn default_entry(&self) -> Arc<Entry> {
        Arc::clone(&read(&self.registry).default)
    }

    /// Allocates a block by `request`, with its owner behind it.
    fn allocate_by(
        &self,
        layout: Layout,
        owner: Arc<Entry>,
        request: impl FnOnce(&dyn Allocator, Layout) -> Result<NonNull<[u8]>, AllocError>,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let below = with_owner(layout)?;
        let block = nested(|| request(&**owner.allocator, below))?.cast();
        // SAFETY: 1. `owner` has just allocated the block with the layout `below`. 2. `into_raw`
        // gives the block a reference of its own.
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
        // SAFETY: the block holds a reference to its owner.
        let allocator = unsafe { &*owner }.allocator.as_ref();
        let grown = match fresh {
            // SAFETY: the block is the owner's, with the layout `below`, and `larger` is not
            // smaller.
            Fresh::Anything => unsafe { allocator.grow(block, below, larger) },
            // SAFETY: as above.
            Fresh::Zero => unsafe { allocator.grow_zeroed(block, below, larger) },
        };
        if let Ok(grown) = grown {
            let grown = grown.cast::<u8>();
            if fresh == Fresh::Zero {
                // The owner lay behind the old block and was copied along, so its bytes are not
                // zero.
                // SAFETY: the offset lies within the block, which is longer.
                let was = unsafe { grown.add(old.size()) };
                // SAFETY: as above, and the block is longer than `new.size()` by an owner.
                unsafe { was.write_bytes(0, size_of::<Owner>()) };
            }
            // SAFETY: 1. Allocated with `larger` now. 2. The old block's reference goes to the new
            // block.
            return Ok(unsafe { hand_out(grown, new, owner) });
        }
        // The owner has no block of that size. The default may have one.
        let next = self.default_entry();
        if Arc::as_ptr(&next) == owner {
            return Err(AllocError);
        }
        let target = self.allocate_by(new, next, |next, layout| match fresh {
            Fresh::Anything => next.allocate(layout),
            Fresh::Zero => next.allocate_zeroed(layout),
        })?;
        // SAFETY: 1 is the caller's promise; 2, `target` is a new block; 3, `old.size()` is within
        // both blocks.
        unsafe { super::traits::relocate(self, block, old, target, old.size()) };
        Ok(target)
    }
}

/// The most requests that one thread may nest. They nest if a registered allocator gets its memory
/// from a manager.
const MOST_NESTED: u32 = 16;

/// Runs a request of a registered allocator, or fails if too many requests are nested. Without this
/// limit, a manager that is its own default would call itself until the stack overflows.
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

/// The contents of the bytes that a block grows by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Anything,
    Zero,
}

/// Writes the owner behind a block.
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

/// Returns the owner of a block.
///
/// # Safety
///
/// `block` is currently allocated by a manager, and `layout` fits it.
#[inline]
unsafe fn owner_of(block: NonNull<u8>, layout: Layout) -> Owner {
    // SAFETY: within the inner block, which is longer by an owner. A layout that fits has the
    // requested size, as a block is handed out at that length.
    let behind = unsafe { block.add(layout.size()) };
    // SAFETY: `hand_out` wrote it there.
    unsafe { behind.cast::<Owner>().read_unaligned() }
}

/// Returns the layout of a block with its owner behind it.
#[inline]
fn with_owner(layout: Layout) -> Result<Layout, AllocError> {
    let size = layout.size() + size_of::<Owner>(); // A layout's size is at most `isize::MAX`.
    Layout::from_size_align(size, layout.align()).map_err(|_| AllocError)
}

// SAFETY: a block is the first bytes of a block of a registered allocator. The reference behind the
// block keeps that allocator alive. The block goes back to that allocator with the layout that it
// was requested with: the requested size and the returned size are the same, so no other layout
// fits. Clones share all of this. Nothing unwinds: if an allocator is dropped with its last block,
// a panic of its drop is caught.
unsafe impl Allocator for AllocatorManager {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.default_entry(), |owner, below| owner.allocate(below))
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_by(layout, self.default_entry(), |owner, below| owner.allocate_zeroed(below))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // Every block has such a layout, or it would not have been handed out.
        let Ok(below) = with_owner(layout) else { return };
        // SAFETY: the caller's promises.
        let owner = unsafe { owner_of(block, layout) };
        // SAFETY: `hand_out` stored a pointer from `into_raw`, and the block is the one that it was
        // stored for.
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
        // SAFETY: the block holds a reference to its owner.
        let allocator = unsafe { &*owner }.allocator.as_ref();
        // SAFETY: the block is the owner's, with the layout `below`, and `smaller` is not larger.
        let shrunk = unsafe { allocator.shrink(block, below, smaller) }?;
        // SAFETY: 1. Allocated with `smaller` now. 2. The old block's reference goes to the new
        // block.
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

/// A handle to one allocator of a manager. Use it to allocate from that allocator instead of the
/// default.
///
/// A block from a handle has no overhead. It must be freed through this handle or a clone, not
/// through the manager. The allocator lives at least as long as its handles, registered or not.
///
/// # Complexity
///
/// One virtual call in addition to the allocator's own cost. A clone increments a reference count.
#[derive(Clone)]
pub struct AllocatorHandle {
    entry: Arc<Entry>,
}

impl AllocatorHandle {
    /// Returns the name that the allocator was registered with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }
}

// A handle holds a reference to the entry, so the allocator stays as long as a handle does.
forward_allocator!(impl[] for AllocatorHandle, |this| **this.entry.allocator);
forward_to_allocator_api2!(impl[] for AllocatorHandle);

impl fmt::Debug for AllocatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllocatorHandle").field(&self.name()).finish()
    }
}
