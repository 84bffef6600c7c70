//! The store gives the answers of a naive model, after any run of operations.
//!
//! In `model/`: `ops.rs` makes operations of bytes, `check.rs` runs store and model beside each other, `act.rs` and
//! `expect.rs` do one operation to each, `naive*.rs` are the model, `compare.rs` asks both everything.

#![allow(clippy::unwrap_used)]

#[path = "model/check.rs"]
mod check;
#[path = "model/found.rs"]
mod found;

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
