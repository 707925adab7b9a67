//! Memory that nobody may touch, for the tools that watch every access.
//!
//! An allocator that keeps freed blocks hides from AddressSanitizer and from valgrind's memcheck that
//! they are free: to both, its slabs are blocks in use. With the feature `sanitize` it tells them.
//! AddressSanitizer is found when the program runs: its symbols are weak, and are there if the program
//! was built with `-Zsanitizer=address`. Valgrind is told by client requests, sequences of instructions
//! that do nothing elsewhere ("The client request mechanism" of its manual and `valgrind.h`, its
//! published protocol). On Linux, x86-64 and 64-bit ARM; without the feature, elsewhere and under Miri, all
//! of this is nothing.
//!
//! Whoever gives memory back to where it came from unpoisons it first: the next owner knows nothing
//! of it.

use core::ptr::NonNull;

/// Forbids every access to the `len` bytes at `start`.
#[inline(always)]
pub(crate) fn poison(start: NonNull<u8>, len: usize) {
    tools::tell(tools::Access::None, start, len);
}

/// Permits accesses; the contents are nobody's, and reading them before they are written is an error
/// to valgrind.
#[inline(always)]
pub(crate) fn unpoison(start: NonNull<u8>, len: usize) {
    tools::tell(tools::Access::Write, start, len);
}

/// Permits accesses, with the contents as they were.
#[inline(always)]
pub(crate) fn reveal(start: NonNull<u8>, len: usize) {
    tools::tell(tools::Access::Read, start, len);
}

#[cfg(not(all(
    feature = "sanitize",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
)))]
mod tools {
    use core::ptr::NonNull;

    pub(super) enum Access {
        None,
        Write,
        Read,
    }

    #[inline(always)]
    pub(super) fn tell(_access: Access, _start: NonNull<u8>, _len: usize) {}
}

#[cfg(all(
    feature = "sanitize",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
))]
mod tools {
    use core::{arch::asm, ffi::c_void, mem::transmute, ptr::NonNull};

    /// What is permitted; the numbers are memcheck's requests, of which the first is "MC", 0.
    #[derive(Clone, Copy, PartialEq)]
    #[repr(u64)]
    pub(super) enum Access {
        None = 0x4d43_0000,
        Write = 0x4d43_0001,
        Read = 0x4d43_0002,
    }

    pub(super) fn tell(access: Access, start: NonNull<u8>, len: usize) {
        if len == 0 {
            return;
        }
        // Lossless: both architectures have sizes of 64 bits.
        valgrind([access as u64, start.addr().get() as u64, len as u64, 0, 0, 0]);
        let call = if access == Access::None { address_of_poison() } else { address_of_unpoison() };
        if !call.is_null() {
            // SAFETY: both functions of AddressSanitizer's interface have this signature.
            let call: unsafe extern "C" fn(*const c_void, usize) = unsafe { transmute(call) };
            // SAFETY: they mark bytes of their own that stand for those at `start`, and read none.
            unsafe { call(start.as_ptr().cast(), len) };
        }
    }

    /// A client request: outside of valgrind, rotations by 128 bits in all, and a no-operation.
    #[inline]
    fn valgrind(request: [u64; 6]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `rdi` is as it was after the rotations, and nothing but flags and `rdx`, the answer,
        // changes; valgrind reads the request.
        unsafe {
            asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") request.as_ptr(),
                inout("rdx") 0_u64 => _,
                options(nostack)
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: `x12` is as it was after the rotations, and nothing but `x3`, the answer, changes;
        // valgrind reads the request.
        unsafe {
            asm!(
                "ror x12, x12, #3",
                "ror x12, x12, #13",
                "ror x12, x12, #51",
                "ror x12, x12, #61",
                "orr x10, x10, x10",
                in("x4") request.as_ptr(),
                inout("x3") 0_u64 => _,
                options(nostack)
            );
        }
    }

    /// The address of a function of AddressSanitizer's, or null where it is not linked.
    macro_rules! weak {
        ($function:ident, $symbol:literal) => {
            #[inline]
            fn $function() -> *const c_void {
                let address: *const c_void;
                #[cfg(target_arch = "x86_64")]
                // SAFETY: reads the entry of the global offset table that the linker makes for it.
                unsafe {
                    asm!(
                        concat!(".weak ", $symbol),
                        concat!("mov {}, qword ptr [rip + ", $symbol, "@GOTPCREL]"),
                        out(reg) address,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                unsafe {
                    asm!(
                        concat!(".weak ", $symbol),
                        concat!("adrp {0}, :got:", $symbol),
                        concat!("ldr {0}, [{0}, :got_lo12:", $symbol, "]"),
                        out(reg) address,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                address
            }
        };
    }
    weak!(address_of_poison, "__asan_poison_memory_region");
    weak!(address_of_unpoison, "__asan_unpoison_memory_region");
}
