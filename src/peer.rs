//! What a query returns.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use libp2p_core::Multiaddr;
use libp2p_identity::{PeerId, PublicKey};
use libp2p_swarm::StreamProtocol;

use crate::{
    address::{AddressInfo, with_peer},
    book::Tag,
    escape::EscapedList,
    signed::SignedRecord,
    view::inlined_key,
};

/// Everything that the store knows about one peer, copied at one moment.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Peer {
    /// The peer's id.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
    pub id: PeerId,
    /// Its addresses with their history, best first, without `/p2p/<peer>` at their end.
    pub addresses: Vec<AddressInfo>,
    /// The protocols that it speaks. Their order has no meaning.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::protocols"))]
    pub protocols: Vec<StreamProtocol>,
    /// Its public key, from the key book or from the peer id itself.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::public_key"))]
    pub public_key: Option<PublicKey>,
    /// Its metadata. Identify fills [`AGENT_VERSION`](crate::AGENT_VERSION) and
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::metadata"))]
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Its tags by name, without those that have expired.
    pub tags: BTreeMap<String, Tag>,
    /// How long a message to it and back takes: an exponentially weighted mean, in which each new measurement has
    /// a weight of a tenth. See [`Learned::latency`](crate::Learned::latency).
    pub latency: Option<Duration>,
    /// Its latest signed peer record. The signature of one from the datastore need not have been checked yet:
    /// [`PeerStore::signed_peer_record`](crate::PeerStore::signed_peer_record) does that.
    pub signed_record: Option<SignedRecord>,
    /// Whether this node has a connection to it now.
    pub connected: bool,
    /// When anything was last heard of the peer, from itself, from others or from the application: to the second in the
    /// run in which it was heard, in steps of a quarter of the lifetime of its addresses after a restart. While it is
    /// connected, the moment of the copy.
    pub last_seen: SystemTime,
}

impl fmt::Debug for Peer {
    /// As derived, but for addresses and protocol names: strangers chose them, and they are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .field("addresses", &self.addresses)
            .field("protocols", &EscapedList(&self.protocols))
            .field("public_key", &self.public_key)
            .field("metadata", &self.metadata)
            .field("tags", &self.tags)
            .field("latency", &self.latency)
            .field("signed_record", &self.signed_record)
            .field("connected", &self.connected)
            .field("last_seen", &self.last_seen)
            .finish()
    }
}

impl Peer {
    /// Fills in the public key that the id contains.
    pub(crate) fn with_inlined_key(mut self) -> Self {
        if self.public_key.is_none() {
            self.public_key = inlined_key(&self.id);
        }
        self
    }

    /// The addresses alone, best first, without `/p2p/<peer>` at their end.
    pub fn multiaddrs(&self) -> impl Iterator<Item = &Multiaddr> + '_ {
        self.addresses.iter().map(|info| &info.address)
    }

    /// The addresses in the form in which one dials them or tells a friend: with `/p2p/<peer>` at their end.
    pub fn p2p_multiaddrs(&self) -> impl Iterator<Item = Multiaddr> + '_ {
        self.multiaddrs()
            .map(|address| with_peer(address.clone(), self.id))
    }

    /// Whether the peer speaks this protocol.
    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols
            .iter()
            .any(|known| known.as_ref() == protocol)
    }

    /// The confidence of its most promising address, from 0 to 1; `None` when it has no address.
    pub fn confidence(&self) -> Option<f64> {
        let confidence = self.addresses.iter().map(|info| info.confidence);
        confidence.max_by(f64::total_cmp)
    }

    /// Name and version of the peer's software, as identify told it. Bytes that are not UTF-8 are replaced.
    ///
    /// A stranger chose this text: escape it before a terminal or a page shows it.
    pub fn agent_version(&self) -> Option<String> {
        let value = self.metadata.get(crate::AGENT_VERSION)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}
