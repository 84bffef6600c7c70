#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| libp2p_peerstore::fuzzing::values(bytes));
