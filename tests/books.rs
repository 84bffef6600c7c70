//! The four books and the store as a whole, through the public API.

#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod support;

#[path = "books/addresses.rs"]
mod addresses;
#[path = "books/gathering.rs"]
mod gathering;
#[path = "books/keys.rs"]
mod keys;
#[path = "books/metadata.rs"]
mod metadata;
#[path = "books/peers.rs"]
mod peers;
#[path = "books/protocols.rs"]
mod protocols;
