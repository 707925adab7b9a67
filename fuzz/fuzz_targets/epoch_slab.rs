#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nebula_memory_fuzz::run("epoch_slab", data));
