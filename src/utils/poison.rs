//! Memory that must not be accessed, for the tools that watch every access.
//!
//! An allocator that keeps freed blocks hides from AddressSanitizer and from valgrind's memcheck
//! that the blocks are free: to both tools, slabs are blocks in use. With the feature `sanitize`
//! the allocator tells them.
//!
//! AddressSanitizer is found when the program runs. Its symbols are weak, and exist if the program
//! was built with `-Zsanitizer=address`.
//!
//! Valgrind is told by client requests: sequences of instructions that do nothing outside of
//! valgrind. They are a published protocol ("The client request mechanism" of valgrind's manual,
//! and `valgrind.h`).
//!
//! All of this is for Linux, on x86-64 and 64-bit ARM. Without the feature, on other platforms and
//! under Miri these functions do nothing.
//!
//! An allocator that returns memory to its base allocator unpoisons the memory first, as the base
//! allocator does not know of the poison.

use core::ptr::NonNull;

/// Forbids every access to the `len` bytes at `start`.
#[inline(always)]
pub(crate) fn poison(start: NonNull<u8>, len: usize) {
    tools::tell(tools::Access::None, start, len);
}

/// Permits accesses to the `len` bytes at `start`. Their contents are undefined: valgrind reports a
/// read of bytes that were not written since.
#[inline(always)]
pub(crate) fn unpoison(start: NonNull<u8>, len: usize) {
    tools::tell(tools::Access::Write, start, len);
}

/// Permits accesses to the `len` bytes at `start`, and keeps their contents.
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

    /// The accesses that are permitted. The numbers are memcheck's requests: the letters "MC", and
    /// a number from 0 on.
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
        // Lossless: sizes have 64 bits on both architectures.
        valgrind([access as u64, start.addr().get() as u64, len as u64, 0, 0, 0]);
        let call = if access == Access::None { address_of_poison() } else { address_of_unpoison() };
        if !call.is_null() {
            // SAFETY: both functions of AddressSanitizer's interface have this signature.
            let call: unsafe extern "C" fn(*const c_void, usize) = unsafe { transmute(call) };
            // SAFETY: they write bytes of their own, which stand for those at `start`, and read
            // none of those.
            unsafe { call(start.as_ptr().cast(), len) };
        }
    }

    /// Makes a client request. Outside of valgrind these are rotations by 128 bits in all, and a
    /// no-operation.
    #[inline]
    fn valgrind(request: [u64; 6]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: after the rotations `rdi` is as it was. Only flags and `rdx`, the answer, change.
        // Valgrind reads the request.
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
        // SAFETY: after the rotations `x12` is as it was. Only `x3`, the answer, changes. Valgrind
        // reads the request.
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

    /// Defines a function that returns the address of a function of AddressSanitizer, or null if
    /// that is not linked.
    macro_rules! weak {
        ($function:ident, $symbol:literal) => {
            #[inline]
            fn $function() -> *const c_void {
                let address: *const c_void;
                #[cfg(target_arch = "x86_64")]
                // SAFETY: reads the entry that the linker makes for the symbol in the global offset
                // table.
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
