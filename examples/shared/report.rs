//! What the node tells: one line for each thing that happens, for people or for scripts.

use std::io::{self, Write};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::DialError};
use libp2p_peerstore::{Event, PeerStore};
use serde_json::{Value, json};

use crate::{
    json,
    text::{chain, plain, plain_list},
};

/// Prints what happens, for people or as JSON, a line at a time.
pub struct Report {
    json: bool,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    fn print(&self, json: Value, text: String) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", json::line(&json))?;
        } else {
            writeln!(stdout, "{text}")?;
        }
        stdout.flush()
    }

    pub fn loaded(&self, store: &PeerStore) -> io::Result<()> {
        let (id, peers) = (store.local_peer_id(), store.len());
        self.print(
            json!({ "event": "loaded", "peers": peers }),
            format!("this is {id}; it remembers {peers} peers"),
        )
    }

    pub fn saved(&self, store: &PeerStore) -> io::Result<()> {
        let peers = store.len();
        self.print(
            json!({ "event": "saved", "peers": peers }),
            format!("saved {peers} peers"),
        )
    }

    pub fn listening(&self, peer: PeerId, address: Multiaddr) -> io::Result<()> {
        let address = address.with(Protocol::P2p(peer));
        self.print(
            json!({ "event": "listening", "peer": peer.to_string(), "address": address }),
            format!("listening on {address}"),
        )
    }

    pub fn connected(&self, peer: PeerId, address: Multiaddr) -> io::Result<()> {
        let text = format!("{peer}: connected at {}", plain(&address));
        self.print(
            json!({ "event": "connected", "peer": peer.to_string(), "address": address }),
            text,
        )
    }

    pub fn disconnected(&self, peer: PeerId) -> io::Result<()> {
        self.print(
            json!({ "event": "disconnected", "peer": peer.to_string() }),
            format!("{peer}: disconnected"),
        )
    }

    pub fn dial_failed(&self, peer: Option<PeerId>, error: &DialError) -> io::Result<()> {
        let peer = peer.map(|peer| peer.to_string());
        let error = chain(error);
        let text = format!(
            "cannot dial {}: {}",
            peer.as_deref().unwrap_or("the address"),
            plain(&error)
        );
        self.print(
            json!({ "event": "dial_failed", "peer": peer, "error": error }),
            text,
        )
    }

    pub fn store_event(&self, store: &PeerStore, event: Event) -> io::Result<()> {
        let peer = event
            .peer()
            .map(|peer| peer.to_string())
            .unwrap_or_default();
        let (json, text) = match event {
            Event::PeerAdded { .. } => (
                json!({ "event": "peer", "peer": peer }),
                format!("{peer}: new"),
            ),
            Event::AddressesChanged {
                addresses, cause, ..
            } => (
                json!({ "event": "addresses", "peer": peer, "addresses": addresses.to_vec(), "cause": cause.to_string() }),
                format!(
                    "{peer}: addresses [{}]: {}",
                    cause,
                    plain_list(addresses.iter())
                ),
            ),
            Event::ProtocolsChanged {
                protocols, cause, ..
            } => {
                let protocols: Vec<&str> = protocols.iter().map(AsRef::as_ref).collect();
                (
                    json!({ "event": "protocols", "peer": peer, "protocols": protocols, "cause": cause.to_string() }),
                    format!("{peer}: protocols [{}]: {}", cause, plain_list(protocols)),
                )
            }
            Event::PublicKeyKnown { known, .. } => (
                json!({ "event": "public_key", "peer": peer, "known": known }),
                format!(
                    "{peer}: public key {}",
                    if known { "known" } else { "forgotten" }
                ),
            ),
            Event::MetadataChanged { peer: id, key } => {
                // As it is by now. Bytes that are not text stay out.
                let value = store.metadata().get_value(&id, &key);
                let value = value.and_then(|bytes| String::from_utf8(bytes).ok());
                let shown = value.as_deref().map_or("no text".to_owned(), plain);
                (
                    json!({ "event": "metadata", "peer": peer, "key": &*key, "value": value }),
                    format!("{peer}: {}: {shown}", plain(&key)),
                )
            }
            Event::PeerRemoved { cause, .. } => (
                json!({ "event": "removed", "peer": peer, "cause": cause.to_string() }),
                format!("{peer}: forgotten [{}]", cause),
            ),
            Event::CommitFailed { error, unsaved } => {
                let error = chain(&*error);
                let text = format!("could not save {unsaved} peers yet: {}", plain(&error));
                (
                    json!({ "event": "commit_failed", "error": error, "unsaved": unsaved }),
                    text,
                )
            }
            Event::Lagged(missed) => (
                json!({ "event": "lagged", "missed": missed }),
                format!("{missed} events were missed"),
            ),
            event => {
                tracing::warn!(?event, "this example does not know the event");
                return Ok(());
            }
        };
        self.print(json, text)
    }
}
