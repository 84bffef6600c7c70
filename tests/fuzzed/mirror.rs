//! A copy of a store that is kept from its events alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
    num::NonZeroUsize,
    sync::Arc,
};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_peerstore::{Cause, Config, Event, Peer, PeerStore};

use super::talk::{self, LOCAL};

/// What events can tell of a peer. The order of addresses is none of it: it changes with time alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    addresses: BTreeSet<Multiaddr>,
    protocols: BTreeSet<String>,
    key: bool,
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Copied {
    /// A key that the peer id contains is always known, and no event.
    fn new(peer: &PeerId) -> Self {
        Self {
            key: talk::is_inlined(peer),
            ..Self::default()
        }
    }
}

/// Copies a store, and looks at each peer on the way.
pub fn copy(store: &PeerStore, config: &Config, look: impl Fn(&Peer)) -> BTreeMap<PeerId, Copied> {
    let peers = store.peers().into_iter().map(|known| {
        look(&known);
        assert_ne!(known.id, talk::peer(LOCAL));
        assert!(known.addresses.len() <= config.max_addresses_per_peer().get());
        for info in &known.addresses {
            assert!(info.address.len() <= config.max_address_len().get());
            assert!((0.0..=1.0).contains(&info.confidence));
            let own = Protocol::P2p(known.id);
            assert_ne!(info.address.iter().last(), Some(own));
        }
        assert!(known.protocols.len() <= config.max_protocols_per_peer().get());
        assert!(known.metadata.len() <= config.max_metadata_per_peer().get());
        for (name, value) in &known.metadata {
            assert!(name.len() <= config.max_metadata_key_len().get());
            assert!(value.len() <= config.max_metadata_value_len().get());
        }
        let copied = Copied {
            addresses: known.multiaddrs().cloned().collect(),
            protocols: known.protocols.iter().map(ToString::to_string).collect(),
            key: known.public_key.is_some(),
            metadata: known.metadata,
        };
        assert_eq!(copied.addresses.len(), known.addresses.len());
        (known.id, copied)
    });
    peers.collect()
}

pub struct Mirror {
    pub peers: BTreeMap<PeerId, Copied>,
    /// Whether each event must tell something new.
    pub strict: bool,
}

impl Mirror {
    pub fn apply(&mut self, event: Event, store: &PeerStore) {
        let Some(peer) = event.peer() else {
            assert!(matches!(event, Event::Lagged(1..)), "{event:?}");
            assert!(!self.strict, "{event:?}");
            let any = Config::default().with_max_addresses_per_peer(NonZeroUsize::MAX);
            self.peers = copy(store, &any, |_| {});
            return;
        };
        let known = self.peers.get(&peer);
        let is_addition = matches!(event, Event::PeerAdded { .. });
        assert!(
            !self.strict || known.is_none() == is_addition,
            "a peer is added first, and once: {event:?}"
        );
        let before = known.cloned().unwrap_or_else(|| Copied::new(&peer));
        let mut now = before.clone();
        match &event {
            Event::PeerAdded { .. } => {}
            Event::AddressesChanged {
                addresses, cause, ..
            } => {
                now.addresses = addresses.iter().cloned().collect();
                assert_eq!(now.addresses.len(), addresses.len());
                // One that was added may have displaced itself: only then nothing is different.
                assert!(
                    !self.strict || now != before || *cause == Cause::Evicted,
                    "{event:?}"
                );
            }
            Event::ProtocolsChanged { protocols, .. } => {
                now.protocols = protocols.iter().map(ToString::to_string).collect();
                assert_eq!(now.protocols.len(), protocols.len());
                assert!(!self.strict || now != before, "{event:?}");
            }
            Event::PublicKeyKnown { known, .. } => {
                assert!(!self.strict || now.key != *known, "{event:?}");
                now.key = *known;
            }
            // The value is not in the event: it may be large.
            Event::MetadataChanged { key, .. } => {
                match store.metadata().get_value(&peer, key) {
                    Some(value) => now.metadata.insert(key.to_string(), value),
                    None => now.metadata.remove(&**key),
                };
            }
            Event::PeerRemoved { .. } => {
                self.peers.remove(&peer);
                return;
            }
            other => panic!("{other:?}"),
        }
        self.peers.insert(peer, now);
    }
}

/// Whether two readers were told the same: they share what it holds.
pub fn are_same((one, other): (&Event, &Event)) -> bool {
    let holds_same = match (one, other) {
        (
            Event::AddressesChanged { addresses: one, .. },
            Event::AddressesChanged {
                addresses: other, ..
            },
        ) => Arc::ptr_eq(one, other),
        (
            Event::ProtocolsChanged { protocols: one, .. },
            Event::ProtocolsChanged {
                protocols: other, ..
            },
        ) => Arc::ptr_eq(one, other),
        (Event::MetadataChanged { key: one, .. }, Event::MetadataChanged { key: other, .. }) => {
            one == other
        }
        _ => true,
    };
    holds_same && discriminant(one) == discriminant(other) && one.peer() == other.peer()
}
