//! Peers that mean harm, by name: on real swarms where that can be done, else with a behaviour that is fed what a
//! swarm would tell it.
//!
//! Floods of peers, claims and names are in `eclipse.rs`, every single limit and the counter of every refusal in
//! `limits`, signed records that are forged, foreign or replayed in `signed_records.rs`, impostors in `impostor.rs` and
//! `quality/wrong_peer.rs`.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod datastore;
#[path = "hostile/fed.rs"]
mod fed;
#[path = "hostile/odd_addresses.rs"]
mod odd_addresses;
#[path = "hostile/pushes.rs"]
mod pushes;
// Its own tests use the rest of it.
#[allow(dead_code)]
#[path = "support/speaker.rs"]
mod speaker;
#[path = "support/api.rs"]
mod support;
#[path = "support/swarm.rs"]
mod swarm;
#[path = "hostile/swarms.rs"]
mod swarms;
#[path = "hostile/text.rs"]
mod text;

use libp2p::identify;
use libp2p_peerstore::Observed;

/// A node with a store, identify and Kademlia.
type Full = swarm::StoreFirst<Observed<identify::Behaviour>, Observed<swarm::Kad>>;
