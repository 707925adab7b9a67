//! Memory checkers report an access to freed memory.
//!
//! Each faulty access is a test that runs alone, in a child process, under a tool that must stop it.
#![cfg(all(
    feature = "sanitize",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
))]

use nebula_memory::{
    allocator::{
        Allocator, BlockPool, BumpAllocator, StackAllocator, TypedAllocator, bump::InlineBuffer,
    },
    arena::Arena,
};
use std::{alloc::Layout, hint::black_box, mem::MaybeUninit, process::Command, ptr::NonNull};

const CRIMES: [&str; 7] = [
    "of_a_pool",
    "of_a_shared_pool",
    "of_a_stack",
    "of_a_reset_arena",
    "of_a_scope",
    "of_a_fixed_region",
    "beyond_the_taken_block",
];

/// Whether the tests were built for AddressSanitizer, as `ci/asan.sh` does.
fn is_sanitized() -> bool {
    std::env::var("RUSTFLAGS").is_ok_and(|flags| flags.contains("sanitizer=address"))
}

/// Runs a faulty access under `tool`. Returns whether the access got away, and the error output.
fn commit(mut tool: Command, crime: &str) -> (bool, String) {
    let output = tool
        .args(["--exact", "--ignored", "--nocapture", &format!("crime::{crime}")])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn address_sanitizer_reports_access_to_unallocated_memory() {
    if !is_sanitized() {
        eprintln!("skipped: not built with -Zsanitizer=address, see ci/asan.sh");
        return;
    }
    for crime in CRIMES {
        let (got_away, report) = commit(Command::new(std::env::current_exe().unwrap()), crime);
        assert!(!got_away, "{crime}: {report}");
        assert!(report.contains("AddressSanitizer: use-after-poison"), "{crime}: {report}");
    }
}

#[test]
fn valgrind_reports_access_to_unallocated_memory() {
    if is_sanitized() || Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not installed, or AddressSanitizer is in its place");
        return;
    }
    let valgrind = || {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=99"]).arg(std::env::current_exe().unwrap());
        valgrind
    };
    let (innocent, report) = commit(valgrind(), "none");
    assert!(innocent, "{report}");
    for crime in CRIMES {
        let (got_away, report) = commit(valgrind(), crime);
        assert!(!got_away && report.contains("Invalid read of size 1"), "{crime}: {report}");
    }
}

/// The tests above run these, and nothing else does.
mod crime {
    use super::*;

    const WORDS: Layout = Layout::new::<[u64; 8]>();

    fn read(block: NonNull<u8>, at: usize) {
        // SAFETY: none: the block was freed; its bytes belong to the allocator, and are still mapped.
        let byte = unsafe { block.add(at) };
        // SAFETY: as above.
        black_box(unsafe { byte.read_volatile() });
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_pool() {
        let pool = BlockPool::for_type::<[u64; 8]>().build().unwrap();
        let block = pool.take_block().unwrap();
        // SAFETY: taken above.
        unsafe { pool.free_block(block) };
        read(block, 40);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_shared_pool() {
        let pool = BlockPool::for_type::<[u64; 8]>().build_shared().unwrap();
        let block = pool.take_block().unwrap();
        // SAFETY: taken above.
        unsafe { pool.free_block(block) };
        read(block, 0);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_stack() {
        let mut stack = StackAllocator::with_capacity(1024).unwrap();
        let block = {
            let frame = stack.frame();
            (&*frame).allocate(WORDS).unwrap().cast()
        };
        read(block, 40);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_reset_arena() {
        let mut arena = Arena::new();
        arena.alloc(1_u64);
        let block = NonNull::from(arena.alloc([7_u64; 8])).cast();
        arena.reset();
        arena.alloc(1_u64);
        read(block, 0);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_scope() {
        let mut arena = Arena::new();
        arena.alloc(1_u64);
        let block = arena.scope(|scope| NonNull::from(scope.alloc([7_u64; 8])).cast());
        read(block, 40);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn of_a_fixed_region() {
        let mut buffer = InlineBuffer::<256>::new();
        let mut bump = BumpAllocator::over(buffer.as_uninit());
        let block = (&bump).allocate(WORDS).unwrap().cast();
        bump.reset();
        read(block, 8);
    }

    #[test]
    #[ignore = "run in a process of its own"]
    fn beyond_the_taken_block() {
        let pool = BlockPool::for_type::<[u64; 8]>().build().unwrap();
        read(pool.take_block().unwrap(), 64);
    }

    /// Blocks in use may be accessed again and again, and so may memory that the allocators returned.
    #[test]
    #[ignore = "run in a process of its own"]
    fn none() {
        let pool = BlockPool::for_type::<[u64; 8]>().first_slab_blocks(2).build().unwrap();
        let shared = BlockPool::for_type::<[u64; 8]>().build_shared().unwrap();
        let mut stack = StackAllocator::with_capacity(1024).unwrap();
        for round in 0..10_usize {
            let blocks = [(); 5].map(|()| pool.take_block().unwrap());
            let others = [(); 100].map(|()| shared.take_block().unwrap());
            let mut arena = Arena::new();
            let mut buffer = InlineBuffer::<128>::new();
            for _ in 0..3 {
                let inline = Arena::with_buffer(buffer.as_uninit());
                for size in [1, 100, 5000] {
                    arena.alloc_slice_fill_with(size, |_| 7_u8);
                    inline.alloc_slice_fill_with(size, |_| 7_u8);
                    arena.scope(|scope| scope.alloc_fmt(format_args!("{size}{round}")).len());
                    arena.cursor().alloc(size);
                }
                arena.reset();
            }
            arena.trim(0);
            buffer.as_uninit().fill(MaybeUninit::new(1));
            let own = StackAllocator::from_region(InlineBuffer::<256>::new());
            drop(own.alloc_value([7_u8; 100]).unwrap());
            drop(Box::new(own)); // reads free memory
            let frame = stack.frame();
            let third = (&*frame).allocate(WORDS).unwrap().cast::<u8>();
            for block in blocks.into_iter().chain(others).chain([third]) {
                // SAFETY: in use, and at least as long.
                unsafe { block.write_bytes(1, 64) };
                read(block, (63 * round) % 64);
            }
            for block in blocks {
                // SAFETY: taken above.
                unsafe { pool.free_block(block) };
            }
            for block in others {
                // SAFETY: taken above.
                unsafe { shared.free_block(block) };
            }
            assert_eq!(pool.free_blocks(), 8);
        }
    }
}
