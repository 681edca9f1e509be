#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mainstay_fuzz::pg::fuzz::messages(data));
