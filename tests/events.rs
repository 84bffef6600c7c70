//! What the store tells about its changes, and how it reaches its readers.

#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod support;

#[path = "events/mirror.rs"]
mod mirror;
#[path = "events/sequences.rs"]
mod sequences;
#[path = "events/subscriptions.rs"]
mod subscriptions;
