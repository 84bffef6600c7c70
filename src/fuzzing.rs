//! What fuzzers call of the parts that cannot be reached from outside. It is compiled by cargo-fuzz and for unit tests only.
//!
//! Each function takes any bytes and panics when something that must hold does not. The targets that need nothing but
//! the public interface are in `tests/fuzzed/`; `fuzz/README.md` tells of all of them.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod keys;
mod values;

pub use keys::keys;
pub use values::values;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{collection::vec, prelude::*};

    /// Runs every input that found something, or that shows the way to the rest, and tells how many there were.
    fn replay(target: &str, run: fn(&[u8])) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
        let inputs = fs::read_dir(folder.join(target)).expect("the inputs");
        let inputs = inputs.map(|input| fs::read(input.expect("a file").path()).expect("bytes"));
        inputs.map(|input| run(&input)).count()
    }

    #[test]
    fn what_a_fuzzer_found_in_keys_stays_repaired() {
        assert!(replay("keys", super::keys) > 0);
    }

    #[test]
    fn what_a_fuzzer_found_in_values_stays_repaired() {
        assert!(replay("values", super::values) > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_bytes_are_read_as_keys(bytes in vec(any::<u8>(), 0..200)) {
            super::keys(&bytes);
        }

        #[test]
        fn any_bytes_are_read_as_values(bytes in vec(any::<u8>(), 0..200)) {
            super::values(&bytes);
        }
    }
}
