#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| twinvm_fuzz::nbd_server(data));
