//! The store gives the answers of a naive model, after any run of operations.
//!
//! In `model/`: `ops.rs` makes operations of bytes, `check.rs` runs store and model beside each other, `act.rs` and
//! `expect.rs` do one operation to each, `naive*.rs` are the model, `compare.rs` asks both everything, and `mirror.rs`
//! is a copy that is kept from events alone.
//!
//! `PROPTEST_CASES=20000 cargo test --test model` looks for longer.

#![allow(clippy::unwrap_used)]

#[path = "model/check.rs"]
mod check;
#[path = "model/found.rs"]
mod found;

use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};

/// So many cases, unless the environment says otherwise.
fn cases(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config
}

/// One operation, as bytes.
fn block() -> impl Strategy<Value = [u8; check::BLOCK]> {
    any::<[u8; check::BLOCK]>()
}

fn store_and_model_agree(bytes: &[u8]) -> TestCaseResult {
    let result = std::panic::catch_unwind(|| check::run(bytes));
    prop_assert!(result.is_ok(), "{}", check::describe(bytes));
    Ok(())
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn after_any_operations_the_store_answers_as_the_model_does(blocks in vec(block(), 1..120)) {
        store_and_model_agree(&blocks.concat())?;
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn any_bytes_are_operations(bytes in vec(any::<u8>(), 0..300)) {
        store_and_model_agree(&bytes)?;
    }
}
