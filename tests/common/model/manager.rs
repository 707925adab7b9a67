use super::*;
use nebula_memory::allocator::{AllocatorHandle, AllocatorManager};

/// The names under which allocators are registered.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// An allocator that tells which blocks are its own.
struct Base {
    inner: Awkward,
    starts: RefCell<Vec<usize>>,
}

impl Base {
    fn owns(&self, block: NonNull<u8>) -> bool {
        self.starts.borrow().contains(&block.addr().get())
    }
}

// SAFETY: every block is the inner allocator's.
unsafe impl Allocator for Base {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = self.inner.allocate(layout)?;
        self.starts.borrow_mut().push(block.cast::<u8>().addr().get());
        Ok(block)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        self.starts.borrow_mut().retain(|start| *start != block.addr().get());
        // SAFETY: the caller's promises.
        unsafe { self.inner.deallocate(block, layout) };
    }
}

/// The state that a manager must have: the numbers of allocators by name, and the default's number.
#[derive(Default)]
struct Routes {
    bases: Vec<Rc<Base>>,
    registered: Vec<(&'static str, usize)>,
    default: usize,
    names: usize,
}

impl Routes {
    fn new_base(&mut self) -> OneAtATime<Rc<Base>> {
        let inner = Awkward::new(self.bases.len() % 9);
        self.bases.push(Rc::new(Base { inner, starts: RefCell::default() }));
        OneAtATime(Rc::clone(self.bases.last().expect("just pushed")))
    }

    /// Returns the allocator that owns the block: exactly one does.
    fn owner_of(&self, block: NonNull<u8>) -> usize {
        let owners = self.bases.iter().enumerate().filter(|(_, base)| base.owns(block));
        let owners: Vec<_> = owners.map(|(at, _)| at).collect();
        assert_eq!(owners.len(), 1, "a block of one allocator's");
        owners[0]
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.registered.iter().find(|known| known.0 == name).map(|known| known.1)
    }
}

/// Runs a manager of allocators that come and go. Each request goes to the default allocator, and each block
/// back to its own allocator.
pub(crate) fn manager(codes: &[Code]) {
    let Some((_, mut ops)) = begin(codes) else { return };
    let mut routes = Routes::default();
    let manager = AllocatorManager::new("default", routes.new_base()).unwrap();
    routes.registered.push(("default", 0));
    let mut model = Model::default();
    run(&manager, &mut routes, &mut model, &mut ops);
    model.check();
    while model.pick(0, false).is_some() {
        model.step(&manager, Op::Free(0), false);
    }
    drop(manager);
    for base in &routes.bases {
        assert_eq!((base.inner.live().len(), Rc::strong_count(base)), (0, 1), "kept by nobody");
    }
}

fn run(manager: &AllocatorManager, routes: &mut Routes, model: &mut Model, ops: &mut Ops<'_>) {
    while let Some(op) = ops.next() {
        let name = |which: usize| NAMES[which % NAMES.len()];
        match op {
            Op::FailIn(calls) => {
                routes.bases[routes.default].inner.fails_in.set(calls);
            }
            // Sets another default.
            Op::Mark => {
                let (name, number) = routes.registered[routes.names % routes.registered.len()];
                routes.names += 1;
                manager.set_default(name).unwrap();
                routes.default = number;
            }
            Op::Reserve(bytes) => {
                let name = name(bytes);
                let base = routes.new_base();
                let number = routes.bases.len() - 1;
                let free = routes.number(name).is_none();
                assert_eq!(manager.register(name, base).is_ok(), free);
                if free {
                    routes.registered.push((name, number));
                }
            }
            Op::Release(which) => {
                let name = name(which);
                let known = routes.number(name).filter(|number| *number != routes.default);
                assert_eq!(manager.unregister(name).is_ok(), known.is_some());
                if let Some(number) = known {
                    routes.registered.retain(|other| other.1 != number);
                }
            }
            Op::Typed { which, len } => {
                let name = name(which.into());
                let handle = manager.get(name);
                assert_eq!(handle.is_some(), routes.number(name).is_some());
                if let (Some(handle), Some(number)) = (handle, routes.number(name)) {
                    by_name(&handle, routes, number, len);
                }
            }
            Op::Part(_) => {
                let op = ops.next();
                let op = op.filter(|op| matches!(op, Op::Allocate { .. } | Op::Free(_)));
                if let Some(op) = op {
                    on_a_thread(|| step(manager, routes, model, op));
                }
            }
            _ => step(manager, routes, model, op),
        }
        assert!(manager.names().iter().eq(routes.registered.iter().map(|known| known.0)));
        let default = routes.registered.iter().find(|known| known.1 == routes.default);
        assert_eq!(default.map(|known| known.0), Some(manager.default_allocator().name()));
        let out = routes.bases.iter().map(|base| base.inner.live().len()).sum::<usize>();
        assert_eq!(out, model.blocks.len());
    }
}

/// Allocates a block with the allocator's own handle.
fn by_name(handle: &AllocatorHandle, routes: &Routes, number: usize, len: usize) {
    let layout = Layout::array::<u16>(len % 1000).unwrap();
    if let Ok(block) = handle.allocate(layout) {
        let block = block.cast();
        assert_eq!(routes.owner_of(block), number);
        // SAFETY: the block is as long, and in use nowhere else.
        unsafe { block.write_bytes(7, layout.size()) };
        // SAFETY: just allocated there, with this layout.
        unsafe { handle.deallocate(block, layout) };
    }
}

fn step(manager: &AllocatorManager, routes: &Routes, model: &mut Model, op: Op) {
    let before: Vec<_> = model.blocks.iter().map(|block| (block.start, block.layout)).collect();
    let owners: Vec<_> = before.iter().map(|(start, _)| routes.owner_of(*start)).collect();
    model.step(manager, op, false);
    for block in &model.blocks {
        let owner = routes.owner_of(block.start);
        let known = before.iter().position(|known| *known == (block.start, block.layout));
        match (known, op) {
            (Some(at), _) => assert_eq!(owner, owners[at]),
            // The block still belongs to its allocator, or to the default if its own allocator had no memory.
            (None, Op::Resize { which, .. }) => {
                let mut raw = (0..before.len()).cycle();
                let was = raw.nth(which % before.len()).map(|at| owners[at]);
                assert!(was == Some(owner) || owner == routes.default);
            }
            (None, _) => assert_eq!(owner, routes.default),
        }
    }
}
