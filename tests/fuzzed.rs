//! What the fuzzers in `fuzz/` run, on what they found before and on some random bytes. Keys and values, which cannot
//! be reached from outside, are tested in the same way in `src/fuzzing.rs`; random runs against the model are in
//! `model.rs`.

#![allow(clippy::unwrap_used)]

#[path = "fuzzed/behaviour.rs"]
mod behaviour;
#[path = "fuzzed/bytes.rs"]
mod bytes;
#[path = "fuzzed/load.rs"]
mod load;
#[allow(dead_code, unused_imports)]
#[path = "model/check.rs"]
mod store;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

/// Runs every input that found something, or that shows the way to the rest, and tells how many there were.
fn replay(target: &str, run: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
    let inputs = fs::read_dir(folder.join(target)).unwrap();
    let inputs = inputs.map(|input| fs::read(input.unwrap().path()).unwrap());
    inputs.map(|input| run(&input)).count()
}

#[test]
fn what_a_fuzzer_found_in_loading_stays_repaired() {
    assert!(replay("load", load::run) > 0);
}

#[test]
fn what_a_fuzzer_found_in_the_behaviour_stays_repaired() {
    assert!(replay("behaviour", behaviour::run) > 0);
}

#[test]
fn what_a_fuzzer_found_in_the_store_stays_repaired() {
    assert!(replay("store", store::run) > 0);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn a_store_opens_on_anything(bytes in vec(any::<u8>(), 0..300)) {
        load::run(&bytes);
    }

    #[test]
    fn a_behaviour_bears_anything(bytes in vec(any::<u8>(), 0..500)) {
        behaviour::run(&bytes);
    }
}
