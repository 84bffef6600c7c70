#![no_main]

#[path = "../../tests/fuzzed/bytes.rs"]
mod bytes;
#[path = "../../tests/fuzzed/load.rs"]
mod load;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| load::run(bytes));
