//! The store gives the answers of a naive model, after any run of operations.
//!
//! The model is in `model/`: `check.rs` runs the two beside each other, `naive*.rs` are the model, `ops.rs` makes
//! operations of bytes.

#![allow(clippy::unwrap_used)]

#[path = "model/check.rs"]
mod check;

use proptest::{collection::vec, prelude::*};

/// One operation, as bytes.
fn block() -> impl Strategy<Value = [u8; check::BLOCK]> {
    any::<[u8; check::BLOCK]>()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn after_any_operations_the_store_answers_as_the_model_does(blocks in vec(block(), 1..120)) {
        let bytes = blocks.concat();
        let result = std::panic::catch_unwind(|| check::run(&bytes));
        prop_assert!(result.is_ok(), "{}", check::describe(&bytes));
    }
}
