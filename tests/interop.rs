//! Beside real js-libp2p: its current release on the wire, and the stored data of 0.30.13. Where Node.js or the packages
//! are missing (`npm ci` in `tests/interop/wire` and `tests/interop/stored`) the tests say that they are skipped.

#![cfg(all(
    feature = "identify",
    feature = "kad",
    feature = "ping",
    feature = "fs"
))]
// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "interop/child.rs"]
mod child;
#[path = "support/format.rs"]
mod format;
#[path = "interop/on_the_wire.rs"]
mod on_the_wire;
#[path = "support/skip.rs"]
mod skip;
#[path = "interop/stored_data.rs"]
mod stored_data;
#[path = "support/swarm.rs"]
mod swarm;

use data_encoding::HEXLOWER;
use libp2p::{Multiaddr, PeerId};
use serde_json::Value;

/// A piece of JSON that is text.
fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(text).collect()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn peer_id(value: &Value) -> PeerId {
    value.as_str().unwrap().parse().unwrap()
}

fn addresses(value: &Value) -> Vec<Multiaddr> {
    let addresses = texts(value).into_iter();
    addresses.map(|address| address.parse().unwrap()).collect()
}
