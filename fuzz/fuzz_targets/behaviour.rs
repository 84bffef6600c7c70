#![no_main]

#[path = "../../tests/fuzzed/behaviour.rs"]
mod behaviour;
#[path = "../../tests/fuzzed/bytes.rs"]
mod bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| behaviour::run(bytes));
