#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mainstay_fuzz::wal::fuzz::segment_header(data));
