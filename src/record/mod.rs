//! One peer as the store keeps it in memory, and the rules for what may happen to it.
//!
//! Nothing here knows of the swarm, of events or of a datastore: a rule changes the record and notes in a
//! [`Delta`] what that means for them.

mod addresses;
mod extras;
mod protocols;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use bitflags::bitflags;
use libp2p_core::{Multiaddr, multihash::Multihash};
use libp2p_identity::{PeerId, PublicKey};
use libp2p_swarm::StreamProtocol;

use crate::{
    address::{AddressInfo, Entry, Sources, Standing, with_peer},
    clock::Timestamp,
    config::Config,
    peer::{Peer, SignedRecord},
    refusal::{Refusals, Refused},
};

pub(crate) use extras::check_metadata;
pub(crate) use protocols::check_protocols;

bitflags! {
    /// Some of the four books.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Books: u8 {
        const ADDRESSES = 1;
        const PROTOCOLS = 1 << 1;
        const KEY = 1 << 2;
        const METADATA = 1 << 3;
    }
}

/// What a peer is worth when the store is full, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    Hearsay,
    Inbound,
    SelfTold,
    Proven,
    Connected,
    Pinned,
}

impl Class {
    pub(crate) const ALL: [Class; 6] = [
        Class::Hearsay,
        Class::Inbound,
        Class::SelfTold,
        Class::Proven,
        Class::Connected,
        Class::Pinned,
    ];
}

/// The time and the limits under which a rule works.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Config,
}

impl Rules<'_> {
    fn lifetime(&self, standing: Standing) -> Duration {
        match standing {
            Standing::Proven => self.config.proven_lifetime(),
            Standing::SelfTold => self.config.self_told_lifetime(),
            Standing::Hearsay | Standing::Inbound => self.config.hearsay_lifetime(),
        }
    }

    fn standing(&self, entry: &Entry) -> Standing {
        entry.standing(self.now, self.config.proven_lifetime())
    }

    /// Whether the time that is kept has become misleading: it is a quarter of its lifetime old.
    fn is_stale(&self, kept: Timestamp, lifetime: Duration) -> bool {
        self.now.since(kept) > lifetime / 4
    }
}

/// What a rule did to a record.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Books in which something is really different: these are events.
    pub(crate) changed: Books,
    /// Books that must be written soon.
    pub(crate) save: Books,
    /// Books whose small print changed (a failure, another source): written with the next commit.
    pub(crate) save_later: Books,
    /// The metadata keys that changed.
    pub(crate) metadata: Vec<String>,
    /// What was refused, by reason.
    pub(crate) refused: Refusals,
}

impl Delta {
    fn change(&mut self, book: Books) {
        self.changed |= book;
        self.save |= book;
    }

    fn refuse(&mut self, reason: Refused) {
        self.refused.count(reason);
    }
}

/// What a foreign or newer program wrote and this one does not understand, written back as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Foreign {
    /// Unknown fields of the addresses value.
    pub(crate) addresses: Vec<u8>,
    /// Addresses that do not parse: the field that each stood in, and its message.
    pub(crate) unreadable: Vec<(u32, Vec<u8>)>,
    /// Unknown fields of the protocols value.
    pub(crate) protocols: Vec<u8>,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: PeerId,
    pub(crate) addresses: Vec<Entry>,
    /// In the order in which they were told.
    pub(crate) protocols: Vec<StreamProtocol>,
    /// Only a key that the peer id does not contain.
    pub(crate) public_key: Option<Box<PublicKey>>,
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    /// The latest signed peer record, as it was loaded.
    pub(crate) signed: Option<SignedRecord>,
    /// Addresses that the peer or the user took away, and when: hearsay alone does not bring them back.
    dropped: Vec<(Multiaddr, Timestamp)>,
    pub(crate) foreign: Option<Box<Foreign>>,
    /// Books of which something may stand in the datastore.
    pub(crate) saved: Books,
    pub(crate) connected: bool,
    /// When the content of the two books last changed: stores can be merged by it.
    pub(crate) addresses_changed: Timestamp,
    pub(crate) protocols_changed: Timestamp,
}

impl Record {
    pub(crate) fn new(id: PeerId) -> Self {
        Self {
            id,
            addresses: Vec::new(),
            protocols: Vec::new(),
            public_key: None,
            metadata: BTreeMap::new(),
            signed: None,
            dropped: Vec::new(),
            foreign: None,
            saved: Books::empty(),
            connected: false,
            addresses_changed: Timestamp::default(),
            protocols_changed: Timestamp::default(),
        }
    }

    /// Whether no book holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.protocols.is_empty()
            && self.public_key.is_none()
            && self.metadata.is_empty()
            && self.foreign.is_none()
    }

    /// Notes when the changed books changed.
    pub(crate) fn stamp(&mut self, changed: Books, now: Timestamp) {
        if changed.contains(Books::ADDRESSES) {
            self.addresses_changed = now;
        }
        if changed.contains(Books::PROTOCOLS) {
            self.protocols_changed = now;
        }
    }

    /// What the peer is worth when room is needed.
    pub(crate) fn class(&self) -> Class {
        let sources = self
            .addresses
            .iter()
            .fold(Sources::empty(), |all, entry| all | entry.sources);
        if sources.contains(Sources::PINNED) {
            Class::Pinned
        } else if self.connected {
            Class::Connected
        } else if sources.contains(Sources::DIALLED) || self.has_user_metadata() {
            Class::Proven
        } else if sources.intersects(Sources::SELF_TOLD) {
            Class::SelfTold
        } else if sources == Sources::INBOUND {
            Class::Inbound
        } else if sources.is_empty() && (!self.protocols.is_empty() || self.public_key.is_some()) {
            // Protocols and keys are not gossiped: they come from the peer itself.
            Class::SelfTold
        } else {
            Class::Hearsay
        }
    }

    /// When anything was last heard of the peer: the tie-break within a class.
    pub(crate) fn last_heard(&self) -> Timestamp {
        self.addresses
            .iter()
            .map(|entry| entry.last_heard)
            .max()
            .unwrap_or_default()
    }

    fn has_user_metadata(&self) -> bool {
        self.metadata
            .keys()
            .any(|key| key != crate::AGENT_VERSION && key != crate::PROTOCOL_VERSION)
    }

    pub(crate) fn find(&mut self, address: &Multiaddr) -> Option<&mut Entry> {
        self.addresses
            .iter_mut()
            .find(|entry| entry.address == *address)
    }

    // --- reading -------------------------------------------------------------------------------------------

    /// The addresses, best first: by standing, then those that did not fail, then the latest success, then
    /// what was heard last. What is equal in all of that stays in the order in which it came.
    pub(crate) fn ranked(&self, rules: Rules<'_>) -> Vec<&Entry> {
        let mut ranked: Vec<_> = self.addresses.iter().collect();
        ranked.sort_by_key(|entry| {
            (
                Reverse(rules.standing(entry)),
                entry.failures,
                Reverse(entry.last_success),
                Reverse(entry.last_heard),
            )
        });
        ranked
    }

    pub(crate) fn multiaddrs(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        self.ranked(rules)
            .into_iter()
            .map(|entry| entry.address.clone())
            .collect()
    }

    /// The addresses with their history, best first.
    pub(crate) fn infos(&self, rules: Rules<'_>) -> Vec<AddressInfo> {
        let proven_lifetime = rules.config.proven_lifetime();
        self.ranked(rules)
            .into_iter()
            .map(|entry| entry.info(rules.now, proven_lifetime))
            .collect()
    }

    /// What the store hands to the swarm for a dial: best first, with `/p2p/<peer>`; what was only seen on
    /// inbound connections when there is nothing else.
    pub(crate) fn offers(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        let only_inbound = self.addresses.iter().all(Entry::is_inbound_only);
        self.ranked(rules)
            .into_iter()
            .filter(|entry| !entry.unsupported && (only_inbound || !entry.is_inbound_only()))
            .take(rules.config.max_dial_addresses().get())
            .map(|entry| with_peer(entry.address.clone(), self.id))
            .collect()
    }

    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        match &self.public_key {
            Some(key) => Some((**key).clone()),
            None => inlined_key(&self.id),
        }
    }

    pub(crate) fn view(&self, rules: Rules<'_>) -> Peer {
        Peer {
            id: self.id,
            addresses: self.infos(rules),
            protocols: self.protocols.clone(),
            public_key: self.public_key(),
            metadata: self.metadata.clone(),
            signed_record: self.signed.clone(),
            connected: self.connected,
        }
    }
}

/// The public key that a peer id contains, as those of ed25519 and secp256k1 keys do.
pub(crate) fn inlined_key(id: &PeerId) -> Option<PublicKey> {
    if !is_inlined(id) {
        return None;
    }
    let hash = Multihash::from(*id);
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    (PeerId::from_public_key(&key) == *id).then_some(key)
}

/// Whether a peer id is made of a key itself, not of its hash. Decoding that key costs microseconds, as a point
/// on a curve is computed; this costs nothing.
pub(crate) fn is_inlined(id: &PeerId) -> bool {
    // The multihash code of the identity "hash".
    const IDENTITY: u64 = 0;
    Multihash::from(*id).code() == IDENTITY
}

/// A list for an event.
pub(crate) fn shared<T>(items: Vec<T>) -> Arc<[T]> {
    items.into()
}
