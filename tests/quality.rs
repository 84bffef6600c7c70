//! Which addresses are good: what is offered for a dial, what a failure means, what is forgotten and when, and what of
//! it survives a restart.

#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod support;

#[path = "quality/expiry.rs"]
mod expiry;
#[path = "quality/network.rs"]
mod network;
#[path = "quality/offers.rs"]
mod offers;
#[path = "quality/restart.rs"]
mod restart;
#[path = "quality/wrong_peer.rs"]
mod wrong_peer;

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{AddressInfo, PeerStore};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The grain of all times of an address.
const STEP: Duration = Duration::from_secs(64);

/// What is known of one address.
fn info(store: &PeerStore, peer: PeerId, address: &Multiaddr) -> Option<AddressInfo> {
    let infos = store.addresses().infos(&peer)?;
    infos.into_iter().find(|info| info.address == *address)
}
