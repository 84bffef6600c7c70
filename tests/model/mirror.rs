//! A copy of the books that is kept from events alone: what the store tells is what the model knows, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{Cause, Event, PeerStore, Tag};

use super::{
    compare::seconds,
    naive::{Known, Naive},
};

/// The copy.
#[derive(Debug, Default)]
pub struct Mirror(BTreeMap<PeerId, Copy>);

/// One peer, as far as events speak of it.
#[derive(Debug, Default, PartialEq)]
struct Copy {
    addresses: BTreeSet<Multiaddr>,
    protocols: BTreeSet<String>,
    key: bool,
    metadata: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, (u8, Option<u64>)>,
    /// In microseconds.
    latency: Option<u64>,
}

impl From<&Known> for Copy {
    fn from(known: &Known) -> Self {
        let addresses = known.addresses.iter();
        Self {
            addresses: addresses.map(|known| known.address.clone()).collect(),
            protocols: known.protocols.clone(),
            key: known.key.is_some(),
            metadata: known.metadata.clone(),
            tags: known.tags.clone(),
            latency: known.latency.as_ref().map(|latency| latency.told),
        }
    }
}

impl Mirror {
    /// What a reader knows that has just copied all peers.
    pub fn of(naive: &Naive) -> Self {
        let peers = naive.peers.iter();
        Self(peers.map(|(id, known)| (*id, known.into())).collect())
    }

    /// Takes in what one act told.
    ///
    /// # Panics
    ///
    /// When an event is of a peer that no event has made known, or tells nothing new.
    pub fn hear(&mut self, events: &[Event], store: &PeerStore) {
        let mut keys = BTreeSet::new();
        for event in events {
            match event {
                Event::PeerAdded { peer } => {
                    let before = self.0.insert(*peer, Copy::default());
                    assert!(before.is_none(), "{event:?}");
                }
                Event::PeerRemoved { peer, cause } => {
                    let mut copy = self.0.remove(peer).expect("nobody goes who was not there");
                    let told =
                        |key: &String, _: &mut Vec<u8>| !keys.contains(&(*peer, key.clone()));
                    copy.metadata.retain(told);
                    copy.latency = None;
                    let tells = [Cause::Expired, Cause::Evicted].contains(cause);
                    assert!(
                        tells || copy == Copy::default(),
                        "{event:?} without {copy:?}"
                    );
                    keys.retain(|(of, _)| of != peer);
                }
                Event::AddressesChanged {
                    peer, addresses, ..
                } => {
                    let now: BTreeSet<Multiaddr> = addresses.iter().cloned().collect();
                    assert_eq!(now.len(), addresses.len());
                    news(&mut self.of_peer(peer).addresses, now, event);
                }
                Event::ProtocolsChanged {
                    peer, protocols, ..
                } => {
                    let now = protocols.iter().map(ToString::to_string).collect();
                    news(&mut self.of_peer(peer).protocols, now, event);
                }
                Event::PublicKeyKnown { peer, known } => {
                    news(&mut self.of_peer(peer).key, *known, event);
                }
                Event::MetadataChanged { peer, key } => {
                    self.of_peer(peer);
                    keys.insert((*peer, key.to_string()));
                }
                Event::TagsChanged { peer, tags, .. } => {
                    let kept = |tag: &Tag| (tag.value, tag.expires.map(seconds));
                    let now = tags.iter().map(|(name, tag)| (name.clone(), kept(tag)));
                    news(&mut self.of_peer(peer).tags, now.collect(), event);
                }
                Event::LatencyChanged { peer, latency } => {
                    let now = u64::try_from(latency.as_micros()).unwrap();
                    news(&mut self.of_peer(peer).latency, Some(now), event);
                }
                other => panic!("{other:?}"),
            }
        }
        // Such an event tells the key alone, and the value is asked for.
        for (peer, key) in keys {
            let now = store.metadata().get_value(&peer, &key);
            let metadata = &mut self.of_peer(&peer).metadata;
            let before = match now.clone() {
                Some(now) => metadata.insert(key.clone(), now),
                None => metadata.remove(&key),
            };
            assert_ne!(before, now, "{key} of {peer} has not changed");
        }
    }

    fn of_peer(&mut self, peer: &PeerId) -> &mut Copy {
        self.0
            .get_mut(peer)
            .expect("that it became known comes first")
    }

    /// Compares the copy with what is known. Of what has expired events tell when it is collected.
    pub fn compare(&self, naive: &Naive) {
        assert_eq!(self.0, Self::of(naive).0);
    }
}

/// Only a difference is an event.
fn news<T: PartialEq + std::fmt::Debug>(known: &mut T, now: T, event: &Event) {
    assert_ne!(*known, now, "{event:?}");
    *known = now;
}
