//! Many threads at once, and the user's code inside the store's own.
//!
//! What threads do is compared with a sequential history: of what one thread alone changes, its own; of what all of them
//! change, each call says whether it changed something, and the calls that put a thing in and those that take it out
//! must alternate. The moments of a commit are gone through one by one in `persistence/moments.rs`.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "concurrency/stress.rs"]
mod stress;
#[path = "support/api.rs"]
mod support;
#[path = "concurrency/user_code.rs"]
mod user_code;
