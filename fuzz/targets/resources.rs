#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtime::fuzz::resources(data));
