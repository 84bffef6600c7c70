#![no_main]

#[path = "../../tests/fuzzed/behaviour.rs"]
mod behaviour;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| behaviour::run(bytes));
