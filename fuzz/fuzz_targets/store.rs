#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/model/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
